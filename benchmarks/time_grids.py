"""Does a designed grid of time beat the uniform one? The exact field of 50 examples on five families of tasks.

Tasks, supports, noise and targets are the same for every grid; differences are taken task by task, with 95 % intervals
over tasks. ``--validate`` compares the rules that were considered on tasks of other seeds, from which the one in use
was chosen. Usage: ``OMP_NUM_THREADS=1 python benchmarks/time_grids.py [--tasks 100] [--validate] [--json FILE]``.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fluvial.randomness import generator
from fluvial.support import KernelAttention, load_support_run
from fluvial.support.design import (
    SizeCurve,
    balanced_bandwidths,
    balanced_sizes,
    bandwidth_grid,
    compare_grids,
    design_grid,
    effective_sizes,
    even_bandwidths,
    geometric_sizes,
)
from fluvial.support.tasks import Family, family_by_name

FAMILIES = (
    ("gmm", 2), ("gmm", 4), ("gmm", 8), ("gmm", 16), ("rings", 2), ("moons", 2), ("spirals", 2), ("shells", 8),
)  # fmt: skip
SETTINGS = (("euler", 10), ("euler", 20), ("heun", 5), ("heun", 10))
M, POINTS = 50, 500
DESIGN, VALIDATION, TEST = 1, 2, 3
"""Seeds: tasks from which grids are designed, rules are chosen and figures are reported."""


def equal_information(family: Family, curve: SizeCurve, steps: int) -> list[float]:
    """Equal shares, up to ln m, of the Gaussian information 1/2 sum ln(1 + lambda / h^2), averaged over supports."""
    support = family.batch(100, M, 1, generator(DESIGN, 7)).support.double()
    centred = support - support.mean(1, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(centred.mT @ centred / M).clamp_min(0)
    h = curve.scale * np.geomspace(300, 1e-3, 400)
    known = [0.5 * float(torch.log1p(eigenvalues / x**2).sum(1).mean()) for x in h]
    shares = [np.log(M) * k / steps for k in range(1, steps)]
    return bandwidth_grid(np.exp(np.interp(shares, known, np.log(h))))


def chosen(curve: SizeCurve, method: str, steps: int) -> list[float]:
    """The rule in use: the sizes of balanced errors for Euler's method, even bandwidths for Heun's."""
    if method == "euler":
        return design_grid(curve, balanced_sizes(curve), steps)
    return bandwidth_grid(even_bandwidths(curve.scale, steps))


def candidates(family: Family, curve: SizeCurve, steps: int) -> dict[str, list[float]]:
    """The rules that were considered."""
    balanced = {f"balanced, {c:g} s": bandwidth_grid(balanced_bandwidths(c * curve.scale, steps)) for c in
                (0.5, 0.7, 0.85, 1.0, 1.4)}  # fmt: skip
    even = {f"even, 6 to {b:g} s": bandwidth_grid(even_bandwidths(curve.scale, steps, last=b)) for b in
            (0.03, 0.06, 0.1, 0.15)}  # fmt: skip
    return {
        **balanced,
        **even,
        "geometric n_eff": design_grid(curve, geometric_sizes(M, 1.01), steps),
        "equal information": equal_information(family, curve, steps),
    }


def compare(
    model: Any,
    family: Family,
    method: str,
    grids: dict[str, list[float]],
    steps: int,
    tasks: int,
    seed: int,
    curve: SizeCurve,
) -> list[dict[str, Any]]:
    """Rows of the grids against the uniform one."""
    uniform = [k / steps for k in range(steps + 1)]
    fine = bandwidth_grid([h for h in balanced_bandwidths(curve.scale, 241) if h > 0.0101])
    found = compare_grids(
        model, family, {"uniform": uniform, **grids}, method=method, m=M, tasks=tasks, points=POINTS,
        reference=fine, seed=seed,
    )  # fmt: skip
    place = {"family": family.name, "dim": family.dim, "method": method, "steps": steps}
    return [{**place, **row} for row in found.rows()[1:]] + [{**place, **found.rows()[0]}]


def line(row: dict[str, Any], uniform: dict[str, Any]) -> str:
    """One row of the Markdown table."""

    def difference(figure: str, factor: float, digits: int) -> str:
        d = {name: factor * value for name, value in row[f"{figure}_difference"].items()}
        mark = "**" if d["high"] < 0 else ""
        return f"{mark}{d['value']:+.{digits}f} [{d['low']:+.{digits}f}, {d['high']:+.{digits}f}]{mark}"

    return (
        f"| {row['family']} {row['dim']} | {row['method']} {row['steps']} | {row['grid']} "
        f"| {1e3 * uniform['mmd2']['value']:.2f} | {difference('mmd2', 1e3, 2)} | {difference('energy', 1e3, 1)} "
        f"| {uniform['distance']['value']:.2f} | {difference('distance', 1, 2)} |"
    )


def measure(arguments: argparse.Namespace, report: Callable[[str], None]) -> list[dict[str, Any]]:
    tasks, validate = arguments.tasks, arguments.validate
    rows: list[dict[str, Any]] = []
    run = None if arguments.run is None else load_support_run(arguments.run)
    model = KernelAttention() if run is None else run.net
    families = [family_by_name(*each) for each in FAMILIES if arguments.only in (None, each[0])]
    for family in families if run is None else [run.family()]:
        curve = effective_sizes(family, M, tasks=100, queries=100, seed=DESIGN)
        for method, steps in SETTINGS:
            if arguments.method not in (None, method):
                continue
            grids = candidates(family, curve, steps) if validate else {"designed": chosen(curve, method, steps)}
            *found, uniform = compare(
                model, family, method, grids, steps, tasks, VALIDATION if validate else TEST, curve
            )
            for row in found:
                report(line(row, uniform))
            rows += [*found, uniform]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Designed grids of time against the uniform one.")
    parser.add_argument("--tasks", type=int, default=100, help="tasks of each family")
    parser.add_argument("--only", choices=sorted({name for name, _ in FAMILIES}), help="one family alone")
    parser.add_argument("--method", choices=("euler", "heun"), help="one method alone")
    parser.add_argument("--run", type=Path, help="the net of a run of fluvial support train, on its own tasks, instead")
    parser.add_argument("--validate", action="store_true", help="compare the rules on validation tasks")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    if arguments.tasks < 2:
        parser.error(f"--tasks must be at least 2, got {arguments.tasks}")
    start = time.perf_counter()
    print(
        "| family | method | grid | uniform: MMD^2 e-3 | difference e-3 | energy e-3 | uniform: distance | difference |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = measure(arguments, lambda text: print(text, flush=True))
    print(f"\n{arguments.tasks} tasks, m = {M}, {POINTS} samples and targets, {time.perf_counter() - start:.0f} s")
    if arguments.json:
        figures = {"tasks": arguments.tasks, "m": M, "points": POINTS, "validation": arguments.validate, "rows": rows}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
