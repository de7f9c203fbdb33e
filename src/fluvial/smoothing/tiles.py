r"""Weighted sums over a support, tile by tile.

The running state of a row is its top point ``k`` and sums over all other points of :math:`e_i = e^{\ell_i -
\ell_k}`. Keeping ``k`` out of the sums means that they vanish, instead of cancelling, when the row rests on that one
point: the mean is :math:`s_k + \sum_{i \ne k} w_i (s_i - s_k)`, exact in the limit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from fluvial.smoothing.logits import Way, accurate_way, exponents, row_constant
from fluvial.smoothing.support import Support

# Bytes of one (rows, points) tile; a handful of such tiles are alive at once.
_TILE_BYTES = 32 * 2**20
_LEAST_POINTS = 256


@dataclass(frozen=True)
class Query:
    """Where a support is smoothed.

    Args:
        x: Points, shape ``(B, d)``.
        alpha: Weight of the datum at each row's time, shape ``(B,)``, float64.
        sigma: Weight of the noise, shape ``(B,)``, float64, positive.
        labels: Class that a row is restricted to, -1 for none, shape ``(B,)``; or None.
        log_prior: Log-weights of the points for each row, shape ``(B, N)``; or None.
    """

    x: Tensor
    alpha: Tensor
    sigma: Tensor
    labels: Tensor | None = None
    log_prior: Tensor | None = None

    def rows(self, index: Tensor) -> "Query":
        """The query at some of its rows."""
        labels = None if self.labels is None else self.labels[index]
        log_prior = None if self.log_prior is None else self.log_prior[index]
        return Query(self.x[index], self.alpha[index], self.sigma[index], labels, log_prior)


@dataclass(frozen=True)
class Moments:
    """Sums of a softmax over the support at each of ``B`` rows.

    Args:
        top_index: Point with the largest weight, ``(B,)``.
        offset: Weighted mean less the top point, ``(B, d)``.
        normaliser: Sum of weights relative to the top one, ``(B,)``, at least 1.
        top_exponent: Exponent of the top point, up to the row's constant, ``(B,)``.
        way: How the exponents were computed, ``(B,)``.
        squares: Sum of squared relative weights, ``(B,)``.
        surprise: Sum of relative weight times exponent less the top exponent, ``(B,)``, not positive.
        log_kernel: Log of the prior-weighted sum of Gaussian kernels (without their constant), float64, ``(B,)``.
    """

    top_index: Tensor
    offset: Tensor
    normaliser: Tensor
    top_exponent: Tensor
    way: Tensor
    squares: Tensor
    surprise: Tensor
    log_kernel: Tensor

    OFFSET: ClassVar[int] = 1

    def parts(self) -> tuple[Tensor, ...]:
        """The fields in order."""
        return tuple(getattr(self, part.name) for part in fields(self))

    def rows(self, index: Tensor) -> "Moments":
        """The moments of some of the rows."""
        return Moments(*(part[index] for part in self.parts()))


@dataclass(frozen=True)
class _Tile:
    """Exponents of one block of rows against one block of points."""

    exponents: Tensor
    points: slice


def _prepared(support: Support, query: Query) -> Query:
    """The query with its points moved by the support's shift."""
    if support.shift is None:
        return query
    moved = query.x.double() - query.alpha[:, None] * support.shift
    return Query(moved.to(query.x.dtype), query.alpha, query.sigma, query.labels, query.log_prior)


def _blocks(way: Tensor, support: Support) -> Iterator[tuple[Way, Tensor]]:
    """Groups of rows that are computed alike and whose float64 tiles fit the memory."""
    if way.numel() == 0:
        yield Way.PRODUCT, way
    rows = max(1, _TILE_BYTES // (8 * _points_per_tile(support)))
    for kind in Way:
        index = torch.nonzero(way == int(kind)).flatten()
        for block in index.split(rows) if index.numel() else ():
            yield kind, block


def _points_per_tile(support: Support) -> int:
    return min(len(support), max(_LEAST_POINTS, _TILE_BYTES // (8 * support.dim)))


def _tiles(way: Way, support: Support, query: Query) -> Iterator[_Tile]:
    """Exponents of a block of rows, with prior and labels, one block of points after the other."""
    step = _points_per_tile(support)
    for start in range(0, len(support), step):
        part = slice(start, min(start + step, len(support)))
        logits = exponents(way, query.x, query.alpha, query.sigma, support.values[part], support.squared_norms[part])
        if query.log_prior is not None:
            logits = logits + query.log_prior[:, part].to(logits.dtype)
        elif support.log_prior is not None:
            logits = logits + support.log_prior[part].to(logits.dtype)
        if query.labels is not None and support.labels is not None:
            other = (support.labels[part] != query.labels[:, None]) & (query.labels >= 0)[:, None]
            logits = logits.masked_fill(other, -torch.inf)
        yield _Tile(logits, part)


def moments(support: Support, query: Query) -> Moments:
    """Softmax sums of every row over the support.

    Example:
        >>> support = Support(torch.tensor([[0.0], [2.0]]))
        >>> half = torch.full((1,), 0.5, dtype=torch.float64)
        >>> found = moments(support, Query(torch.tensor([[0.5]]), half, half))
        >>> (support.points[found.top_index] + found.offset).item()
        1.0
    """
    query = _prepared(support, query)
    way = accurate_way(query.x, query.alpha, query.sigma, support.radius)
    pieces, order = [], []
    for kind, index in _blocks(way, support):
        order.append(index)
        pieces.append(_block_moments(kind, support, query.rows(index)))
    back = torch.argsort(torch.cat(order))
    columns = zip(*(piece.parts() for piece in pieces), strict=True)
    return Moments(*(torch.cat(column)[back] for column in columns))


def _block_moments(way: Way, support: Support, query: Query) -> Moments:
    x = query.x
    dtype = x.dtype if way == Way.PRODUCT else torch.float64
    top = x.new_full((len(x),), -torch.inf, dtype=dtype)
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    mass, squares, surprise = (torch.zeros_like(top) for _ in range(3))
    total = torch.zeros_like(x, dtype=dtype)
    for tile in _tiles(way, support, query):
        tile_top, tile_index = tile.exponents.max(1)
        better = tile_top > top
        new_top = torch.where(better, tile_top, top)
        floor = torch.where(new_top == -torch.inf, 0.0, new_top)  # all of the row's points so far are excluded
        fall = torch.where(top == -torch.inf, 0.0, floor - top)
        scale = torch.exp(top - floor)
        gap = tile.exponents - floor[:, None]
        weight = torch.exp(gap)
        chosen = tile_index[:, None]
        weight = weight.scatter(1, chosen, weight.gather(1, chosen).masked_fill(better[:, None], 0.0))
        demoted = torch.where(better, scale, 0.0)  # weight of the previous top point, now one among the others
        total = scale[:, None] * total + weight @ support.values[tile.points].to(dtype)
        total = total + demoted[:, None] * support.values[index].to(dtype)
        surprise = scale * (surprise - fall * mass) - fall * demoted
        surprise = surprise + torch.where(weight > 0, weight * gap, 0.0).sum(1)
        squares = scale.square() * squares + demoted.square() + weight.square().sum(1)
        mass = scale * mass + demoted + weight.sum(1)
        index = torch.where(better, tile_index + tile.points.start, index)
        top = new_top
    normaliser = 1 + mass
    offset = (total - mass[:, None] * support.values[index].to(dtype)) / normaliser[:, None]
    log_kernel = top.double() + torch.log(normaliser.double()) + row_constant(way, x, query.sigma)
    kinds = torch.full_like(index, int(way))
    stats = (part.to(torch.float64) for part in (normaliser, top, 1 + squares, surprise))
    normaliser, top, squares, surprise = stats
    return Moments(index, offset.to(x.dtype), normaliser, top, kinds, squares, surprise, log_kernel)


def _weights(tile: _Tile, found: Moments) -> Tensor:
    """Weights of a tile's points, the top point's set to zero; float64 ``(b, n)``."""
    relative = torch.exp(tile.exponents.double() - found.top_exponent[:, None]) / found.normaliser[:, None]
    points = torch.arange(tile.points.start, tile.points.stop, device=relative.device)
    return relative.masked_fill(points == found.top_index[:, None], 0.0)


def _each_block(support: Support, query: Query, found: Moments) -> Iterator[tuple[Way, Tensor, Query, Moments]]:
    prepared = _prepared(support, query)
    for kind, index in _blocks(found.way, support):
        yield kind, index, prepared.rows(index), found.rows(index)


def _squared_distances(way: Way, support: Support, tile: _Tile, top: Tensor) -> Tensor:
    """Squared distances of a tile's points from each row's top point, float64 ``(b, n)``."""
    values = support.values[tile.points].double()
    if way == Way.DISTANCE:
        return torch.cdist(top, values, compute_mode="donot_use_mm_for_euclid_dist").square()
    norms = support.squared_norms[tile.points] + top.square().sum(1)[:, None]
    return torch.addmm(norms, top, values.T, alpha=-2.0).clamp_min(0.0)


def spread(support: Support, query: Query, found: Moments) -> Tensor:
    """Trace of the weighted covariance of the support at every row, shape ``(B,)``, float64."""
    pieces, order = [], []
    for kind, index, rows, part in _each_block(support, query, found):
        top = support.values[part.top_index].double()
        total = torch.zeros(len(index), dtype=torch.float64, device=top.device)
        for tile in _tiles(kind, support, rows):
            total = total + (_weights(tile, part) * _squared_distances(kind, support, tile, top)).sum(1)
        pieces.append(total - part.offset.double().square().sum(1))
        order.append(index)
    return torch.cat(pieces)[torch.argsort(torch.cat(order))]


def covariance_product(support: Support, query: Query, found: Moments, direction: Tensor, rate: Tensor) -> Tensor:
    r"""Derivative of the mean when exponent ``i`` moves by :math:`\langle v, s_i \rangle + c \|s_i\|^2` (values,
    shifted).

    Args:
        support: The points.
        query: The rows that ``found`` belongs to.
        found: Their moments.
        direction: ``v``, shape ``(B, d)``.
        rate: ``c``, shape ``(B,)``.

    Returns:
        :math:`\mathrm{Cov}_w(s, \cdot)` applied to that motion, shape ``(B, d)``.
    """
    pieces, order = [], []
    for kind, index, rows, part in _each_block(support, query, found):
        v, c = direction[index].double(), rate[index].double()
        top = support.values[part.top_index].double()
        at_top = (v * top).sum(1) + c * support.squared_norms[part.top_index]
        total, mass = torch.zeros_like(top), torch.zeros_like(at_top)
        for tile in _tiles(kind, support, rows):
            values = support.values[tile.points].double()
            motion = v @ values.T + c[:, None] * support.squared_norms[tile.points] - at_top[:, None]
            moved = _weights(tile, part) * motion
            total = total + moved @ values
            mass = mass + moved.sum(1)
        pieces.append(total - mass[:, None] * (top + part.offset.double()))
        order.append(index)
    return torch.cat(pieces)[torch.argsort(torch.cat(order))].to(direction.dtype)
