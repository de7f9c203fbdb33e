"""A cheap pass finds the points that can matter (:mod:`~fluvial.smoothing.candidates`); only they are evaluated.

Rows with few candidates are evaluated pair by pair, from differences in float64. Where rows have more, but together
leave out most points, the rest is a smaller support for two products.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from fluvial.smoothing.affinities import Precision, fine_precision
from fluvial.smoothing.candidates import Candidates, allowance, candidates, close_points
from fluvial.smoothing.dense import dense_moments
from fluvial.smoothing.logits import distance_error, pair_exponents, prior_level
from fluvial.smoothing.query import Effort, Moments, Query, Way, nothing, row_blocks, rows_in_cache, stacked
from fluvial.smoothing.rounding import settled
from fluvial.smoothing.support import Support

# Rows that are searched at once, at most.
_ROWS = 512
# Rows are put into so many groups at most by how many points they need, of so many rows at least.
_GROUPS = 4
_LEAST_ROWS = 8
WORTHWHILE = 0.5
"""Two products over more than this share of the points are no gain."""


def screened_moments(support: Support, query: Query, effort: Effort, precision: Precision) -> tuple[Moments, Tensor]:
    """Softmax sums of the rows that have few candidates, and which rows these are, ``(B,)``.

    Args:
        support: The points.
        query: The rows, in the support's values.
        effort: Tolerance and memory.
        precision: Of the products of the screening pass.
    """
    rows = max(1, min(_ROWS, effort.memory // (64 * support.dim), rows_in_cache(support, query.x.element_size())))
    pieces, fews = [], []
    for block in row_blocks(len(query.x), 1, rows):
        part = query.rows(block)
        found = candidates(support, part, effort, precision)
        index = torch.nonzero(found.few).flatten()
        if len(index):
            pieces.append(_exact(support, part, found, index))
        fews.append(found.few)
    return (stacked(pieces) if pieces else nothing(query)), torch.cat(fews)


def narrowed_moments(support: Support, query: Query, effort: Effort, *, stats: bool) -> tuple[Moments, Tensor]:
    """Softmax sums over the points that can matter to any row, and the rows that this settles, ``(B,)``.

    Args:
        support: The points.
        query: The rows, in the support's values.
        effort: Tolerance and memory.
        stats: Whether the statistics are wanted.
    """
    precision = fine_precision(support, query)
    pieces, order = [], []
    bytes_per_pair = 2 * query.x.element_size() + 2  # affinities, a copy of some rows', and two marks
    for block in row_blocks(len(query.x), bytes_per_pair * len(support), effort.memory // 2):
        close = close_points(support, query.rows(block), effort, precision)
        for group in _alike(close.view(torch.uint8).sum(1, dtype=torch.int32)):
            rows = group + block.start
            found, sound = _over_union(support, query.rows(rows), close[group].any(0), effort, stats)
            pieces.append(found)
            order.append(rows[sound])
    done = torch.zeros(len(query.x), dtype=torch.bool, device=query.x.device)
    settled_rows = torch.cat(order)
    done[settled_rows] = True
    return (stacked(pieces).rows(torch.argsort(settled_rows)) if len(settled_rows) else nothing(query)), done


def _alike(counts: Tensor) -> list[Tensor]:
    """Rows in groups by how many points they have, the more the smaller: else the few with most set the cost of all."""
    order = torch.argsort(counts)
    groups: list[Tensor] = []
    while len(groups) < _GROUPS - 1 and len(order) >= 2 * _LEAST_ROWS:
        half = (len(order) + 1) // 2
        groups.append(order[:half])
        order = order[half:]
    return [*groups, order]


def _over_union(support: Support, query: Query, close: Tensor, effort: Effort, stats: bool) -> tuple[Moments, Tensor]:
    """Moments over some of the points, and which of the rows they settle; none if that is no gain."""
    index = torch.nonzero(close).flatten()
    fits = len(index) * support.dim * support.points.dtype.itemsize <= effort.memory // 4
    if not fits or len(index) > WORTHWHILE * len(support):
        return nothing(query), torch.zeros(len(query.x), dtype=torch.bool, device=query.x.device)
    subset = support.subset(index)
    query = replace(query, log_prior=None if query.log_prior is None else query.log_prior[:, index])
    found = dense_moments(Way.PRODUCT, subset, query, effort, stats=stats)
    sound = settled(subset, query, found, Way.PRODUCT)
    omitted = found.omitted + allowance(support, query, effort)
    runner_up = torch.maximum(found.runner_up, torch.log(omitted))
    found = replace(found, top_index=index[found.top_index], omitted=omitted, runner_up=runner_up)
    return (found if bool(sound.all()) else found.rows(sound)), sound


def _exact(support: Support, query: Query, found: Candidates, index: Tensor) -> Moments:
    """Moments of the rows ``index`` from their candidates alone, in float64."""
    rows, points = found.rows, found.points
    exponents = torch.cat([pair_exponents(support, query, *part) for part in _pieces(support, rows, points)])
    size = len(query.x)
    top = exponents.new_full((size,), -torch.inf).scatter_reduce(0, rows, exponents, "amax")
    order = torch.arange(len(rows), device=rows.device)
    first = torch.where(exponents == top[rows], order, len(rows))
    top_pair = order.new_full((size,), len(rows)).scatter_reduce(0, rows, first, "amin")
    gap = (exponents - top[rows]).index_fill(0, top_pair[index], -torch.inf)
    weights = torch.exp(gap)
    mass, squares, surprise = (
        exponents.new_zeros(size).index_add(0, rows, part)
        for part in (weights, weights.square(), torch.xlogy(weights, weights))
    )
    slack = distance_error(query, support, top)
    runner_up, left_out = exponents.new_full((size,), -torch.inf), torch.log(found.omitted / len(support))
    runner_up = runner_up.scatter_reduce(0, rows, gap, "amax")
    alone = runner_up + 2 * slack < left_out  # whatever rounding did, the others weigh less than what was left out
    slack, omitted = slack.masked_fill(alone, 0.0), torch.where(alone, 2.0, 1.0) * found.omitted
    omitted = omitted + torch.where(alone, 0.0, torch.exp(torch.clamp(2 * slack - 700, max=0.0)))  # of underflow
    runner_up = torch.maximum(runner_up, left_out)
    normaliser, top_index = 1 + mass, points[top_pair[index]]
    offset = _offsets(support, query, found, weights, points[top_pair.clamp_max(len(points) - 1)])
    offset = offset / normaliser[:, None]
    log_kernel = top + torch.log(normaliser) + prior_level(query, support)
    columns = (normaliser, top, 1 + squares, surprise, log_kernel, runner_up, mass * math.nan, slack, omitted)
    normaliser, top, squares, surprise, log_kernel, runner_up, power, slack, omitted = (part[index] for part in columns)
    way = torch.full_like(top_index, int(Way.CANDIDATES))
    return Moments(
        top_index, offset[index].to(query.x.dtype), normaliser, top, way, squares, surprise, log_kernel, runner_up,
        power, slack, omitted,
    )  # fmt: skip


def _pieces(support: Support, rows: Tensor, points: Tensor) -> list[tuple[Tensor, Tensor]]:
    step = max(1, (16 * 2**20) // (8 * support.dim))
    return list(zip(rows.split(step), points.split(step), strict=True))


def _offsets(support: Support, query: Query, found: Candidates, weights: Tensor, top: Tensor) -> Tensor:
    """Weighted sums of the candidates' offsets from the top point of each row, float64 ``(B, d)``."""
    total = weights.new_zeros((len(query.x), support.dim))
    heavy = torch.nonzero(weights > 0).flatten()
    for rows, pairs in zip(*(part.split(1024) for part in (found.rows[heavy], heavy)), strict=True):
        apart = support.values(found.points[pairs], torch.float64) - support.values(top[rows], torch.float64)
        total.index_add_(0, rows, weights[pairs, None] * apart)
    return total
