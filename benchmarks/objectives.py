"""What Empirical Flow Matching and Mean Flows cost beside Conditional Flow Matching: a training step, the demo's net.

Run: python benchmarks/objectives.py [--runs 15] [--json out.json]

Steps alternate between the objectives in one process; figures are medians and ratios of medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import fluvial as fv


def seconds(step: Callable[[], None], runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        step()
    return (time.perf_counter() - start) / runs


def main() -> None:
    """Time the steps and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="alternating rounds (default 15)")
    parser.add_argument("--steps", type=int, default=5, help="training steps in a round (default 5)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()

    data = fv.load_dataset("digits").train
    objectives: dict[str, fv.CFM | fv.EFM | fv.MeanFlow] = {"cfm": fv.CFM()}
    objectives |= {f"efm-{size}": fv.EFM(fv.CondOT(), data.x, size) for size in (128, 256, 1000)}
    objectives |= {f"meanflow-{share}": fv.MeanFlow(share=share) for share in (0.25, 0.5, 0.75)}
    steps = {}
    for name, objective in objectives.items():
        torch.manual_seed(0)
        net = fv.nn.MLP(data.shape, gap=name.startswith("meanflow"))
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

        def step(
            net: fv.nn.MLP = net,
            objective: fv.CFM | fv.EFM | fv.MeanFlow = objective,
            optimizer: torch.optim.AdamW = optimizer,
        ) -> None:
            g = torch.Generator().manual_seed(0)
            index = torch.randint(len(data), (256,), generator=g)
            loss = objective(net, fv.Batch(data.take(index)[0], index=index), generator=g).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        step()
        steps[name] = step
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.runs):
        for name, step in steps.items():
            times[name].append(seconds(step, options.steps))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{'objective':14s} {'ms a step':>10s} {'x cfm':>7s}    ({torch.get_num_threads()} threads, batch 256, digits)"
    )
    for name, value in medians.items():
        print(f"{name:14s} {1e3 * value:10.2f} {value / medians['cfm']:7.3f}")
    if options.json:
        options.json.write_text(
            json.dumps({"seconds": medians, "ratio": {n: v / medians["cfm"] for n, v in medians.items()}})
        )


if __name__ == "__main__":
    main()
