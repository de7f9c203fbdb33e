"""The nodes of time: legs between a field's breakpoints, and how a number of steps is shared among them, or given
nodes laid out on them.

A field may jump at a breakpoint. Each leg therefore evaluates it on its own side only: the time of a stage
that falls on a breakpoint is moved to the neighbouring float inside the leg. Without that, a method that
looks at the end of its step sees the other side of the jump and loses its order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fluvial.solvers.saves import TOLERANCE

Grid = Sequence[float] | np.ndarray | Tensor
"""Nodes of time as a caller gives them."""

_END_TOLERANCE = 1e-6  # the ends of a grid in single precision are those of the interval


@dataclass(frozen=True)
class Leg:
    """A stretch of time without breakpoints inside.

    Args:
        start: Where it starts.
        stop: Where it ends, after or (backwards in time) before ``start``.
        low: Earliest time at which the field may be evaluated.
        high: Latest time at which the field may be evaluated.
    """

    start: float
    stop: float
    low: float
    high: float

    def clamp(self, t: float) -> float:
        """Nearest time to ``t`` at which the leg may evaluate the field."""
        return t if self.low <= t <= self.high else min(max(t, self.low), self.high)


class Step(NamedTuple):  # made by the hundred, which a frozen dataclass takes its time for
    """One step of a fixed-step method, from ``start`` to ``stop`` inside ``leg``."""

    start: float
    stop: float
    leg: Leg


def make_legs(t0: float, t1: float, breakpoints: Sequence[float], dtype: torch.dtype) -> list[Leg]:
    """Split the way from ``t0`` to ``t1`` at the breakpoints strictly inside (0, 1) and strictly on the way.

    Args:
        t0: Start time.
        t1: End time, different from ``t0``; before it when integrating backwards.
        breakpoints: Times at which the field jumps.
        dtype: Type of the times that the field will be given; its resolution decides the neighbouring float.

    Example:
        >>> [(leg.start, leg.stop) for leg in make_legs(1.0, 0.0, (0.2,), torch.float32)]
        [(1.0, 0.2), (0.2, 0.0)]
    """
    jumps = {float(b) for b in breakpoints if 0 < b < 1}
    low, high = min(t0, t1), max(t0, t1)
    nodes = [t0, *sorted((b for b in jumps if low < b < high), reverse=t1 < t0), t1]
    legs = []
    for start, stop in pairwise(nodes):
        first = _neighbour(start, stop, dtype) if start in jumps else start
        last = _neighbour(stop, start, dtype) if stop in jumps else stop
        legs.append(Leg(start, stop, min(first, last), max(first, last)))
    return legs


def make_steps(legs: Sequence[Leg], count: int) -> list[Step]:
    """Exactly ``count`` steps, of equal length within a leg and about equal across legs, at least one in each
    leg.

    Raises:
        ValueError: If there are fewer steps than legs.

    Example:
        >>> steps = make_steps(make_legs(0.0, 1.0, (0.25,), torch.float32), 4)
        >>> [step.stop for step in steps]
        [0.25, 0.5, 0.75, 1.0]
    """
    if count < len(legs):
        raise ValueError(
            f"steps must be at least {len(legs)}, one for each leg between the field's breakpoints "
            f"({', '.join(f'{leg.stop:g}' for leg in legs[:-1])}), got {count}"
        )
    steps = []
    for leg, share in zip(legs, share_steps([abs(leg.stop - leg.start) for leg in legs], count), strict=True):
        nodes = [leg.start + (leg.stop - leg.start) * (i / share) for i in range(share)] + [leg.stop]
        steps += [Step(start, stop, leg) for start, stop in pairwise(nodes)]
    return steps


def lay_steps(legs: Sequence[Leg], nodes: Sequence[float]) -> list[Step]:
    """One step between each two neighbouring nodes; a leg's end that is no node yet becomes one.

    Args:
        legs: The legs in order.
        nodes: Strictly monotone times from the first leg's start to the last leg's stop.

    Example:
        >>> steps = lay_steps(make_legs(0.0, 1.0, (0.25,), torch.float32), [0.0, 0.1, 0.5, 1.0])
        >>> [step.stop for step in steps]
        [0.1, 0.25, 0.5, 1.0]
    """
    steps = []
    for leg in legs:
        low, high = sorted((leg.start, leg.stop))
        inside = [t for t in nodes if low + TOLERANCE < t < high - TOLERANCE]
        steps += [Step(start, stop, leg) for start, stop in pairwise([leg.start, *inside, leg.stop])]
    return steps


def checked_grid(grid: Grid, t0: float, t1: float) -> list[float]:
    """The nodes as numbers, with ``t0`` and ``t1`` themselves at the ends.

    Raises:
        ValueError: If they are no strictly monotone sequence of times from ``t0`` to ``t1``.

    Example:
        >>> checked_grid(np.array([0.0, 0.5, 1.0]), 0.0, 1.0)
        [0.0, 0.5, 1.0]
        >>> checked_grid([0.0, 0.5, 0.5, 1.0], 0.0, 1.0)
        Traceback (most recent call last):
        ValueError: grid must be strictly monotone, got 0.5 after 0.5
    """
    nodes = _as_numbers(grid)
    for name, node, t in (("start at t0", nodes[0], t0), ("end at t1", nodes[-1], t1)):
        if not abs(node - t) <= _END_TOLERANCE:  # NaN is refused too
            raise ValueError(f"grid must {name} = {t:g}, got {node:g}")
    nodes[0], nodes[-1] = t0, t1
    sign = 1 if t1 > t0 else -1
    for left, right in pairwise(nodes):
        if not sign * (right - left) > TOLERANCE:
            raise ValueError(f"grid must be strictly monotone, got {right:g} after {left:g}")
    return nodes


def _as_numbers(grid: Grid) -> list[float]:
    try:
        times = torch.as_tensor(grid, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"grid must be a sequence of times, got {type(grid).__name__}") from None
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"grid must be a sequence of at least two times, got shape {tuple(times.shape)}")
    return [float(t) for t in times.tolist()]


def share_steps(lengths: Sequence[float], count: int) -> list[int]:
    """Numbers of steps that add up to ``count`` and make the longest step as short as it can be, at least one each.

    Example:
        >>> share_steps([1.0, 3.0], 4)
        [1, 3]
    """
    shares = [1] * len(lengths)
    for _ in range(count - len(lengths) if len(lengths) > 1 else 0):
        longest = max(range(len(lengths)), key=lambda i: lengths[i] / shares[i])
        shares[longest] += 1
    return shares if len(lengths) > 1 else [count]


def rounded(t: float, dtype: torch.dtype) -> float:
    """The time that a field of this type is given for ``t``."""
    return float(torch.tensor(t, dtype=dtype))


def _neighbour(t: float, toward: float, dtype: torch.dtype) -> float:
    far = torch.tensor(math.copysign(math.inf, toward - t), dtype=dtype)
    return float(torch.nextafter(torch.tensor(t, dtype=dtype), far))
