r"""Which reference rows can be among the k nearest of a query, from products of low precision with a proven bound.

With :math:`a = q - c` and :math:`b = r - c`, c the mean of the reference, and unit roundoff :math:`u`, the computed
:math:`s = |b|^2 - 2 \langle a, b \rangle` misses :math:`|q - r|^2 - |q - c|^2` by at most

.. math:: e = \frac{(d + 16) u}{1 - (d + 16) u} \left( 2 |a| |b| + |b|^2 \right),

whatever the order of the summation (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1: a
product of length d has relative error d u / (1 - d u); the other 16 are the roundings of a, b, |b|^2, the sum, and of
e and the comparison themselves). A row can be left out if its s - e exceeds the k-th smallest s + e. Minima over groups
of rows decide that for most of them at once. What is left is ranked by the norms of differences in float64, which have
no cancellation.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluvial.smoothing.products import inner

GROUP = 128  # rows whose minimum is looked at first
_PART = 4096  # rows that are converted to float64 at once
_LEAST_AMBIGUOUS = 64


@dataclass(frozen=True)
class Frame:
    """Where the products are taken: about a centre, in units that keep them far from overflow.

    Args:
        centre: Mean of the reference, shape (d,), float64.
        scale: Largest distance of a coordinate from it, as a power of 2.
    """

    centre: Float[Tensor, " d"]
    scale: float

    @classmethod
    def of(cls, queries: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> "Frame":
        """The frame of both sets."""
        centre = reference.mean(0, dtype=torch.float64)
        parts = [part for rows in (queries, reference) for part in rows.split(_PART)]
        reach = max(float((part.double() - centre).abs().max()) for part in parts)
        return cls(centre, 2.0 ** math.frexp(reach)[1] if reach else 1.0)

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Rows in this frame, float64."""
        return (rows.double() - self.centre).div_(self.scale)


class Chunk:
    """Some rows of the reference, prepared for products in float32.

    Args:
        rows: Shape (m, d), in any precision.
        start: Number of the first one in the whole reference.
        k: Neighbours that will be asked for.
        frame: Of the products.
    """

    def __init__(self, rows: Float[Tensor, "m d"], start: int, k: int, frame: Frame) -> None:
        self.rows, self.start, self.frame = rows, start, frame
        self._group = max(1, min(GROUP, len(rows) // (8 * k)))
        width = -(-len(rows) // self._group) * self._group
        self._single = torch.zeros(width, rows.shape[1], dtype=torch.float32, device=rows.device)
        squares = torch.full((width,), torch.inf, dtype=torch.float64, device=rows.device)
        for part in self._parts():
            values = frame(rows[part])
            squares[part] = values.square().sum(1)
            self._single[part] = values
        self._squares = {dtype: squares.to(dtype) for dtype in (torch.float32, torch.float64)}
        self._lengths = squares.masked_fill(squares == torch.inf, 0.0).sqrt()  # of padding too, whose s is infinite
        self._group_lengths = self._lengths.view(self._group, -1).amax(0)

    def _parts(self) -> list[slice]:
        return [slice(i, min(i + _PART, len(self.rows))) for i in range(0, len(self.rows), _PART)]

    def candidates(
        self, queries: Float[Tensor, "q d"], own: Int[Tensor, " q"] | None, k: int, limit: Float[Tensor, " q"]
    ) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
        """Pairs of a query and of a row that can be among its k nearest ones, ordered by query.

        Args:
            queries: Shape (q, d), in any precision.
            own: Number of each query's own row in the whole reference, which does not count.
            k: Neighbours.
            limit: Distances that a row must not exceed, in units of the data.

        Returns:
            Numbers of the queries in this block, and of the rows in the whole reference.
        """
        values, limit = self.frame(queries), limit / self.frame.scale
        if not _exact_products(queries.device) or rounding(values.shape[1], torch.float32) > 0.25:
            return self._screen(values, own, k, limit, torch.float64)
        query, row = self._screen(values, own, k, limit, torch.float32)
        counts = torch.bincount(query, minlength=len(queries))
        many = counts > max(_LEAST_AMBIGUOUS, len(self.rows) // 64)
        if not bool(many.any()):
            return query, row
        again = torch.nonzero(many).flatten()
        keep = ~many[query]
        part = self._screen(values[again], None if own is None else own[again], k, limit[again], torch.float64)
        query, row = torch.cat([query[keep], again[part[0]]]), torch.cat([row[keep], part[1]])
        order = torch.argsort(query, stable=True)
        return query[order], row[order]

    def _screen(
        self,
        values: Float[Tensor, "q d"],
        own: Int[Tensor, " q"] | None,
        k: int,
        limit: Float[Tensor, " q"],
        dtype: torch.dtype,
    ) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
        scores = self._scores(values, dtype)
        if own is not None:
            _hide(scores, own - self.start)
        square = values.square().sum(1)
        length, share = square.sqrt().to(dtype)[:, None], rounding(values.shape[1], dtype)
        grouped = scores.view(len(values), self._group, -1)
        error = _bound(length, self._group_lengths.to(dtype), share)
        least = grouped.amin(1)
        top = (least + error).topk(min(k, least.shape[1]), largest=False).values
        threshold = top.amax(1) if top.shape[1] == k else torch.full_like(top[:, 0], torch.inf)
        fine = rounding(values.shape[1], torch.float64)
        known = limit.square() - square + 4 * fine * (limit.square() + square)
        # one step up, for the rounding of what is known
        known = torch.nextafter(known.to(dtype), known.new_full((), torch.inf, dtype=dtype))
        threshold = torch.minimum(threshold, known)[:, None]
        query, group = torch.nonzero(least.sub_(error) <= threshold, as_tuple=True)
        inside = grouped[query, :, group]
        rows = group[:, None] + torch.arange(self._group, device=group.device) * grouped.shape[2]
        error = _bound(length[query], self._lengths.to(dtype)[rows], share)
        near: Bool[Tensor, "p g"] = (inside - error <= threshold[query]) & (inside < torch.inf)
        return query[:, None].expand_as(near)[near], rows[near] + self.start

    def _scores(self, values: Float[Tensor, "q d"], dtype: torch.dtype) -> Float[Tensor, "q m"]:
        squares = self._squares[dtype]
        if dtype == torch.float32:
            return inner(values.float().mul_(-2), self._single).add_(squares)
        scores = squares.repeat(len(values), 1)
        for part in self._parts():
            scores[:, part].addmm_(values, self.frame(self.rows[part]).mT, alpha=-2)
        return scores


def rounding(d: int, dtype: torch.dtype) -> float:
    """The relative error of a product of length ``d`` with its operands and the sum."""
    share = (d + 16) * torch.finfo(dtype).eps / 2
    return share / (1 - share) if share < 0.5 else math.inf


def _bound(length: Tensor, lengths: Tensor, share: float) -> Tensor:
    # beside the relative error there is that of underflow
    tiny = 1e5 * torch.finfo(length.dtype).tiny
    return torch.addcmul(share * lengths.square() + tiny, 2 * share * length, lengths)


def _hide(scores: Float[Tensor, "q m"], own: Int[Tensor, " q"]) -> None:
    """Put infinity where a row is the query itself."""
    inside = torch.nonzero((own >= 0) & (own < scores.shape[1])).flatten()
    scores[inside, own[inside]] = torch.inf


def _exact_products(device: torch.device) -> bool:
    """Whether products of float32 are taken in float32: backends can be told to round their operands."""
    value = 1 + 2.0**-12
    ones = torch.full((64, 64), value, dtype=torch.float32, device=device)
    return abs(float(inner(ones, ones)[0, 0]) - 64 * value**2) < 64 * 64 * 2.0**-24
