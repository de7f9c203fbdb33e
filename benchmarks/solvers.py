"""Which solver, how many steps: errors of samples and of log-densities against evaluations of the field.

Run: python benchmarks/solvers.py [--only mixture,digits,exact] [--run RUN] [--json out.json] [--plots FOLDER]

Three fields: a mixture of five Gaussians in the plane, a net trained on digits here in about a minute (or the digits
run given), and the exact field of 500 digits with sigma_min = 0.1 (of which the share of samples that land on another
digit is given for sigma_min = 0). Euler, midpoint, Heun and RK4 walk on equal steps, on steps that are even in the log
of the bandwidth, and on nodes optimised on other noise; dopri5 chooses its steps by tolerances. All is computed in
float64. Samples are compared, row by row, with the end points of dopri5 at tolerances of 1e-10 from the same noise;
log-densities with the known ones, or, for the net, with those of dopri5 along the same random direction of each row.
For them the nodes are optimised on the field that carries the integral of the divergence, backwards from other data.
"""

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fluvial as fv
from fluvial.fields import GaussianMixtureField
from fluvial.fields.carried import Carried, log_normal, rademacher
from fluvial.fields.divergences import Divergence, own_divergence, random_divergence
from fluvial.randomness import generator, noise
from fluvial.solvers.grids import optimised_grid
from fluvial.support.design import bandwidth_grid, even_bandwidths
from fluvial.training import TrainConfig, Trainer, load_run
from solvers_figures import draw_all

FIELDS = ("digits", "exact", "mixture")  # the longest first: two are measured at once
EVALUATIONS = (4, 8, 12, 20, 40, 80, 200)
STAGES = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
TIGHT = {"method": "dopri5", "rtol": 1e-10, "atol": 1e-10}
ROWS, DENSITY_ROWS = 512, 128  # samples that are compared, and log-densities
F64 = torch.float64


@dataclass(frozen=True)
class Target:
    """A field and what its solutions are compared with."""

    name: str
    field: Any
    shape: tuple[int, ...]
    scale: float  # standard deviation of the data in one coordinate
    path: fv.GaussianPath
    data: Tensor | None  # held out, for a distance between distributions
    density: Any  # the field whose log-density is taken
    points: Tensor  # where
    trace: Divergence
    own_points: Tensor  # to optimise nodes on
    own_trace: Divergence
    log_prob: Tensor | None  # known log-densities
    landing: fv.ExactField | None = None  # the same field with sigma_min = 0, whose flow ends at data


def mixture() -> Target:
    """Five Gaussians in the plane, of standard deviations from .15 to .5."""
    g = generator(0)
    means, widths = 2 * torch.randn(5, 2, generator=g, dtype=F64), 0.15 + 0.35 * torch.rand(5, generator=g, dtype=F64)
    field = GaussianMixtureField(means, widths**2)
    drawn = torch.randint(5, (4 * ROWS,), generator=g)
    x = means[drawn] + widths[drawn, None] * torch.randn(4 * ROWS, 2, generator=g, dtype=F64)
    points, own, scale = x[:DENSITY_ROWS], x[DENSITY_ROWS:][:256], float(x.std(0).mean())
    known = field.log_prob(points)
    return Target(
        "mixture", field, (2,), scale, field.path, x, field, points, own_divergence, own, own_divergence, known
    )


def digits(run: Path | None) -> Target:
    """A net on digits, and its log-density by one fixed direction for each row, at held-out digits."""
    if run is None:
        with tempfile.TemporaryDirectory() as folder:
            config = TrainConfig(data="digits", width=128, depth=4, steps=4000, batch_size=128, checkpoint_every=4000)
            net = Trainer(config, Path(folder) / "run").fit().net
        path: fv.GaussianPath = fv.CondOT()
    else:
        loaded = load_run(run)
        net, path = loaded.net, loaded.path
    net = net.double().requires_grad_(False)
    held_out = fv.load_dataset("digits").held_out.x.double()
    g = generator(1)
    x = held_out[: DENSITY_ROWS + 64]
    points, own = (x + (torch.rand(x.shape, generator=g, dtype=F64) - 0.5) / 8).split([DENSITY_ROWS, 64])
    trace, own_trace = (random_divergence([rademacher(each, 1, g)[:, 0]]) for each in (points, own))
    scale = float(held_out.std())
    return Target("digits", net, (1, 8, 8), scale, path, held_out, net, points, trace, own, own_trace, None)


def exact() -> Target:
    """The exact field of 500 digits; for its density with sigma_min = 0.1, at points that it makes."""
    data = fv.load_dataset("digits").train.x[:500].flatten(1).double()
    wide = fv.ExactField(data, fv.CondOT(sigma_min=0.1))
    g = generator(2)
    x = data[: DENSITY_ROWS + 64]
    points, own = (x + 0.1 * torch.randn(x.shape, generator=g, dtype=F64)).split([DENSITY_ROWS, 64])
    squares = torch.cdist(points, data).square()
    known = torch.logsumexp(-squares / 0.02, 1) - math.log(len(data)) - 32 * math.log(0.02 * math.pi)
    scale, traces = float(data.std()), (own_divergence, own, own_divergence)
    return Target("exact", wide, (64,), scale, wide.path, None, wide, points, *traces, known, fv.ExactField(data))


def grids_of(target: Target, method: str, steps: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """Nodes of the three grids, for samples and, backwards, for log-densities."""
    for name, nodes in (
        ("equal", [k / steps for k in range(steps + 1)]),
        ("bandwidth", bandwidth_nodes(target.path, target.scale, steps)),
    ):
        yield name, nodes, nodes[::-1]
    x0, x1 = noise(7, 0, len(target.own_points), target.shape, F64), target.own_points
    carried = Carried(target.density, x1, target.own_trace)
    yield (
        "optimised",
        optimised_grid(target.field, x0, steps, method, rounds=3),
        optimised_grid(carried, carried.start(x1, 1), steps, method, t0=1.0, t1=0.0, rounds=3),
    )


def bandwidth_nodes(path: fv.GaussianPath, scale: float, steps: int) -> list[float]:
    """Steps that are even in log h: as far as equal steps of CondOT reach for data of scale 1, and no further than the
    path does."""
    reach, end = max(steps - 1, 2), float(path.bandwidth(torch.ones((), dtype=F64)))
    if end * reach < scale:
        return bandwidth_grid(even_bandwidths(scale, steps, reach, 1 / reach), path)
    return bandwidth_grid(np.geomspace(scale * reach, end, steps)[:-1], path)


def sample_errors(target: Target, x: Tensor, truth: Tensor) -> dict[str, float]:
    """Root mean square distance of the ends, its median, and the distance of the distributions from held-out data."""
    distance = (x - truth).flatten(1).norm(dim=1)
    found = {"rms": float(distance.square().mean().sqrt()), "median": float(distance.median())}
    return found if target.data is None else found | {"energy": fv.metrics.energy_distance(x, target.data)}


def share_elsewhere(field: fv.ExactField, x0: Tensor, landed: Tensor, way: dict[str, Any]) -> float:
    """Share of rows that do not end on the datum on which the exact flow ends."""
    with torch.no_grad():
        x = fv.solve(field, x0, **way).x
    return float(((x - landed).norm(dim=1) > 0.1).double().mean())


def density_errors(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean absolute error and bias of log-densities, in nats."""
    return {"absolute": float((found - truth).abs().mean()), "bias": float((found - truth).mean())}


def log_densities(target: Target, **way: Any) -> tuple[Tensor, int]:
    """Log-densities of the points and the evaluations that they took."""
    carried = Carried(target.density, target.points, target.trace)
    with torch.no_grad():
        end = fv.solve(carried, carried.start(target.points, 1), t0=1.0, t1=0.0, **way)
    x0, integral = carried.split(end.x)
    return log_normal(x0) + integral[:, 0], end.evaluations


def measure(target: Target) -> dict[str, Any]:
    """All rows of one field."""
    x0, rows = noise(8, 0, ROWS, target.shape, F64), []
    with torch.no_grad():
        truth = fv.solve(target.field, x0, **TIGHT).x
        landed = None if target.landing is None else fv.solve(target.landing, x0, **TIGHT).x
    known = log_densities(target, **TIGHT)[0] if target.log_prob is None else target.log_prob

    def add(grid: str, way: dict[str, Any], backwards: dict[str, Any]) -> None:
        with torch.no_grad():
            end = fv.solve(target.field, x0, **way)
        log_prob, count = log_densities(target, **backwards)
        row = {"method": way["method"], "grid": grid, "evaluations": end.evaluations}
        row |= sample_errors(target, end.x, truth)
        if landed is not None:
            row["elsewhere"] = share_elsewhere(target.landing, x0, landed, way)
        rows.append(row | {"density": count} | density_errors(log_prob, known))

    for method, stages in STAGES.items():
        for evaluations in EVALUATIONS:
            for grid, nodes, back in grids_of(target, method, evaluations // stages):
                add(grid, {"method": method, "grid": nodes}, {"method": method, "grid": back})
    for tolerance in TOLERANCES:
        way = {"method": "dopri5", "rtol": tolerance, "atol": tolerance}
        add(f"{tolerance:.0e}", way, way)
    reference = None if target.data is None else fv.metrics.energy_distance(truth, target.data)
    return {"rows": rows, "energy of the flow": reference, "scale": target.scale}


def measured(name: str, run: Path | None) -> tuple[str, dict[str, Any]]:
    """One field, in a process of its own."""
    start = time.perf_counter()
    found = measure(digits(run) if name == "digits" else mixture() if name == "mixture" else exact())
    return name, found | {"seconds": round(time.perf_counter() - start)}


def table(name: str, found: dict[str, Any]) -> str:
    """A Markdown table of one field."""
    last = "elsewhere" if name == "exact" else "energy"
    lines = [
        f"\n{name}, {found['seconds']} s; energy distance of the flow itself: {found['energy of the flow']}\n",
        f"| method | grid | evaluations | RMS | median | {last} | for log p | error, nats | bias |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *map(line, found["rows"])])


def line(row: dict[str, Any]) -> str:
    last = f"{row['energy']:.4f}" if "energy" in row else f"{100 * row['elsewhere']:.1f} %"
    return (
        f"| {row['method']} | {row['grid']} | {row['evaluations']} | {row['rms']:.2e} | {row['median']:.2e} | {last} "
        f"| {row['density']} | {row['absolute']:.2e} | {row['bias']:+.2e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(FIELDS), help="which fields (default all)")
    parser.add_argument("--run", type=Path, help="a run of digits instead of training a net here")
    parser.add_argument("--json", type=Path, help="write the figures there; those of other fields there are kept")
    parser.add_argument("--plots", type=Path, help="write the pictures of the figures in --json into this folder")
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name]
    if unknown := set(names) - set(FIELDS):
        parser.error(f"--only must name some of {', '.join(FIELDS)}, got {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text())
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for name, rows in pool.map(measured, names, [arguments.run] * len(names)):
            found[name] = rows
            print(table(name, rows), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.plots:
        draw_all(found, arguments.plots)


if __name__ == "__main__":
    main()
