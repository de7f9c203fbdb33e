"""New points from a handful of examples: what the exact field of a support makes of it, and what a trained net does.

A net learns over random Gaussian mixtures, rings, moons and spirals in the plane. Given 50 examples of a distribution
that it has never seen, it makes 500 new points. The exact field of the examples makes copies of them. The picture has
a row for each family: the support, the exact field's points, the net's, and fresh points of the truth.

Run: python examples/few_shot.py [--steps 3000] [--run runs/plane] [--out few-shot.png]
With 150 updates, the default, it takes half a minute and the net is no more than a start; 3,000 take seven minutes.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fluvial as fv
from fluvial.audits.drawing import draw_figure
from fluvial.metrics import batched_median_distance, batched_mmd2
from fluvial.randomness import generator
from fluvial.support import KernelAttention, MetaTrainer, SupportConfig, load_support_run
from fluvial.support.tasks import family_by_name

FAMILIES = ("gmm", "rings", "moons", "spirals")
M, N = 50, 500
COLUMNS = (f"{M} examples", "exact field", "net", "truth")


def trained(run: Path, steps: int) -> fv.nn.SupportNet:
    """The net of a run folder, trained first if there is none."""
    if not run.exists():
        config = SupportConfig(tasks="+".join(FAMILIES), dim=2, m=M, steps=steps)
        MetaTrainer(config, run).fit()
    return load_support_run(run).net


def draw(rows: list[list[Tensor]], figure: Any) -> None:
    """A row for each family, a column for each set of points."""
    axes = figure.subplots(len(rows), len(COLUMNS), squeeze=False)
    for number, sets in enumerate(rows):
        reach = 1.15 * float(sets[-1].abs().max())
        for column, points in enumerate(sets):
            panel = axes[number][column]
            panel.scatter(*points.T, s=3 if column else 9, alpha=0.7, linewidths=0, color=f"C{column}")
            panel.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
            if number == 0:
                panel.set_title(COLUMNS[column])
        axes[number][0].set_ylabel(FAMILIES[number])


def main() -> None:
    """Train or read the net, make points of fresh tasks, print the distances to the truth and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="updates (default 150)")
    parser.add_argument("--run", type=Path, help="run folder to train in or to read (default: a temporary one)")
    parser.add_argument("--tasks", type=int, default=5, help="tasks of each family that are scored (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the tasks (default 0)")
    parser.add_argument("--out", type=Path, default=Path("few-shot.png"), help="picture (default few-shot.png)")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        net = trained(options.run or Path(folder) / "run", options.steps)
    rows = []
    print("|family|MMD^2 exact field|MMD^2 net|nearest example: exact field|net|fresh points|")
    print("|---|---:|---:|---:|---:|---:|")
    for number, name in enumerate(FAMILIES):
        draws = generator(options.seed, number)
        tasks = family_by_name(name, 2).batch(options.tasks, M, 2 * N, draws)
        targets, others = tasks.targets.split(N, 1)
        x0 = torch.randn(targets.shape, generator=draws)
        with torch.no_grad():
            made = [
                fv.solve(field, x0, steps=50, method="heun", cond=tasks.support).x for field in (KernelAttention(), net)
            ]
        width = batched_median_distance(others)
        scores = [float(batched_mmd2(x, targets, width).mean()) for x in made]
        near = [float(torch.cdist(x, tasks.support).amin(2).mean()) for x in (*made, targets)]
        print(f"|{name}|{scores[0]:.4f}|{scores[1]:.4f}|{near[0]:.3f}|{near[1]:.3f}|{near[2]:.3f}|")
        rows.append([tasks.support[0], made[0][0], made[1][0], targets[0]])
    options.out.write_bytes(draw_figure(partial(draw, rows), size=(8.0, 8.2)))
    print(f"\n{options.out}: a task of each family")


if __name__ == "__main__":
    main()
