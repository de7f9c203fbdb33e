r"""Nearest neighbours, exact and by tiles, and the ratio that tells copies from new samples.

Products find the rows that can be near (:mod:`~fluvial.metrics.candidates`), with a proven bound on their rounding and
about the mean of the reference, so that an offset of the data costs no digits. The distances of these are norms of
differences in float64, because for near-duplicates a product form subtracts nearly equal numbers. Equal rows of the
reference are searched once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.candidates import Chunk, Frame
from fluvial.metrics.distinct import DistinctRows, distinct_rows
from fluvial.metrics.matrix import TILE_BYTES, Samples, as_pair
from fluvial.progress import Progress, ProgressCallback

_MOST_ROWS = 2**16  # of the reference, whose products with a block of queries are held at once


@dataclass(frozen=True)
class Neighbours:
    """Nearest reference point of every query.

    Args:
        distance: Euclidean distance, shape (n,), float64, in the units of the data.
        index: Its row in the reference, shape (n,), int64.

    Example:
        >>> Neighbours(torch.tensor([0.5]), torch.tensor([3])).index
        tensor([3])
    """

    distance: Float[Tensor, " n"]
    index: Int[Tensor, " n"]


@dataclass(frozen=True)
class KNearest:
    """The k nearest reference points of every query, the nearest first.

    Args:
        distances: Euclidean distances, ascending, shape (n, k), float64, in the units of the data.
        indices: Their rows in the reference, shape (n, k), int64.

    Example:
        >>> KNearest(torch.tensor([[0.5, 2.0]]), torch.tensor([[3, 0]])).indices
        tensor([[3, 0]])
    """

    distances: Float[Tensor, "n k"]
    indices: Int[Tensor, "n k"]


@checked
def k_nearest(
    queries: Samples,
    reference: Samples,
    k: int,
    *,
    exclude_self: bool = False,
    progress: ProgressCallback | None = None,
) -> KNearest:
    """The k nearest neighbours of every query in Euclidean distance, exactly; the whole matrix is never formed.

    Among equally near rows the order is fixed, and the first is the one that appears first in the reference.

    Args:
        queries: Shape (n, ...); rows are flattened.
        reference: Shape (m, ...).
        k: Neighbours per query, at most m, or m - 1 with ``exclude_self``.
        exclude_self: The queries are the reference, row by row: row i is not its own neighbour.
        progress: Called after every block of queries.

    Returns:
        Distances and indices per query, on the queries' device.

    Raises:
        TypeError: If a set holds no floating point numbers.
        ValueError: If a set is empty or not finite, the numbers of features differ, ``k`` is out of range, or
            ``exclude_self`` comes with sets of different numbers of rows, or of a single row.

    Example:
        >>> from fluvial.metrics.neighbours import k_nearest
        >>> k_nearest(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0], [3.0]]), 2).indices
        tensor([[1, 0]])
    """
    points, others = as_pair(queries, reference, ("queries", "reference"))
    if exclude_self and (len(points) != len(others) or len(others) < 2):
        raise ValueError(
            "exclude_self needs queries and reference to be the same rows, at least 2: "
            f"got {len(points)} queries and {len(others)} reference rows"
        )
    most = len(others) - exclude_self
    if not 1 <= k <= most:
        own = " without the query itself" if exclude_self else ""
        raise ValueError(f"k must be in [1, {most}], as reference has {most} rows{own}, got {k}")
    groups = distinct_rows(others)
    if len(groups.first) == len(others):
        return _search(points, others, k, exclude_self, progress)
    unique = others[groups.first.to(others.device)]
    if exclude_self:
        found = _among_others(unique, min(k, len(unique) - 1), progress)
        inverse = groups.inverse.to(others.device)
        return _with_equals(KNearest(found.distances[inverse], found.indices[inverse]), groups, k, leave_out=True)
    return _with_equals(_search(points, unique, min(k, len(unique)), False, progress), groups, k, leave_out=False)


@checked
def nearest_neighbours(queries: Samples, reference: Samples, *, exclude_self: bool = False) -> Neighbours:
    """Nearest neighbour of every query in Euclidean distance; :func:`k_nearest` with one neighbour.

    Args:
        queries: Shape (n, ...); rows are flattened.
        reference: Shape (m, ...).
        exclude_self: The queries are the reference, row by row: row i is not its own neighbour.

    Returns:
        Distance and index per query, on the queries' device; of equally near points the first.

    Raises:
        ValueError: If a set is empty or not finite, the numbers of features differ, or ``exclude_self`` comes
            with sets of different numbers of rows, or of a single row.

    Example:
        >>> fv.metrics.nearest_neighbours(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0]])).index
        tensor([1])
    """
    found = k_nearest(queries, reference, 1, exclude_self=exclude_self)
    return Neighbours(found.distances[:, 0], found.indices[:, 0])


def _search(
    points: Float[Tensor, "n d"],
    others: Float[Tensor, "m d"],
    k: int,
    exclude_self: bool,
    progress: ProgressCallback | None,
) -> KNearest:
    """The k nearest of distinct ``others``, chunk by chunk of them and block by block of the queries."""
    frame = Frame.of(points, others)
    distances = torch.full((len(points), k), torch.inf, dtype=torch.float64, device=points.device)
    indices = torch.full((len(points), k), -1, dtype=torch.int64, device=points.device)
    rows = max(1, min(_MOST_ROWS, 4 * TILE_BYTES // (4 * points.shape[1])))
    size = max(1, TILE_BYTES // (8 * min(rows, len(others))))
    chunks, blocks = range(0, len(others), rows), range(0, len(points), size)
    for number, start in enumerate(chunks):
        chunk = Chunk(others[start : start + rows], start, k, frame)
        for first in blocks:
            block = slice(first, min(first + size, len(points)))
            queries = points[block]
            own = torch.arange(block.start, block.stop, device=points.device) if exclude_self else None
            query, row = chunk.candidates(queries, own, k, distances[block, -1])
            away = _distances(queries, others, query, row)
            distances[block], indices[block] = _merge(distances[block], indices[block], query, row, away)
            if progress is not None:
                done = number * len(points) + block.stop
                progress(Progress("nearest neighbours", done, len(chunks) * len(points)))
    return KNearest(distances, indices)


def _among_others(rows: Float[Tensor, "u d"], k: int, progress: ProgressCallback | None) -> KNearest:
    """Every distinct row itself, at distance 0, and its k nearest among the others."""
    own = torch.arange(len(rows), device=rows.device)[:, None]
    zero = torch.zeros(len(rows), 1, dtype=torch.float64, device=rows.device)
    if k == 0:
        return KNearest(zero, own)
    found = _search(rows, rows, k, True, progress)
    return KNearest(torch.cat([zero, found.distances], 1), torch.cat([own, found.indices], 1))


def _distances(
    queries: Float[Tensor, "q d"], others: Float[Tensor, "m d"], query: Int[Tensor, " p"], row: Int[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """Norms of the differences of pairs, in float64."""
    step = max(1, TILE_BYTES // (32 * queries.shape[1]))
    parts = zip(query.split(step), row.split(step), strict=True)
    norms = [torch.linalg.vector_norm(queries[a].double() - others[b].double(), dim=1) for a, b in parts]
    return torch.cat(norms) if norms else torch.empty(0, dtype=torch.float64, device=queries.device)


def _merge(
    distances: Float[Tensor, "q k"],
    indices: Int[Tensor, "q k"],
    query: Int[Tensor, " p"],
    row: Int[Tensor, " p"],
    away: Float[Tensor, " p"],
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k nearest of those known so far and of new pairs; of equally near ones those with the smallest index."""
    size, k = distances.shape
    query = torch.cat([torch.arange(size, device=query.device).repeat_interleave(k), query])
    row, away = torch.cat([indices.flatten(), row]), torch.cat([distances.flatten(), away])
    order = torch.argsort(row, stable=True)
    order = order[torch.argsort(away[order], stable=True)]
    order = order[torch.argsort(query[order], stable=True)]
    counts = torch.bincount(query, minlength=size)
    first = torch.cumsum(counts, 0) - counts
    best = order[first[:, None] + torch.arange(k, device=order.device)]
    return away[best], row[best]


def _with_equals(found: KNearest, groups: DistinctRows, k: int, *, leave_out: bool) -> KNearest:
    """Neighbours among all rows, from those among the distinct ones: each stands for all rows that equal it."""
    device = found.indices.device
    inverse, counts = groups.inverse.to(device), groups.counts.to(device)
    members = torch.argsort(inverse, stable=True)
    start = torch.cumsum(counts, 0) - counts
    sizes = counts[found.indices]
    if leave_out:  # the first group is the query's own, of which the query is no neighbour
        sizes[:, 0] -= 1
    ends = torch.cumsum(sizes, 1)
    place = torch.arange(k, device=device).expand(len(sizes), k).contiguous()
    which = torch.searchsorted(ends, place, right=True)
    offset = place - (ends - sizes).gather(1, which)
    group = found.indices.gather(1, which)
    if leave_out:
        rank = torch.empty_like(inverse)
        rank[members] = torch.arange(len(inverse), device=device) - start[inverse[members]]
        offset += (which == 0) & (offset >= rank[:, None])
    return KNearest(found.distances.gather(1, which), members[start[group] + offset])


@checked
def nearest_neighbour_ratio(samples: Samples, train: Samples, held_out: Samples) -> float:
    """Mean distance of the samples to their nearest training datum, over that of the held-out data.

    About 1 where samples are as far from the training data as fresh data are; about 0 where they are copies.

    Args:
        samples: Generated samples, shape (n, ...).
        train: Training data, shape (N, ...).
        held_out: Data of the same source that were not trained on, shape (m, ...).

    Returns:
        The ratio, >= 0, without unit.

    Raises:
        ValueError: If a set is empty or not finite, the numbers of features differ, or every held-out datum
            is also a training datum.

    Source:
        Bertrand et al. 2025, "On the Closed-Form of Flow Matching", figure 2 (distance to the training set).

    Example:
        >>> train, held_out = torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [3.0]])
        >>> fv.metrics.nearest_neighbour_ratio(torch.tensor([[0.5]]), train, held_out)
        0.5
    """
    points, _ = as_pair(samples, train, ("samples", "train"))
    fresh, known = as_pair(held_out, train, ("held_out", "train"))
    reference = float(nearest_neighbours(fresh, known).distance.mean())
    if reference == 0:
        raise ValueError("held_out must differ from train: every held-out row is also a training row")
    return float(nearest_neighbours(points, known).distance.mean()) / reference
