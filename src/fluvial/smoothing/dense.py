r"""All points in full: two matrix products and a softmax between them.

The sums leave out the row's top point ``k`` and run over :math:`e_i = e^{\ell_i - \ell_k}` of the others. So they
vanish, instead of cancelling, when the row rests on that one point: the mean is :math:`s_k + \sum_{i \ne k} w_i (s_i -
s_k)`, exact in the limit.

Weights whose sum is less than what rounding hides are set to zero, and the second product runs over the points that
have a weight left. Late in time these are few, and the second product costs nothing.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fluvial.smoothing.logits import (
    Exponents,
    distance_error,
    pair_exponents,
    prior_level,
    product_error,
    rounding_bound,
    tilt,
    unit_roundoff,
)
from fluvial.smoothing.products import mix
from fluvial.smoothing.query import Effort, Moments, Query, Way, row_blocks, rows_in_cache, stacked
from fluvial.smoothing.support import TILE_BYTES, Support

# Below this share of points with a weight, they are gathered for the second product.
_FEW = 0.25
# Fewer rows a block than this would read the support too often; the points are then split instead.
_LEAST_ROWS = 128
_LEAST_POINTS = 256
_MEMORY_SHARE = 8


def dense_moments(way: Way, support: Support, query: Query, effort: Effort, *, stats: bool) -> Moments:
    """Softmax sums of every row over the whole support, all rows computed alike.

    Args:
        way: How to compute the exponents.
        support: The points.
        query: The rows, in the support's values.
        effort: Memory to stay within.
        stats: Whether squares, surprise and power are wanted.
    """
    itemsize = 4 if way == Way.PRODUCT and query.x.dtype == torch.float32 else 8
    budget = effort.memory // _MEMORY_SHARE
    rows = max(min(_LEAST_ROWS, len(query.x)), budget // (itemsize * len(support)))
    rows = min(rows, rows_in_cache(support, itemsize))
    rows = max(1, min(rows, effort.memory // (6 * itemsize * support.dim)))
    pieces = []
    for block in row_blocks(len(query.x), 1, rows):
        part = query.rows(block)
        points = max(_LEAST_POINTS, budget // (itemsize * max(1, len(part.x))))
        pieces.append(_block(way, support, part, points, stats))
    return stacked(pieces)


def _block(way: Way, support: Support, query: Query, points: int, stats: bool) -> Moments:
    """One block of rows, a chunk of points after the other."""
    scaled, found = Exponents(way, query, support), None
    for low in range(0, len(support), points):
        part = _chunk(way, scaled, support, query, slice(low, min(low + points, len(support))), stats)
        found = part if found is None else merged(support, found, part)
    assert found is not None
    slack = _slack(way, support, query, found)
    # What was dropped was weighed with exponents that are off by that much.
    found = replace(found, slack=slack, omitted=found.omitted * torch.exp(torch.clamp(2 * slack, max=50.0)))
    if not stats:
        return found
    # The top exponent anew: its error is small against the lead of its point, not against one nat.
    rows = torch.arange(len(query.x), device=query.x.device)
    exponent = pair_exponents(support, query, rows, found.top_index) + prior_level(query, support)
    exponent = torch.where(found.top_exponent == -torch.inf, -torch.inf, exponent)  # all points are excluded
    return replace(found, log_kernel=exponent + torch.log(found.normaliser))


def _chunk(way: Way, scaled: Exponents, support: Support, query: Query, points: slice, stats: bool) -> Moments:
    dtype = scaled.dtype
    logits = query.x.new_empty((len(query.x), points.stop - points.start), dtype=dtype)
    for part, values in support.tiles(points.start, points.stop, dtype):
        here = slice(part.start - points.start, part.stop - points.start)
        scaled(values, support.squared_norms[part], logits[:, here])
    tilt(logits, support, query, points)
    top, index = logits.max(1)
    floor = torch.where(top == -torch.inf, 0.0, top)  # minus infinity where all of the row's points are excluded
    gap = logits.sub_(floor[:, None]).scatter_(1, index[:, None], -torch.inf)
    runner_up = gap.amax(1)
    negligible = unit_roundoff(dtype) / (8 * len(support))  # of all such weights together: an eighth of a rounding
    # Clamped before, since denormal numbers are slow.
    weights = torch.threshold_(gap.clamp_(min=-80.0).exp_(), negligible, 0.0)
    mass = weights.sum(1)
    normaliser = 1 + mass
    norms = support.squared_norms.to(dtype)
    power = ((weights @ norms[points]) + norms[index + points.start]) / normaliser
    squares, surprise = (weights.square().sum(1), torch.xlogy(weights, weights).sum(1)) if stats else (mass, mass)
    active = weights.amax(0) != 0  # NaN counts: a row without a value must not take the other rows' points away
    active[index[mass > 0]] = True
    weights.scatter_(1, index[:, None], -mass[:, None]).div_(normaliser[:, None])
    offset = _weighted_sum(weights, torch.nonzero(active).flatten(), support, points)
    index = index + points.start
    columns = (normaliser, top, 1 + squares, surprise, runner_up, power)
    normaliser, top, squares, surprise, runner_up, power = (part.double() for part in columns)
    kinds = torch.full_like(index, int(way))
    return Moments(
        index, offset.to(query.x.dtype), normaliser, top, kinds, squares, surprise, top, runner_up, power,
        slack=top, omitted=torch.full_like(top, negligible * (points.stop - points.start)),
    )  # fmt: skip


def _weighted_sum(weights: Tensor, active: Tensor, support: Support, points: slice) -> Tensor:
    """``weights @ values`` over a chunk's points, of which only the ``active`` ones have a weight at some row."""
    if len(active) < _FEW * weights.shape[1]:
        parts = active.split(max(64, TILE_BYTES // (support.dim * weights.element_size())))
        products = (mix(weights[:, part], support.values(part + points.start, weights.dtype)) for part in parts)
        return _total(products) if len(active) else weights.new_zeros((len(weights), support.dim))
    tiles = support.tiles(points.start, points.stop, weights.dtype)
    start = points.start
    return _total(mix(weights[:, part.start - start : part.stop - start], values) for part, values in tiles)


def _total(products: Iterator[Tensor]) -> Tensor:
    """Sum of at least one product, in the first one's memory."""
    total = next(products)
    for product in products:
        total.add_(product)
    return total


def merged(support: Support, a: Moments, b: Moments) -> Moments:
    """Moments over the union of two disjoint sets of points, from those over each."""
    first = a.top_exponent >= b.top_exponent
    top = torch.where(first, a.top_exponent, b.top_exponent)
    floor = torch.where(top == -torch.inf, 0.0, top)
    fall_a, fall_b = a.top_exponent - floor, b.top_exponent - floor
    scale_a, scale_b = fall_a.exp(), fall_b.exp()
    mass_a, mass_b = scale_a * a.normaliser, scale_b * b.normaliser
    normaliser = torch.where(top == -torch.inf, a.normaliser, mass_a + mass_b)
    index = torch.where(first, a.top_index, b.top_index)
    share_a, share_b = (torch.nan_to_num(mass / normaliser) for mass in (mass_a, mass_b))
    apart = support.values(b.top_index, torch.float64) - support.values(a.top_index, torch.float64)
    moved = torch.where(first, share_b, -share_a)[:, None] * apart
    offset = share_a[:, None] * a.offset + share_b[:, None] * b.offset + moved
    fallen_a, fallen_b = (torch.where(s > 0, f, 0.0) for s, f in ((scale_a, fall_a), (scale_b, fall_b)))
    surprise = scale_a * (a.surprise + fallen_a * a.normaliser) + scale_b * (b.surprise + fallen_b * b.normaliser)
    runner_up = torch.stack([torch.minimum(fall_a, fall_b), a.runner_up + fall_a, b.runner_up + fall_b]).amax(0)
    return Moments(
        top_index=index,
        offset=offset.to(a.offset.dtype),
        normaliser=normaliser,
        top_exponent=top,
        way=a.way,
        squares=scale_a.square() * a.squares + scale_b.square() * b.squares,
        surprise=surprise,
        log_kernel=top,
        runner_up=runner_up,
        power=share_a * a.power + share_b * b.power,
        slack=top,
        omitted=scale_a * a.omitted + scale_b * b.omitted,
    )


def _slack(way: Way, support: Support, query: Query, found: Moments) -> Tensor:
    """Bound on the error of the exponents, ``(B,)``."""
    if way == Way.DISTANCE:
        return distance_error(query, support, found.top_exponent)
    dtype = query.x.dtype if way == Way.PRODUCT else torch.float64
    return rounding_bound(support.dim) * product_error(query, support, dtype)
