"""Which way of computing serves which rows.

In order, each for the rows that the one before left open:

1. screening (:mod:`~fluvial.smoothing.screening`), with many points, where a probe finds that few of them can matter:
   from cheap products with ``tol > 0``, from products in the rows' own type without;
2. in few dimensions on the CPU, where the mean alone is wanted, fused attention
   (:mod:`~fluvial.smoothing.attention`); otherwise two products (:mod:`~fluvial.smoothing.dense`) in the rows' own
   type;
3. screening in the rows' own type, of what :mod:`~fluvial.smoothing.rounding` finds unsettled, unless a probe said that
   many points matter;
4. two products in float64, then distances in float64: for what is left.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fluvial.smoothing import attention
from fluvial.smoothing.affinities import Precision, coarse_precision
from fluvial.smoothing.candidates import MOST, NARROWER, allowance
from fluvial.smoothing.dense import dense_moments
from fluvial.smoothing.query import Effort, Moments, Query, Way, nothing, row_blocks, stacked
from fluvial.smoothing.rounding import settled
from fluvial.smoothing.screening import WORTHWHILE, narrowed_moments, screened_moments
from fluvial.smoothing.support import Support

# Copies of a block of rows that may be there at once, with what each way needs besides.
_COPIES = 24
# Screening pays from here on, and screening in fewer bits.
_MANY_POINTS = 2048
_MANY_DIMENSIONS = 256

Stage = Callable[[Query], tuple[Moments, Tensor]]


def moments(support: Support, query: Query, effort: Effort | None = None, *, stats: bool = True) -> Moments:
    """Softmax sums of every row over the support, in the units of its values.

    Args:
        support: The points.
        query: The rows.
        effort: Tolerance and memory.
        stats: Whether the statistics are wanted too, or the mean alone.

    Example:
        >>> support = Support(torch.tensor([[0.0], [2.0]]))
        >>> half = torch.full((1,), 0.5, dtype=torch.float64)
        >>> found = moments(support, Query(torch.tensor([[0.5]]), half, half))
        >>> (support.data(found.top_index, torch.float32) + found.offset).item()
        1.0
    """
    effort = Effort() if effort is None else effort
    if not len(query.x):
        return nothing(query)
    bytes_per_row = _COPIES * query.x.element_size() * support.dim
    blocks = row_blocks(len(query.x), bytes_per_row, effort.memory)
    if len(blocks) == 1:
        return _block_moments(support, query, effort, stats)
    whole: Moments | None = None
    for block in blocks:
        part = _block_moments(support, query.rows(block), effort, stats)
        whole = part.room(len(query.x)) if whole is None else whole
        for column, piece in zip(whole.parts(), part.parts(), strict=True):
            column[block] = piece
    assert whole is not None
    return whole


def _block_moments(support: Support, query: Query, effort: Effort, stats: bool) -> Moments:
    """Moments of rows that fit the memory together."""
    query = query.in_values(support)
    pieces: list[Moments] = []
    order: list[Tensor] = []
    left = torch.arange(len(query.x), device=query.x.device)
    for chosen, stage in _stages(support, query, effort, stats):
        index = left if chosen is None else left[chosen[left]]
        if not len(index):
            continue
        found, done = stage(query if len(index) == len(query.x) else query.rows(index))
        if not bool(done.all()):
            found = found.rows(done) if len(found.top_index) == len(done) else found
        pieces, order = [*pieces, found], [*order, index[done]]
        left = left[torch.isin(left, order[-1], invert=True)] if len(order[-1]) < len(left) else left[:0]
        if not len(left):
            break
    whole = stacked([piece for piece in pieces if len(piece.top_index)])
    return whole if len(order[-1]) == len(query.x) else whole.rows(torch.argsort(torch.cat(order)))


def _stages(support: Support, query: Query, effort: Effort, stats: bool) -> list[tuple[Tensor | None, Stage]]:
    """Stages, each with the rows that it is meant for, bool ``(B,)``; None for all."""

    def screened(precision: Precision) -> Stage:
        return lambda rows: screened_moments(support, rows, effort, precision)

    def dense(way: Way) -> Stage:
        def stage(rows: Query) -> tuple[Moments, Tensor]:
            found = dense_moments(way, support, rows, effort, stats=stats)
            return found, settled(support, rows, found, way)

        return stage

    def narrowed(rows: Query) -> tuple[Moments, Tensor]:
        return narrowed_moments(support, rows, effort, stats=stats)

    def head(rows: Query) -> tuple[Moments, Tensor]:
        found = attention.attention_moments(support, rows)
        return found, settled(support, rows, found, Way.PRODUCT)

    many = len(support) >= _MANY_POINTS
    approximate = many and effort.tol > 0 and support.dim >= _MANY_DIMENSIONS
    stages: list[tuple[Tensor | None, Stage]] = []
    if many:
        precision = coarse_precision(support, query) if approximate else Precision.NATIVE
        few, part, precise = _prospects(support, query, effort, precision)
        stages.append((few, screened(precise)))
        if approximate and support.in_memory:
            stages.append((part, narrowed))
    stages.append((None, head if not stats and attention.suits(support, query, effort) else dense(Way.PRODUCT)))
    # Rows that will not have few candidates get float64 at once.
    stages.append((few if many else None, screened(Precision.NATIVE)))
    if query.x.dtype == torch.float32:
        stages.append((None, dense(Way.PRODUCT_FLOAT64)))
    return [*stages, (None, dense(Way.DISTANCE))]


def _prospects(
    support: Support, query: Query, effort: Effort, precision: Precision
) -> tuple[Tensor, Tensor, Precision]:
    """Rows that will probably have few candidates, rows that together will probably need a part of the points, and
    the precision in which the former show."""
    bandwidth = query.sigma / query.alpha
    if bool((bandwidth == bandwidth[0]).all()):  # as in a solver: one answer for all
        bandwidth = bandwidth[:1]
    margin = float(torch.log(len(support) / allowance(support, query, effort)).median())

    def few(margin: float) -> Tensor:
        # Most of the rows have few, not half of them: a screening pass for the others is lost.
        return support.probe.shares(bandwidth, margin)[0] * len(support) <= MOST / 2

    found = few(margin)
    if precision == Precision.INT8_COARSE and not bool(few(margin + _blur(support, query))[found].all()):
        precision = Precision.INT8
    _, needed = support.probe.shares(bandwidth, margin - NARROWER[0])
    together = 1 - torch.exp(len(query.x) * torch.log1p(-needed.clamp_max(1 - 1e-9)))
    return found.expand(len(query.x)), (together < WORTHWHILE).expand(len(query.x)), precision


def _blur(support: Support, query: Query) -> float:
    """By how many nats the rounding of rows to one digit widens the usual margin."""
    residue = 0.3 * math.sqrt(support.dim) * query.x.abs().amax(1).double() / 127
    return float((2 * query.gain * residue * support.reach).median())
