"""The tasks that a diagnosis looks at: supports, held-out points of the same distributions, their truth if known."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.support.tasks.base import Family, Truth

FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Support sizes at which errors are measured, over the size that was asked for."""
HELD_OUT = 256
"""Held-out points of each task, where there are as many."""
LEAST_HELD_OUT = 8
"""With fewer, nothing can be tuned on one half of them and measured on the other."""


@dataclass(frozen=True)
class Draws:
    """``B`` tasks in float64.

    Args:
        support: Supports of the size that is diagnosed, shape ``(B, m, d)``.
        held_out: Points of the same distributions that are in no support, shape ``(B, n, d)``.
        pair: Two disjoint larger supports, shape ``(2, B, M, d)``; of real data, of other draws than ``support``, so
            that row ``b`` may be of another class than ``support[b]``.
        fresh: Points of the distributions of ``pair`` that are in neither of them, shape ``(B, n', d)``.
        sizes: Support sizes, increasing, at most ``M``.
        truth: The distributions, where they are known.
    """

    support: Float[Tensor, "B m d"]
    held_out: Float[Tensor, "B n d"]
    pair: Float[Tensor, "2 B M d"]
    fresh: Float[Tensor, "B k d"]
    sizes: tuple[int, ...]
    truth: Truth | None

    @property
    def m(self) -> int:
        return int(self.support.shape[1])

    @property
    def dim(self) -> int:
        return int(self.support.shape[2])

    @property
    def tasks(self) -> int:
        return int(self.support.shape[0])

    def everything(self) -> Float[Tensor, "B N d"]:
        """Support and held-out points of each task, for estimates of its covariance.

        ``pair`` and ``fresh`` are left out: of real data they are other draws, most of them from other classes.
        """
        return torch.cat([self.support, self.held_out], 1)

    def beside(self) -> Float[Tensor, "B N d"]:
        """Points of ``pair`` and ``fresh``, which are of the same distribution as each other."""
        return torch.cat([*self.pair, self.fresh], 1)


def draw_tasks(family: Family, m: int, tasks: int, members: int | None, generator: torch.Generator) -> Draws:
    """Draws the tasks.

    Args:
        family: Where they come from.
        m: Support size.
        tasks: How many tasks.
        members: Least number of members of a class of real data; None where points are unlimited.
        generator: Where the randomness comes from.
    """
    if members is None:
        sizes = _sizes(m, math.inf)
        found = family.batch(tasks, 2 * sizes[-1], HELD_OUT, generator)
        first, second = found.support.double().split(sizes[-1], 1)
        held_out = found.targets.double()
        return Draws(first[:, :m], held_out, torch.stack([first, second]), held_out, sizes, found.truth)
    found = family.batch(tasks, m, min(HELD_OUT, members - m), generator)
    kept = min(HELD_OUT, max(1, members // 4))
    sizes = _sizes(m, (members - kept) // 2)
    other = family.batch(tasks, 2 * sizes[-1], kept, generator)
    pair = torch.stack(other.support.double().split(sizes[-1], 1))
    return Draws(found.support.double(), found.targets.double(), pair, other.targets.double(), sizes, found.truth)


def _sizes(m: int, most: float) -> tuple[int, ...]:
    """Support sizes about ``m`` up to ``most``, the least 2; where that leaves one alone, its half as well."""
    found = sorted({max(2, round(factor * m)) for factor in FACTORS})
    kept = [size for size in found if size <= most] or [int(most)]
    if len(kept) == 1 and kept[0] > 1:
        kept.insert(0, max(1, kept[0] // 2))
    return tuple(kept)


def spread(points: Float[Tensor, "B N d"]) -> Float[Tensor, " B"]:
    """Trace of the covariance of each task."""
    return points.var(1, unbiased=True).sum(1)
