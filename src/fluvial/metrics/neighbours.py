r"""Nearest neighbours by tiles, and the ratio that tells copies from new samples.

Candidates come from the product form :math:`|q - r|^2 = |q|^2 + |r|^2 - 2 q \cdot r`, in float64 and about
the mean of the reference so that an offset of the data costs no digits. Their distances are then recomputed
directly, because for near-duplicates the product form subtracts nearly equal numbers. Among more than four points
whose squared distances differ by less than about 1e-15 of the squared size of the data, any one may be returned.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.metrics.matrix import TILE_BYTES, Samples, as_pair, tiles

CANDIDATES = 4  # kept per query by the product form, then ranked by their direct distances


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


def nearest_neighbours(queries: Samples, reference: Samples, *, exclude_self: bool = False) -> Neighbours:
    """Nearest neighbour of every query in Euclidean distance; the whole matrix is never formed.

    Args:
        queries: Shape (n, ...); rows are flattened.
        reference: Shape (m, ...).
        exclude_self: The queries are the reference, row by row: row i is not its own neighbour.

    Returns:
        Distance and index per query, on the queries' device. Among equally near points any one is returned.

    Raises:
        ValueError: If a set is empty or not finite, the numbers of features differ, or ``exclude_self`` comes
            with sets of different numbers of rows, or of a single row.

    Example:
        >>> fv.metrics.nearest_neighbours(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0]])).index
        tensor([1])
    """
    points, others = as_pair(queries, reference, ("queries", "reference"))
    if exclude_self and (len(points) != len(others) or len(others) < 2):
        raise ValueError(
            "exclude_self needs queries and reference to be the same rows, at least 2: "
            f"got {len(points)} queries and {len(others)} reference rows"
        )
    distance = torch.empty(len(points), dtype=torch.float64, device=points.device)
    index = torch.empty(len(points), dtype=torch.int64, device=points.device)
    mean = others.mean(0, dtype=torch.float64)
    width = max(points.shape[1], 1024)
    for tile in tiles(len(points), width, TILE_BYTES // 4):
        candidates = _candidates(points, others, mean, tile, exclude_self)
        distance[tile], index[tile] = _rank(points[tile].double(), others, candidates)
    return Neighbours(distance, index)


def _candidates(
    points: Float[Tensor, "n d"],
    others: Float[Tensor, "m d"],
    mean: Float[Tensor, " d"],
    tile: slice,
    exclude_self: bool,
) -> Int[Tensor, "q k"]:
    """Rows of ``others`` that are nearest to ``points[tile]`` by the product form."""
    queries = points[tile].double() - mean
    keep = min(CANDIDATES, len(others) - exclude_self)
    best = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for part in tiles(len(others), max(len(queries), others.shape[1]), TILE_BYTES // 2):
        block = others[part].double() - mean
        # |q|^2 is the same for all candidates of a query
        square = torch.addmm(block.square().sum(1), queries, block.mT, alpha=-2)
        if exclude_self:
            _hide_self(square, tile.start, part.start)
        values, columns = square.topk(min(keep, len(block)), largest=False, sorted=False)
        best, index = torch.cat([best, values], 1), torch.cat([index, columns + part.start], 1)
        if best.shape[1] > keep:
            best, chosen = best.topk(keep, largest=False, sorted=False)
            index = index.gather(1, chosen)
    return index


def _hide_self(square: Float[Tensor, "q r"], row: int, column: int) -> None:
    """Put infinity where a tile that starts at (row, column) meets the diagonal of the whole matrix."""
    start, stop = max(row, column), min(row + square.shape[0], column + square.shape[1])
    if start < stop:
        own = torch.arange(start, stop, device=square.device)
        square[own - row, own - column] = torch.inf


def _rank(
    queries: Float[Tensor, "q d"], others: Float[Tensor, "m d"], candidates: Int[Tensor, "q k"]
) -> tuple[Float[Tensor, " q"], Int[Tensor, " q"]]:
    """Distance and row of the nearest candidate, by the norm of the difference itself."""
    norms = [(queries - others[column].double()).norm(dim=1) for column in candidates.unbind(1)]
    distance, which = torch.stack(norms, 1).min(1)
    return distance, candidates.gather(1, which[:, None])[:, 0]


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
