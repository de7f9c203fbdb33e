"""Whole trajectories: ``fv.solve`` on the exact field, which may integrate in a structured way, and on the field alone.

The generic solver sees the same field stripped of its capabilities, or the two dense products of the peers. What a
walk prepares, such as a Gram matrix, is inside of its time; making the field is not. End states are compared row by
row.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import fluvial as fv
from exact_field.peers import two_products
from exact_field.reference import relative_error
from exact_field.shapes import SHAPES, Shape, as_floats, make_support, smaller
from exact_field.timing import alternating

STEPS = 100
NOISE_SEED = 2
WIDE, LARGE = SHAPES[4], SHAPES[3]
CASES = (WIDE, Shape("N < d", 1000, 3072, 64, pixels=True), replace(LARGE, batch=64))
QUICK_STEPS = 20


class Dense:
    """Two dense products as a field."""

    singular_at_end = True

    def __init__(self, support: Tensor) -> None:
        self.path = fv.CondOT()
        self._velocity = two_products(as_floats(support))

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self._velocity(x, float(t[0]))


class Plain:
    """A field with nothing but a velocity, and what a solver needs to end where sigma = 0."""

    singular_at_end = True

    def __init__(self, field: fv.ExactField) -> None:
        self.path = field.path
        self._field = field

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self._field(x, t, cond)


@dataclass(frozen=True)
class Walk:
    """What a trajectory cost both ways.

    Args:
        shape: The support and the number of rows.
        steps: Euler steps.
        seconds: Median time by way: ``"structured"``, ``"generic"``, ``"two products"``.
        difference: Largest relative difference of the end states between both ways.
        double: The same in float64; None where it was not asked.
        rounding: Largest relative difference between the generic solver in float32 and in float64; None likewise.
    """

    shape: Shape
    steps: int
    seconds: dict[str, float]
    difference: float
    double: float | None = None
    rounding: float | None = None

    @property
    def speedup(self) -> dict[str, float]:
        """How many times as long the other ways take."""
        own = self.seconds["structured"]
        return {way: value / own for way, value in self.seconds.items() if way != "structured"}


def measure(shape: Shape, steps: int, rounds: int, device: str) -> Walk:
    """Time both ways in alternating rounds; float64 too where the support is small."""
    support = make_support(shape).to(device)
    x0 = torch.randn(shape.batch, shape.dim, generator=torch.Generator().manual_seed(NOISE_SEED)).to(device)
    field, dense = fv.ExactField(support), Dense(support)
    calls = {
        "structured": lambda: solve(field, x0, steps),
        "generic": lambda: solve(Plain(field), x0, steps),
        "two products": lambda: solve(dense, x0, steps),
    }
    for way in (field, Plain(field), dense):
        solve(way, x0, 3)  # warm-up
    seconds = alternating(calls, rounds, device)
    structured, generic = calls["structured"](), calls["generic"]()
    walk = Walk(shape, steps, seconds, relative_error(structured, generic))
    if support.numel() > 2**24:
        return walk
    support, x0 = as_floats(support, torch.float64), x0.double()
    field = fv.ExactField(support)
    exact = [solve(way, x0, steps) for way in (field, Plain(field))]
    return replace(walk, double=relative_error(*exact), rounding=relative_error(generic, exact[1]))


def cases(quick: bool) -> tuple[tuple[Shape, ...], int]:
    """The trajectories to time and their number of steps."""
    return (tuple(smaller(shape) for shape in CASES), QUICK_STEPS) if quick else (CASES, STEPS)


def solve(field: fv.ExactField | Plain | Dense, x0: Tensor, steps: int) -> Tensor:
    """End states of Euler's method."""
    return fv.solve(field, x0, steps=steps, method="euler").x
