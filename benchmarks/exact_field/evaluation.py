"""One evaluation of the exact field: time and error of every method, at every time of a shape."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

import fluvial as fv
from exact_field.peers import DENSE, PEERS, Velocity
from exact_field.reference import reference_velocity, relative_error, rows_to_check
from exact_field.shapes import TIMES, Shape, as_floats, make_support, on_path
from exact_field.timing import alternating, seconds

FIELD = "ExactField"
SCREENED = "ExactField, tol=1e-6"
TOLERANCE = 1e-4
"""The field's own tolerance in float32, relative to the velocity's norm: a peer counts where it is as good."""
SLOWEST = 10.0
LARGEST = 8 * 2**30


@dataclass
class Evaluations:
    """What a shape cost.

    Args:
        shape: The shape.
        milliseconds: Median time of each method at each time of ``TIMES``.
        errors: Largest relative error of each method at each time.
        notes: Why a method was left out.
    """

    shape: Shape
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def best_peer(self, k: int) -> tuple[str, float] | None:
        """Fastest peer that meets the tolerance at time number ``k``, and its milliseconds."""
        times = {name: self.milliseconds[name][k] for name in self.milliseconds if name in PEERS}
        counting = [(value, name) for name, value in times.items() if self.errors[name][k] <= TOLERANCE]
        return (min(counting)[1], min(counting)[0]) if counting else None

    def ratios(self, name: str) -> list[float | None]:
        """Time of a method over that of the best peer, at each time; None where no peer counts."""
        best = [self.best_peer(k) for k in range(len(TIMES))]
        return [None if b is None else ms / b[1] for ms, b in zip(self.milliseconds[name], best, strict=True)]

    def speedups(self, name: str) -> list[float]:
        """Time of the two products over that of a method, at each time."""
        dense = self.milliseconds["two products"]
        return [theirs / ours for theirs, ours in zip(dense, self.milliseconds[name], strict=True)]


def measure(shape: Shape, rounds: int, device: str) -> Evaluations:
    """Time all methods in alternating rounds at every time, and hold each against the float64 reference."""
    found = Evaluations(shape)
    support = make_support(shape).to(device)
    methods = _methods(support, shape, found.notes, device)
    checked = rows_to_check(shape.points, shape.dim, shape.batch)
    for name in methods:
        found.milliseconds[name], found.errors[name] = [], []
    for t in (float(torch.tensor(t)) for t in TIMES):  # the float32 numbers, so that all methods take the same
        x = on_path(support.cpu(), shape.batch, t).to(device)
        expected = reference_velocity(support, x[:checked], t)
        for name, velocity in methods.items():  # the warm-up too
            found.errors[name].append(relative_error(velocity(x, t)[:checked], expected))
        calls = {name: _call(velocity, x, t) for name, velocity in methods.items()}
        for name, value in alternating(calls, rounds, device).items():
            found.milliseconds[name].append(1e3 * value)
    return found


def exact_field(support: Tensor, tol: float = 0.0) -> Velocity:
    """The library's field, as the peers are called."""
    evaluate = fv.ExactField(support, tol=tol) if tol else fv.ExactField(support)
    return lambda x, t: evaluate(x, x.new_tensor(t))


def _methods(support: Tensor, shape: Shape, notes: dict[str, str], device: str) -> dict[str, Velocity]:
    """What can run at this shape, ready to be called; the others leave a note."""
    floats = as_floats(support)
    makers: dict[str, Callable[[], Velocity]] = {
        FIELD: lambda: exact_field(support),
        SCREENED: lambda: exact_field(support, 1e-6),
    }
    if shape.pixels:
        makers |= {f"{FIELD}, float32": lambda: exact_field(floats)}
        makers |= {f"{SCREENED}, float32": lambda: exact_field(floats, 1e-6)}
    for name, peer in PEERS.items():
        makers[name] = lambda peer=peer: peer(floats)
    x = on_path(support.cpu(), shape.batch, 0.3).to(device)
    ready = {}
    for name, make in makers.items():
        try:
            ready[name] = _tried(name, make, x, shape, device)
        except (RuntimeError, ValueError, TypeError, ImportError) as error:
            notes[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
    return ready


def _tried(name: str, make: Callable[[], Velocity], x: Tensor, shape: Shape, device: str) -> Velocity:
    """A method after its first calls, which compile what is compiled on demand.

    Raises:
        RuntimeError: If it is a peer that takes too long or too much memory.
    """
    needed = 2 * 4 * shape.batch * shape.points if name in DENSE else 0
    if needed > LARGEST:
        raise RuntimeError(f"needs {needed / 2**30:.1f} GB, over {LARGEST >> 30}")
    velocity = make()
    velocity(x[:1], 0.3)
    if name in PEERS and (taken := seconds(_call(velocity, x, 0.3), device)) > SLOWEST:
        raise RuntimeError(f"takes {taken:.0f} s a call, over {SLOWEST:.0f}")
    return velocity


def _call(velocity: Velocity, x: Tensor, t: float) -> Callable[[], Tensor]:
    return lambda: velocity(x, t)
