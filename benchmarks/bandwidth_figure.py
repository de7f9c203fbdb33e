"""The figure of docs/bandwidth.md: schedules as grids, effective sample sizes, and the nodes of four grids.

Run: python benchmarks/bandwidth_figure.py [--out docs/images/bandwidth.png]
"""

import argparse
from pathlib import Path
from typing import Any

import torch

import fluvial as fv
from fluvial.audits.drawing import draw_figure
from fluvial.support.design import (
    balanced_bandwidths,
    design_grid,
    effective_sizes,
    even_bandwidths,
    geometric_sizes,
)
from fluvial.support.tasks import family_by_name

PATH = fv.CondOT(0.01)


def bandwidths(grid: list[float]) -> list[float]:
    """Bandwidths of the nodes between the ends."""
    return PATH.bandwidth(torch.tensor(grid[1:-1], dtype=torch.float64)).tolist()


def fill(figure: Any) -> None:
    """Draws the three panels."""
    left, middle, right = figure.subplots(1, 3)
    t = torch.linspace(0, 1, 600, dtype=torch.float64)[1:-1]
    nodes = torch.arange(1, 10, dtype=torch.float64) / 10
    for number, (name, path) in enumerate(
        {"CondOT": PATH, "Cosine": fv.Cosine(), "Polynomial(2)": fv.Polynomial(2)}.items()
    ):
        left.semilogy(t, path.bandwidth(t), color=f"C{number}", label=name)
        left.plot(nodes, path.bandwidth(nodes), "o", ms=4, color=f"C{number}")
    left.set(xlabel="time t", ylabel="bandwidth h", title="A schedule is a grid of bandwidths", ylim=(8e-3, 60))
    for number, (name, dim) in enumerate((("gmm", 2), ("gmm", 16), ("moons", 2), ("shells", 8))):
        curve = effective_sizes(family_by_name(name, dim), seed=1, tasks=60)
        middle.loglog(curve.bandwidths, curve.sizes, color=f"C{number}", label=f"{name}, d = {dim}")
        h = bandwidths(design_grid(curve, geometric_sizes(50), 10))
        middle.plot(h, curve.size_at(h), "o", ms=4, color=f"C{number}")
    middle.set(xlabel="bandwidth h", ylabel="held-out effective sample size", xlim=(0.02, 60))
    middle.set_title("Grids of a geometric size")
    curve = effective_sizes(family_by_name("gmm", 8), seed=1, tasks=60)
    rows = {
        "uniform in t": bandwidths([k / 10 for k in range(11)]),
        "balanced, .85 s": balanced_bandwidths(0.85 * curve.scale, 10),
        "even in log h": even_bandwidths(curve.scale, 10),
        "geometric size": bandwidths(design_grid(curve, geometric_sizes(50), 10)),
    }
    for number, h in enumerate(rows.values()):
        right.semilogx(h, [-number] * len(h), "o", color=f"C{number}")
    right.axvline(curve.scale, color="C7", lw=1)
    right.text(1.08 * curve.scale, 0.4, "s")
    right.set_yticks([-number for number in range(len(rows))], list(rows))
    right.set(xlabel="bandwidth h", title="10 steps, mixtures, d = 8", ylim=(-3.6, 0.8))
    right.invert_xaxis()
    for axes in (left, middle):
        axes.legend(frameon=False)
        axes.grid(True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the figure of docs/bandwidth.md.")
    parser.add_argument("--out", type=Path, default=Path("bandwidth.png"), help="picture (default bandwidth.png)")
    arguments = parser.parse_args()
    arguments.out.write_bytes(draw_figure(fill, size=(13.0, 3.9)))


if __name__ == "__main__":
    main()
