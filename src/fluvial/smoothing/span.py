r"""A trajectory in the span of its start and the support.

The velocity is a linear combination of ``x`` and of data, so a walk from ``x0`` never leaves their span. With
:math:`x = c_0 x_0 + \sum_j c_j s_j` the exponents need :math:`\langle x_0, s_i \rangle` and the Gram matrix alone, and
a step costs :math:`B N^2` operations whatever the dimension.
"""

import math

import torch
from torch import Tensor

from fluvial.smoothing.logits import HARMLESS, tilt, unit_roundoff
from fluvial.smoothing.products import inner, mix
from fluvial.smoothing.query import Effort, Query
from fluvial.smoothing.rounding import HARM, SAFETY, lead_needed
from fluvial.smoothing.support import Support

# Rows of the Gram matrix that are filled in at once: half of it is its mirror.
_GRAM_ROWS = 256


class Span:
    """Coordinates ``(c_0, c_1, ..., c_N)`` of ``B`` states, float64 ``(B, N + 1)``, and the posterior weights there.

    Args:
        support: The points, in memory.
        query: The first states, with labels and priors; their times play no role.
    """

    def __init__(self, support: Support, query: Query) -> None:
        self._support, self._query = support, query
        self._dtype = query.x.dtype
        self._products = {self._dtype: _Products(support, query.x, self._dtype)}
        self._size = torch.linalg.vector_norm(query.x, dim=1).double()
        shift = 0.0 if support.shift is None else float(support.shift.expand(support.dim).norm())
        self._norms = (support.squared_norms.sqrt() + shift) * support.unit
        self.start = torch.zeros(len(query.x), len(support) + 1, dtype=torch.float64, device=query.x.device)
        self.start[:, 0] = 1.0

    def weights(self, rows: Tensor, coordinates: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior weights of the points at some rows, float64 ``(R, N)``, their top points and these points' lead.

        Args:
            rows: Which ones, ``(R,)``.
            coordinates: Their coordinates, ``(R, N + 1)``.
            alpha: Weight of the datum, ``(R,)``.
            sigma: Weight of the noise, ``(R,)``.
        """
        sigma = sigma / self._support.unit
        weights, index, lead, sound = self._weights(rows, coordinates, alpha, sigma, self._dtype)
        if not bool(sound.all()):
            weights, index, lead, _ = self._weights(rows, coordinates, alpha, sigma, torch.float64)
        return weights, index, lead

    def states(self, coordinates: Tensor) -> Tensor:
        """The states that coordinates stand for, shape ``(B, d)``, in data units."""
        support, own = self._support, coordinates[:, :1].to(self._dtype)
        data = (coordinates[:, 1:] * support.unit).to(self._dtype)
        total = None
        for part, values in support.tiles(0, len(support), self._dtype):
            product = mix(data[:, part], values)
            total = product if total is None else total.add_(product)
        assert total is not None
        total.addcmul_(own, self._query.x)
        if support.shift is not None:
            total += (data.sum(1, keepdim=True).double() * support.shift).to(self._dtype)
        return total

    def length(self, coordinates: Tensor) -> Tensor:
        """Upper bound on the norms of the states with such coordinates, ``(B,)``."""
        size = coordinates.abs()
        bound: Tensor = size[:, 0] * self._size + size[:, 1:] @ self._norms
        return bound

    def coordinates_of(self, index: Tensor) -> Tensor:
        """Coordinates of points, float64 ``(R, N + 1)``."""
        rows = torch.zeros(len(index), len(self._support) + 1, dtype=torch.float64, device=index.device)
        return rows.scatter_(1, index[:, None] + 1, 1.0)

    def _weights(
        self, rows: Tensor, coordinates: Tensor, alpha: Tensor, sigma: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, top points, their lead, and whether rounding is harmless."""
        support = self._support
        if dtype not in self._products:
            self._products[dtype] = _Products(support, self._query.x, dtype)
        products, gain, decay = self._products[dtype], alpha / sigma.square(), -0.5 * (alpha / sigma).square()
        along = products.inner(rows, coordinates, coordinates[:, 1:].sum(1) - alpha).mul_(gain[:, None].to(dtype))
        norms = support.squared_norms[None].to(dtype)
        exponents = torch.addcmul(along, decay[:, None].to(dtype), norms)
        if self._query.log_prior is not None or support.log_prior is not None or self._query.labels is not None:
            tilt(exponents, support, self._query.rows(rows), slice(0, len(support)))
        top, index = exponents.max(1)
        gaps = exponents.sub_(top[:, None])
        lead = -gaps.scatter(1, index[:, None], -torch.inf).amax(1).double()
        weights = torch.exp(gaps.clamp_(min=-80.0)).double()
        weights.div_(weights.sum(1, keepdim=True))
        size = (coordinates[:, 0].abs() * self._size[rows] + coordinates[:, 1:].abs() @ self._norms) / support.unit
        error = unit_roundoff(dtype) * gain * (size * support.radius + 0.5 * alpha * support.radius**2)
        sound = (error <= HARMLESS[dtype]) | (
            lead >= lead_needed(error * (support.dim + 8) / SAFETY, len(support), dtype)
        )
        if not bool(sound.all()):
            apart = (norms + norms[0, index, None] - 2 * products.gram[index]).clamp_min_(0.0).sqrt_()
            harm = error * 2 * (weights * apart).sum(1) * alpha / sigma
            sound |= (error < 0.1) & (harm <= HARM[dtype] * math.sqrt(support.dim))
        return weights, index, lead - 2 * (support.dim + 8) * error, sound


class _Products:
    """Inner products of the first states and of the points with the points' values, in one type."""

    def __init__(self, support: Support, x: Tensor, dtype: torch.dtype) -> None:
        self._dtype = dtype
        shape = (len(support), len(support))
        self.gram = torch.empty(shape, dtype=dtype, device=x.device)
        self._first = torch.empty(len(x), len(support), dtype=dtype, device=x.device)
        self._shift = torch.zeros(len(support), dtype=dtype, device=x.device)
        start = x.to(dtype) / support.unit if support.unit != 1 else x.to(dtype)
        for row, values in support.tiles(0, len(support), dtype):
            self._first[:, row] = inner(start, values)
            if support.shift is not None:
                self._shift[row] = (values * support.shift.to(dtype)).sum(1)
            one_tile = row.stop - row.start == len(support)
            mine = values if one_tile else values.clone()
            for column, others in [(row, mine)] if one_tile else support.tiles(0, row.stop, dtype):
                self._fill(row, column, mine, others)

    def _fill(self, row: slice, column: slice, mine: Tensor, others: Tensor) -> None:
        """Fill in the products of two tiles, of one with itself only up to the diagonal."""
        for low in range(0, len(mine), _GRAM_ROWS):
            high = min(low + _GRAM_ROWS, len(mine))
            stop = high if row == column else len(others)
            block = inner(mine[low:high], others[:stop])
            here, there = slice(row.start + low, row.start + high), slice(column.start, column.start + stop)
            self.gram[here, there], self.gram[there, here] = block, block.T

    def inner(self, rows: Tensor, coordinates: Tensor, rest: Tensor) -> Tensor:
        """Inner products of some states, less ``alpha`` times the shift, with the values, ``(R, N)``."""
        data = coordinates[:, 1:].to(self._dtype)
        along = torch.addcmul(inner(data, self.gram), coordinates[:, :1].to(self._dtype), self._first[rows])
        return torch.addcmul(along, rest[:, None].to(self._dtype), self._shift[None])


def span_pays(support: Support, rows: int, evaluations: int, effort: Effort) -> bool:
    """Whether a walk of that many evaluations is cheaper in the span, Gram matrix included, and fits the memory."""
    points, dim = len(support), support.dim
    fits = 3 * 8 * points * (points + rows) <= effort.memory // 2
    span = points**2 * dim + 2 * rows * points * dim + evaluations * rows * points**2
    return support.in_memory and fits and points < dim and span < evaluations * 2 * rows * points * dim
