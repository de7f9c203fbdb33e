"""What Empirical Flow Matching and Mean Flows cost beside Conditional Flow Matching: a training step on digits.

Run: python benchmarks/objectives.py [--nets mlp,unet,dit] [--rounds 15] [--json out.json]

For each net, steps alternate between the objectives in one process; figures are medians over the rounds, and medians
of the ratios to ``cfm`` in the same round. With ``--cpu`` time is that of the process on all its processors, which a
busy machine disturbs less; use one thread with it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import fluvial as fv
from fluvial.data import Dataset
from fluvial.training.timing import seconds_in_turns

SHAPE, ROWS = (1, 8, 8), 256
NETS: dict[str, Callable[[bool], torch.nn.Module]] = {
    "mlp": lambda gap: fv.nn.MLP(SHAPE, gap=gap),  # the demo's
    "unet": lambda gap: fv.nn.UNet(SHAPE, width=16, multipliers=(1, 2), attention=(4,), gap=gap),
    "dit": lambda gap: fv.nn.DiT(SHAPE, width=64, depth=4, heads=2, gap=gap),
}
Objectives = dict[str, fv.CFM | fv.EFM | fv.MeanFlow]


def training_step(net: torch.nn.Module, objective: fv.CFM | fv.EFM | fv.MeanFlow, data: Dataset) -> Callable[[], None]:
    """A function that takes one training step."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def step() -> None:
        g = torch.Generator().manual_seed(0)
        index = torch.randint(len(data), (ROWS,), generator=g)
        loss = objective(net, fv.Batch(data.take(index)[0], index=index), generator=g).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(steps: dict[str, Callable[[], None]], rounds: int, count: int, clock: Callable[[], float]) -> dict:
    """Median seconds of a step, and median ratio to the first, over rounds of ``count`` steps of each."""
    times = seconds_in_turns(steps, clock, rounds=rounds, updates=count)
    first = next(iter(times.values()))
    return {
        name: {
            "seconds": statistics.median(values),
            "ratio": statistics.median(value / base for value, base in zip(values, first, strict=True)),
        }
        for name, values in times.items()
    }


def main() -> None:
    """Time the steps and print a table for each net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS), help="which nets, of mlp, unet, dit (default all)")
    parser.add_argument("--rounds", type=int, default=15, help="alternating rounds (default 15)")
    parser.add_argument("--steps", type=int, default=5, help="training steps in a round (default 5)")
    parser.add_argument("--cpu", action="store_true", help="measure processor time instead of time on the wall")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    names = options.nets.split(",")
    if unknown := set(names) - set(NETS):
        parser.error(f"--nets must name some of {', '.join(NETS)}, got {', '.join(sorted(unknown))}")

    data = fv.load_dataset("digits").train
    clock = time.process_time if options.cpu else time.perf_counter
    print(f"{torch.get_num_threads()} threads, batch {ROWS}, digits, {'processor' if options.cpu else 'wall'} time")
    found = {}
    for name in names:
        objectives: Objectives = {"cfm": fv.CFM()}
        if name == "mlp":
            objectives |= {f"efm-{size}": fv.EFM(fv.CondOT(), data.x, size) for size in (128, 256, 1000)}
        objectives |= {f"meanflow-{share}": fv.MeanFlow(share=share) for share in (0.25, 0.5, 0.75)}
        steps = {}
        for key, objective in objectives.items():
            torch.manual_seed(0)
            steps[key] = training_step(NETS[name](key.startswith("meanflow")), objective, data)
        found[name] = measure(steps, options.rounds, options.steps, clock)
        print(f"\n{name:14s} {'ms a step':>10s} {'x cfm':>7s}")
        for key, row in found[name].items():
            print(f"{key:14s} {1e3 * row['seconds']:10.2f} {row['ratio']:7.3f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"threads": torch.get_num_threads(), "cpu": options.cpu, "nets": found}))


if __name__ == "__main__":
    main()
