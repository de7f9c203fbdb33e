"""What ``fv.support.KernelAttention`` costs beside expanding all differences and beside a loop of exact fields.

Run: PYTHONPATH=benchmarks python -m kernel_attention [--rounds 9] [--cpu] [--json out.json]

256 tasks of 256 points, 50 examples each, 16 dimensions, float32, CondOT(sigma_min=0.01):

* ``head``: the kernel attention head.
* ``expanded``: differences ``(B, n, m, d)``, squared and summed, as the paper's code does; float32.
* ``loop``: an ``fv.ExactField`` for each task, made anew, since each batch of tasks brings supports of its own. It is
  not differentiable in the support, so that it has no row with gradients.

Candidates alternate in one process; figures are medians over the rounds, and medians of the ratios to the head in the
same round. Errors are those of the worst task, relative to its velocities' norm, against float64. Extra memory is the
peak of a fresh process beyond inputs and results (forward: the velocities; gradients: velocities and gradients of
points and support). With ``--cpu`` time is that of the process on all its processors, which a busy machine disturbs
less.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import fluvial as fv
from exact_field.resident import forget_peak, in_child, peak
from fluvial.support.kernel.attention import KernelAttention
from fluvial.training.timing import seconds_in_turns

TASKS, ROWS, POINTS, DIM = 256, 256, 50, 16
PATH = fv.CondOT(sigma_min=0.01)
SCALE = 5.0
TIMES = {"t uniform": None, "t = 0.1": 0.1, "t = 0.5": 0.5, "t = 0.95": 0.95}
Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]


def make_inputs(t: float | None, tasks: int = TASKS) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the path, their times and supports; times are uniform on (0, 1) if ``t`` is None."""
    g = torch.Generator().manual_seed(0)
    support = SCALE * torch.randn(tasks, POINTS, DIM, generator=g)
    times = torch.rand(tasks, ROWS, generator=g) if t is None else torch.full((tasks, ROWS), t)
    x1 = support[:, torch.randint(POINTS, (ROWS,), generator=g)]
    x0 = torch.randn(tasks, ROWS, DIM, generator=g)
    return PATH.alpha(times)[..., None] * x1 + PATH.sigma(times)[..., None] * x0, times, support


def expanded(x: Tensor, t: Tensor, support: Tensor) -> Tensor:
    """The velocity from all differences, as the reference computes it; ``t`` must be above 0."""
    sigma, scaled = PATH.sigma(t)[..., None], x / t[..., None]
    squares = (scaled[:, :, None] - support[:, None]).square().sum(-1)
    weights = torch.softmax(-squares / (2 * (sigma / t[..., None]).square()), -1)
    return scaled + (weights @ support - scaled) / sigma


def loop(x: Tensor, t: Tensor, support: Tensor) -> Tensor:
    """An exact field for each task."""
    return torch.stack([fv.ExactField(s, PATH)(x[k], t[k]) for k, s in enumerate(support)])


CANDIDATES: dict[str, Velocity] = {"head": KernelAttention(PATH), "expanded": expanded, "loop": loop}


def with_gradients(velocity: Velocity) -> Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]]:
    """Velocities, and the gradients of a scalar of them with respect to points and support."""

    def call(x: Tensor, t: Tensor, support: Tensor) -> Sequence[Tensor]:
        x, support = x.clone().requires_grad_(), support.clone().requires_grad_()
        v = velocity(x, t, support)
        return v.detach(), *torch.autograd.grad(v.square().sum(), (x, support))

    return call


def prepared(name: str, gradients: bool) -> Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]]:
    """One call of a candidate, as a function of its inputs."""
    velocity = CANDIDATES[name]
    if gradients:
        return with_gradients(velocity)

    def call(x: Tensor, t: Tensor, support: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            return (velocity(x, t, support),)

    return call


def error(velocity: Velocity, inputs: tuple[Tensor, Tensor, Tensor]) -> float:
    """Error against float64 of the worst of 16 tasks, relative to its velocities' norm."""
    with torch.no_grad():
        x, t, support = (part[:16] for part in inputs)
        exact = expanded(x.double(), t.double(), support.double())
        apart = (velocity(x, t, support).double() - exact).flatten(1).norm(dim=1)
        return float((apart / exact.flatten(1).norm(dim=1)).max())


def extra_memory(name: str, t: float | None, gradients: bool) -> float:
    """Peak extra memory in MB (2**20 bytes), measured in a process of its own."""
    return float(in_child("kernel_attention", {"name": name, "t": t, "gradients": gradients})["megabytes"])


def measured_memory(name: str, t: float | None, gradients: bool) -> float:
    """The same in this process, after a smaller call: the first one to be cut into tiles loads parts of torch."""
    call = prepared(name, gradients)
    call(*make_inputs(t, tasks=32))
    inputs = make_inputs(t)
    before = forget_peak()
    results = call(*inputs)
    return (peak() - before - sum(part.nbytes for part in results)) / 2**20


def measure(kind: str, t: float | None, gradients: bool, rounds: int, clock: Callable[[], float]) -> list[dict]:
    """Time, error and memory of the candidates at one kind of times."""
    inputs = make_inputs(t)
    names = [name for name in CANDIDATES if not (gradients and name == "loop")]
    calls = {name: prepared(name, gradients) for name in names}
    times = seconds_in_turns(
        {name: lambda f=f: f(*inputs) for name, f in calls.items()}, clock, rounds=rounds, updates=1
    )
    rows = [
        {
            "times": kind,
            "gradients": gradients,
            "name": name,
            "seconds": statistics.median(times[name]),
            "time_ratio": statistics.median(a / b for a, b in zip(times[name], times["head"], strict=True)),
            "error": error(CANDIDATES[name], inputs),
            "megabytes": extra_memory(name, t, gradients),
        }
        for name in names
    ]
    for row in rows:
        row["memory_ratio"] = row["megabytes"] / rows[0]["megabytes"]
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="alternating rounds (default 9)")
    parser.add_argument("--cpu", action="store_true", help="measure processor time instead of time on the wall")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    shape = f"B = {TASKS}, n = {ROWS}, m = {POINTS}, d = {DIM}, float32"
    print(f"{torch.get_num_threads()} threads, {shape}, {'processor' if options.cpu else 'wall'} time")
    print(f"{'':20s} {'':10s} {'ms':>8s} {'x head':>7s} {'error':>8s} {'MB':>8s} {'x head':>7s}")
    found = []
    for gradients in (False, True):
        for kind, t in TIMES.items():
            rows = measure(kind, t, gradients, options.rounds, clock)
            found += rows
            label = f"{kind}{', gradients' if gradients else ''}"
            for row in rows:
                print(
                    f"{label:20s} {row['name']:10s} {1e3 * row['seconds']:8.1f} {row['time_ratio']:7.2f} "
                    f"{row['error']:8.1e} {row['megabytes']:8.1f} {row['memory_ratio']:7.1f}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps({"threads": torch.get_num_threads(), "cpu": options.cpu, "rows": found}))


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps({"megabytes": measured_memory(**json.loads(sys.argv[1]))}))
    else:
        main()
