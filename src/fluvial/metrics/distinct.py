"""Rows that are equal in every bit, found by their digests."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from fluvial.metrics.matrix import TILE_BYTES, Samples, as_matrix, tiles


@dataclass(frozen=True)
class DistinctRows:
    """A set of rows as its distinct ones, in the order of their first appearance.

    Args:
        first: Row at which each distinct one appears first, increasing, shape (u,), int64.
        inverse: For every row, which of the distinct ones it equals, shape (n,), int64.

    Example:
        >>> found = DistinctRows(torch.tensor([0, 2]), torch.tensor([0, 0, 1]))
        >>> found.counts
        tensor([2, 1])
    """

    first: Int[Tensor, " u"]
    inverse: Int[Tensor, " n"]

    @property
    def counts(self) -> Int[Tensor, " u"]:
        """How often each distinct row appears, shape (u,)."""
        return torch.bincount(self.inverse, minlength=len(self.first))


def distinct_rows(x: Samples) -> DistinctRows:
    """The distinct rows of ``x``; equality is that of floating point numbers, so that 0 and -0 are equal.

    Args:
        x: Shape (n, ...); rows are flattened.

    Returns:
        The first appearances and, for every row, the distinct row that it equals; on the CPU.

    Raises:
        TypeError: If ``x`` is no floating tensor or array.
        ValueError: If it is empty or not finite.

    Example:
        >>> from fluvial.metrics.distinct import distinct_rows
        >>> distinct_rows(torch.tensor([[1.0], [5.0], [1.0]])).inverse
        tensor([0, 1, 0])
    """
    rows = as_matrix(x, "x")
    seen: dict[bytes, int] = {}
    first: list[int] = []
    inverse: list[int] = []
    for tile in tiles(len(rows), rows.shape[1], TILE_BYTES // 2):
        # adding 0 turns -0 into 0; 128 bits of a digest meet by chance with probability n^2 / 2^129
        raw = (rows[tile] + 0.0).contiguous().view(torch.uint8).cpu().numpy()
        for number, row in enumerate(raw, start=tile.start):
            digest = hashlib.blake2b(row, digest_size=16).digest()
            group = seen.setdefault(digest, len(first))
            if group == len(first):
                first.append(number)
            inverse.append(group)
    return DistinctRows(torch.tensor(first), torch.tensor(inverse))
