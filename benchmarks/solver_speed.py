"""Sampling by fv.solve beside torchdiffeq's fixed grids and a plain loop, at equal evaluations of the same net.

Run: python benchmarks/solver_speed.py [--rounds 21] [--json out.json]

The candidates take turns in one process; figures are medians over the rounds, and of the ratios in one round. The
tiny net, whose evaluation costs little more than the calls into torch, shows the overhead; the net of digits is what is
sampled in practice. Time is that of the process, which other processes disturb less than that of the wall.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchdiffeq
from torch import Tensor, nn

import fluvial as fv
from fluvial.randomness import noise
from fluvial.training.timing import seconds_in_turns

STEPS = {"euler": 50, "midpoint": 25, "rk4": 13}
STAGES = {"euler": 1, "midpoint": 2, "rk4": 4}


class Tiny(nn.Module):
    """Three layers of 32 features for points in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        out: Tensor = self.layers(torch.cat([x, t[:, None]], 1))
        return out


def loop(net: nn.Module, x: Tensor, method: str, steps: int) -> Tensor:
    """What one would write by hand."""
    h, rows = 1 / steps, len(x)
    for k in range(steps):
        t = k * h
        first = net(x, x.new_full((rows,), t))
        if method == "euler":
            x = x + h * first
            continue
        middle = x.new_full((rows,), t + h / 2)
        second = net(x + h / 2 * first, middle)
        if method == "midpoint":
            x = x + h * second
            continue
        third = net(x + h / 2 * second, middle)
        fourth = net(x + h * third, x.new_full((rows,), t + h))
        x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
    return x


def by_torchdiffeq(net: nn.Module, x: Tensor, method: str, steps: int) -> Tensor:
    """torchdiffeq on the same nodes."""
    nodes = torch.tensor([0.0, 1.0])
    states = torchdiffeq.odeint(
        lambda t, z: net(z, t.expand(len(z))), x, nodes, method=method, options={"step_size": 1 / steps}
    )
    return states[-1]


def candidates(net: nn.Module, x: Tensor, method: str) -> dict[str, Callable[[], Tensor]]:
    """The three ways, which give the same samples (RK4 of torchdiffeq is another one, of the same cost)."""
    steps = STEPS[method]
    return {
        "fluvial": lambda: fv.solve(net, x, method=method, steps=steps).x,
        "torchdiffeq": lambda: by_torchdiffeq(net, x, method, steps),
        "loop": lambda: loop(net, x, method, steps),
    }


def measure(net: nn.Module, x: Tensor, method: str, rounds: int, calls: int) -> dict[str, float]:
    """Median milliseconds of each and median ratios of fluvial to the others."""
    ways = candidates(net, x, method)
    ends = [way() for way in ways.values()]
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-3, atol=1e-3)
    times = seconds_in_turns(ways, time.process_time, rounds=rounds, updates=calls)
    found = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    for peer in ("torchdiffeq", "loop"):
        ratios = [own / other for own, other in zip(times["fluvial"], times[peer], strict=True)]
        found[f"ratio to {peer}"] = statistics.median(ratios)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="alternating rounds, at least 7 (default 21)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    if arguments.rounds < 7:
        parser.error(f"--rounds must be at least 7, got {arguments.rounds}")
    torch.manual_seed(0)
    nets = {"tiny": (Tiny(), (2,)), "digits": (fv.nn.MLP((1, 8, 8)), (1, 8, 8))}
    print("| net | rows | method, steps | fluvial, ms | torchdiffeq, ms | loop, ms | ratio to torchdiffeq | to loop |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    rows = []
    with torch.no_grad():
        for name, (net, shape) in nets.items():
            for batch in (64, 1024):
                for method, steps in STEPS.items():
                    x, calls = noise(0, 0, batch, shape), 20 if name == "tiny" else 1
                    found = measure(net.eval(), x, method, arguments.rounds, calls)
                    rows.append({"net": name, "rows": batch, "method": method, "steps": steps, **found})
                    cells = " | ".join(f"{found[key]:.2f}" for key in ("fluvial", "torchdiffeq", "loop"))
                    ratios = f"{found['ratio to torchdiffeq']:.3f} | {found['ratio to loop']:.3f}"
                    print(f"| {name} | {batch} | {method} {steps} | {cells} | {ratios} |", flush=True)
    print(f"\n{torch.get_num_threads()} threads, {arguments.rounds} rounds, processor time")
    if arguments.json:
        arguments.json.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
