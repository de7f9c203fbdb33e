"""What is asked of a support, with what effort, and what comes back."""

import math
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import ClassVar

import torch
from torch import Tensor

from fluvial.smoothing.support import Support

DEFAULT_MEMORY = 256 * 2**20

_CACHE = 8 * 2**20
_NARROW = 128


class Way(IntEnum):
    """How a row's exponents were computed; each is exact up to a constant of the row, see ``logits``."""

    PRODUCT = 0
    PRODUCT_FLOAT64 = 1
    DISTANCE = 2
    CANDIDATES = 3


@dataclass(frozen=True)
class Effort:
    """How hard to try.

    Args:
        tol: Largest error of the field that screening may cause, in units of the noise (see ``screening``); 0 to
            leave out only what rounding hides.
        memory: Bytes that an evaluation may use beyond its inputs and outputs.

    Raises:
        ValueError: If ``tol`` is no finite number of at least 0, or ``memory`` no whole number.
    """

    tol: float = 0.0
    memory: int = DEFAULT_MEMORY

    def __post_init__(self) -> None:
        if not isinstance(self.tol, int | float) or not 0 <= self.tol < math.inf:
            raise ValueError(f"tol must be finite and not negative, got {self.tol!r}")
        if not isinstance(self.memory, int):
            raise ValueError(f"memory must be a whole number of bytes, got {self.memory!r}")


@dataclass(frozen=True)
class Query:
    """Where a support is smoothed.

    Args:
        x: Points, shape ``(B, d)``.
        alpha: Weight of the datum at each row's time, shape ``(B,)``, float64.
        sigma: Weight of the noise, shape ``(B,)``, float64, positive.
        labels: Class that a row is restricted to, -1 for none, shape ``(B,)``; or None.
        log_prior: Log-weights of the points for each row, shape ``(B, N)``; or None.
        given: ``x`` as it was given, where it has been turned into the support's values since.
        level: Largest of each row's ``log_prior``, which exponents are taken relative to, ``(B,)``; or None for 0.
    """

    x: Tensor
    alpha: Tensor
    sigma: Tensor
    labels: Tensor | None = None
    log_prior: Tensor | None = None
    given: Tensor | None = None
    level: Tensor | None = None

    def rows(self, index: Tensor | slice) -> "Query":
        """The query at some of its rows."""
        labels = None if self.labels is None else self.labels[index]
        log_prior = None if self.log_prior is None else self.log_prior[index]
        given = None if self.given is None else self.given[index]
        level = None if self.level is None else self.level[index]
        return Query(self.x[index], self.alpha[index], self.sigma[index], labels, log_prior, given, level)

    def detached(self) -> "Query":
        """The query without its derivatives."""
        return replace(self, x=self.x.detach(), alpha=self.alpha.detach(), sigma=self.sigma.detach())

    def in_values(self, support: Support) -> "Query":
        """The query in the units and about the shift of the support's values."""
        level = None if self.log_prior is None else self.log_prior.amax(1).double()
        if support.shift is None:
            return replace(self, level=level)
        moved = replace(self, given=self.x, sigma=self.sigma / support.unit, level=level)
        if not support.pixels:
            return replace(moved, x=moved.precise(support).to(self.x.dtype))
        half = (support.origin * self.alpha)[:, None].to(self.x.dtype)
        return replace(moved, x=torch.div(self.x, support.unit).sub_(half))

    def precise(self, support: Support, index: Tensor | slice = slice(None)) -> Tensor:
        """Some rows of ``x`` in the support's values, in float64."""
        if self.given is None:
            return self.x[index].double()
        x = self.given[index].double() / support.unit
        return x if support.shift is None else x - self.alpha[index, None] * support.shift

    @property
    def gain(self) -> Tensor:
        """Factor of inner products in the exponents, ``alpha / sigma^2``, float64."""
        return self.alpha / self.sigma.square()


@dataclass(frozen=True)
class Moments:
    """Sums of a softmax over the support at each of ``B`` rows, in the units of its values; all but offset and the
    indices are float64.

    Args:
        top_index: Point with the largest weight, ``(B,)``.
        offset: Weighted mean less the top point, ``(B, d)``.
        normaliser: Sum of weights relative to the top one, ``(B,)``, at least 1.
        top_exponent: Exponent of the top point, up to the constant of its way, ``(B,)``.
        way: How the exponents were computed, ``(B,)``.
        squares: Sum of squared relative weights, ``(B,)``.
        surprise: Sum of relative weight times exponent less the top exponent, ``(B,)``, not positive.
        log_kernel: Log of the prior-weighted sum of Gaussian kernels (without their constant), ``(B,)``.
        runner_up: Exponent of the second point less the top's, or a bound on it from above, ``(B,)``, not positive.
        power: Weighted mean of the squared norms of the values, ``(B,)``; NaN where nobody asked for it.
        slack: Bound on the error of every exponent, ``(B,)``.
        omitted: Bound on the weight of what was left out, relative to the top one, ``(B,)``.
    """

    top_index: Tensor
    offset: Tensor
    normaliser: Tensor
    top_exponent: Tensor
    way: Tensor
    squares: Tensor
    surprise: Tensor
    log_kernel: Tensor
    runner_up: Tensor
    power: Tensor
    slack: Tensor
    omitted: Tensor

    OFFSET: ClassVar[int] = 1

    def parts(self) -> tuple[Tensor, ...]:
        """The fields in order."""
        return tuple(getattr(self, part.name) for part in fields(self))

    def room(self, rows: int) -> "Moments":
        """Moments of that many rows, yet to be filled."""
        return Moments(*(part.new_empty((rows, *part.shape[1:])) for part in self.parts()))

    def rows(self, index: Tensor) -> "Moments":
        """The moments of some of the rows."""
        return Moments(*(part[index] for part in self.parts()))


def error_bound(support: Support, found: Moments) -> Tensor:
    r"""Bound on the distance of each row's mean from the true one, in the support's values, float64 ``(B,)``.

    Exponents that are off by at most :math:`\delta` change weights by factors between :math:`e^{-2\delta}` and
    :math:`e^{2\delta}`, so the mean moves by at most :math:`(e^{2\delta} - 1) \sum_i w_i \|s_i - m\|`. That sum is at
    most the reach, and at most twice the mean distance from the top point. Where the runner-up is :math:`g` behind, all
    others together weigh at most :math:`N e^{2\delta - g}`, whatever was computed. What was left out moves the mean by
    its weight times the diameter. To this comes the rounding of the sums and of the result.
    """
    roundoff = 0.5 * torch.finfo(found.offset.dtype).eps
    rest = 1 - 1 / found.normaliser + roundoff
    by_ratio = torch.expm1(torch.clamp(2 * found.slack, max=50.0)) * support.reach * torch.clamp(4 * rest, max=1.0)
    others = torch.exp(torch.clamp(math.log(len(support)) + found.runner_up + 2 * found.slack, max=0.0))
    moved = torch.fmin(by_ratio, 2 * support.reach * (rest + others))
    left_out = 2 * support.reach * found.omitted / found.normaliser
    rounding = roundoff * (2 * (len(support) + 8) * rest * support.radius + 4 * support.extent)
    bound: Tensor = torch.clamp(moved + left_out, max=2 * support.reach) + rounding
    return bound


def nothing(query: Query) -> Moments:
    """Moments of no row."""
    none = torch.empty(0, dtype=torch.float64, device=query.x.device)
    index = none.long()
    return Moments(index, query.x[:0], none, none, index, none, none, none, none, none, none, none)


def stacked(pieces: list[Moments]) -> Moments:
    """Moments of groups of rows, one group after the other."""
    if len(pieces) == 1:
        return pieces[0]
    return Moments(*(torch.cat(column) for column in zip(*(piece.parts() for piece in pieces), strict=True)))


def rows_in_cache(support: Support, itemsize: int) -> int:
    """How many rows of exponents stay in the cache; without limit where products cost more than passes over them."""
    return max(16, _CACHE // (itemsize * len(support))) if support.dim <= _NARROW else 2**62


def row_blocks(rows: int, bytes_per_row: int, memory: int) -> list[slice]:
    """Slices of rows of which each needs at most ``memory`` bytes, at least one row each."""
    step = max(1, memory // max(1, bytes_per_row))
    count = max(1, math.ceil(rows / step))
    step = math.ceil(rows / count) if rows else 1
    return [slice(low, min(low + step, rows)) for low in range(0, max(rows, 1), step)]
