r"""Duplicates inside a data set: rows equal in every bit, and rows so close together that they may be one datum.

Near-duplicates are pairs nearer to each other than a stated fraction of the median distance to the nearest neighbour
(taken over distinct rows), and whatever such pairs connect. Where more than half of the rows have a near-duplicate,
the median is itself a distance between near-duplicates, and they are no longer told apart.

Where data are dense, fresh ones come as close as that too. A group of near-duplicates counts as one datum only if it
stands apart: if it is small, and its members are linked by less than a third of its distance to all other rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.distinct import DistinctRows, distinct_rows
from fluvial.metrics.matrix import Samples, as_matrix
from fluvial.metrics.neighbours import KNearest, k_nearest
from fluvial.progress import ProgressCallback

NEAR = 0.1
"""Near-duplicates are closer than this fraction of the median nearest-neighbour distance, unless asked otherwise."""
APART = 1 / 3
"""Links inside a group that stands apart are shorter than this fraction of its distance to other rows."""
LARGEST = 10
"""A larger group is a cluster of data, not one datum."""


@dataclass(frozen=True)
class Duplicates:
    """The groups of equal and of nearly equal rows, and the neighbours of the data without them.

    Args:
        distinct: Groups of equal rows.
        near: For every distinct row, which group of near-duplicates it belongs to, shape (u,).
        group: The same for groups that stand apart, whose members count as one datum, shape (u,).
        kept: For every such datum, the distinct row that stands for it (its first), shape (g,), increasing.
        neighbours: For every datum, its two nearest other ones, as numbers of data, shape (g, 2).
        nearest: Distance of every distinct row to its nearest other distinct row, shape (u,).
        threshold: Distance below which two rows are near-duplicates, in units of the data.

    Example:
        >>> found = find_duplicates(torch.tensor([[0.0], [1.0], [1.0], [3.0], [3.01], [5.0]]))
        >>> found.equal_rows, found.near_rows, found.groups()
        (1, 1, ([1, 2], [3, 4]))
    """

    distinct: DistinctRows
    near: Int[Tensor, " u"]
    group: Int[Tensor, " u"]
    kept: Int[Tensor, " g"]
    neighbours: KNearest
    nearest: Float[Tensor, " u"]
    threshold: float

    @property
    def equal_rows(self) -> int:
        """Rows that repeat an earlier one bit by bit."""
        return len(self.distinct.inverse) - len(self.distinct.first)

    @property
    def near_rows(self) -> int:
        """Distinct rows that nearly repeat an earlier one."""
        return len(self.near) - int(self.near.max()) - 1

    @property
    def merged_rows(self) -> int:
        """Those of them whose group stands apart, so that they count as one datum."""
        return len(self.group) - len(self.kept)

    def groups(self, most: int | None = None) -> tuple[list[int], ...]:
        """Rows of the data that are equal or nearly so, the largest groups first, at most ``most`` of them."""
        label = self.near[self.distinct.inverse]
        sizes = torch.bincount(label)
        order = torch.argsort(sizes, descending=True, stable=True)
        several = order[sizes[order] > 1][:most]
        return tuple(torch.nonzero(label == number).flatten().tolist() for number in several)


@checked
def find_duplicates(
    x: Samples, *, near: float = NEAR, name: str = "x", progress: ProgressCallback | None = None
) -> Duplicates:
    """Equal and nearly equal rows of a data set, with the nearest neighbours of what is left.

    Args:
        x: Data, shape (N, ...), of which at least 4 rows differ.
        near: Fraction of the median nearest-neighbour distance below which two rows are near-duplicates, in [0, 1).
        name: The argument's name, for the errors.
        progress: Called while the neighbours are searched.

    Returns:
        The groups; tensors are on the CPU.

    Raises:
        TypeError: If ``x`` is no floating tensor or array.
        ValueError: If fewer than 4 rows differ, a value is not finite, or ``near`` is out of range.

    Example:
        >>> from fluvial.metrics.duplicates import find_duplicates
        >>> find_duplicates(torch.tensor([[0.0], [1.0], [1.0], [3.0], [9.0]])).groups()
        ([1, 2],)
    """
    if not 0 <= near < 1:
        raise ValueError(f"near must be in [0, 1), got {near}")
    rows = as_matrix(x, name)
    distinct = distinct_rows(rows)
    if len(distinct.first) < 4:
        raise ValueError(f"{name} must have at least 4 distinct rows, got {len(distinct.first)} among {len(rows)}")
    if distinct.first.shape != distinct.inverse.shape:
        rows = rows[distinct.first.to(rows.device)]
    found = k_nearest(rows, rows, 2, exclude_self=True, progress=progress)
    near_by = KNearest(found.distances.cpu(), found.indices.cpu())
    nearest = near_by.distances[:, 0]
    threshold = near * float(nearest.median())
    labels, kept, among = _grown(rows, near_by, threshold)
    apart = (_widest(labels, nearest) < APART * among.distances[:, 0]) & (torch.bincount(labels) <= LARGEST)
    single = torch.arange(len(rows)) + len(kept)
    group, merged = _numbered(torch.where(apart[labels], labels, single))
    return Duplicates(distinct, labels, group, merged, _among(rows, merged, merged, group, near_by), nearest, threshold)


def _grown(
    rows: Float[Tensor, "u d"], near_by: KNearest, threshold: float
) -> tuple[Int[Tensor, " u"], Int[Tensor, " g"], KNearest]:
    """Groups of near-duplicates, the row that stands for each, and the neighbours among these."""
    labels = kept = torch.arange(len(rows))
    # two neighbours of each may not connect a large group at once; at least half of the rows stay, as the median says
    while bool((near_by.distances < threshold).any()):
        joined, first = _numbered(_joined(near_by, threshold))
        labels, kept = joined[labels], kept[first]
        near_by = _among(rows, kept, first, joined, near_by)
    return labels, kept, near_by


def _numbered(labels: Int[Tensor, " u"]) -> tuple[Int[Tensor, " u"], Int[Tensor, " g"]]:
    """Labels numbered in the order of their first appearance, and where each appears first."""
    _, inverse = torch.unique(labels, return_inverse=True)
    size = int(inverse.max()) + 1
    first = torch.full((size,), len(labels)).scatter_reduce(0, inverse, torch.arange(len(labels)), "amin")
    order = torch.argsort(first)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(size)
    return rank[inverse], first[order]


def _widest(labels: Int[Tensor, " u"], nearest: Float[Tensor, " u"]) -> Float[Tensor, " g"]:
    """Largest nearest-neighbour distance inside every group."""
    size = int(labels.max()) + 1
    return torch.zeros(size, dtype=nearest.dtype).scatter_reduce(0, labels, nearest, "amax")


def _joined(found: KNearest, threshold: float) -> Int[Tensor, " g"]:
    """For every row the component it belongs to, where pairs below the threshold are joined."""
    row, place = torch.nonzero(found.distances < threshold, as_tuple=True)
    size = len(found.distances)
    pairs = (np.ones(len(row)), (row.numpy(), found.indices[row, place].numpy()))
    _, labels = connected_components(coo_matrix(pairs, shape=(size, size)), directed=False)
    return torch.from_numpy(labels.astype(np.int64))


def _among(
    rows: Float[Tensor, "u d"],
    kept: Int[Tensor, " g"],
    first: Int[Tensor, " g"],
    joined: Int[Tensor, " h"],
    before: KNearest,
) -> KNearest:
    """Two nearest neighbours among the kept rows; searched again only where one of them was left out.

    Args:
        rows: All distinct rows.
        kept: Those that are kept now, among all distinct rows.
        first: The same, among those that were kept before.
        joined: For each that was kept before, its group now.
        before: Neighbours among those that were kept before.
    """
    stays = torch.zeros(len(joined), dtype=torch.bool)
    stays[first] = True
    indices, distances = before.indices[first], before.distances[first]
    again = torch.nonzero(~stays[indices].all(1)).flatten()
    indices, distances = joined[indices], distances.clone()
    if len(again):
        points, others = rows[kept[again].to(rows.device)], rows[kept.to(rows.device)]
        found = k_nearest(points, others, 3)  # the first is the row itself, at distance 0: all rows differ
        distances[again], indices[again] = found.distances[:, 1:].cpu(), found.indices[:, 1:].cpu()
    return KNearest(distances, indices)
