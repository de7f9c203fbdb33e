"""A shuffled order for data that are cheap to read in chunks only, such as the row groups of Parquet files.

Each epoch permutes the chunks, takes ``pool`` of them at a time and shuffles all rows of such a pool. So a batch mixes
several chunks, no more than a pool (two where one ends) needs to be in memory, and where a step reads follows from the
seed and the step alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from fluvial.randomness import generator

POOL = 8
"""Chunks whose rows are shuffled together, and that are kept in memory."""

_CHUNKS, _ROWS = 6, 7  # third counters of the streams; 1 to 5 are those of training


class ChunkedOrder:
    """Indices of the batches of a shuffled, endless pass over data in chunks; each epoch visits each datum once.

    Args:
        chunks: Number of data in each chunk, in order, such as ``Dataset.chunks``.
        batch_size: Data per step.
        seed: Seed of every permutation.
        pool: Chunks that are shuffled together.

    Raises:
        ValueError: If there is no datum, or a number is not positive.

    Example:
        >>> order = ChunkedOrder([3, 2], 2, seed=0)
        >>> sorted(torch.cat([order.batch(step) for step in range(5)]).tolist())
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """

    def __init__(self, chunks: Sequence[int], batch_size: int, seed: int, pool: int = POOL) -> None:
        self._sizes = np.asarray(chunks, dtype=np.int64)
        if not len(self._sizes) or self._sizes.min() < 1:
            raise ValueError(f"chunks must be one or more positive numbers, got {list(chunks)[:8]}")
        if batch_size < 1 or pool < 1:
            raise ValueError(f"batch_size and pool must be at least 1, got {batch_size} and {pool}")
        self.count, self.batch_size, self.seed, self.pool = int(self._sizes.sum()), batch_size, seed, pool
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None
        self._last: tuple[tuple[int, int], Tensor] | None = None  # the pool that the next batch most likely starts in

    def batch(self, step: int) -> Int64[Tensor, "B"]:
        """Indices of step ``step`` (from 0)."""
        return self.positions(step * self.batch_size, self.batch_size)

    def positions(self, start: int, count: int) -> Int64[Tensor, "B"]:
        """Elements ``start`` to ``start + count`` of the endless sequence of indices."""
        parts = []
        while count:
            epoch, place = divmod(start, self.count)
            _, ends = self._permuted(epoch)
            number = int(np.searchsorted(ends, place, side="right"))
            first = int(ends[number - 1]) if number else 0
            part = self._shuffled(epoch, number)[place - first : place - first + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def _permuted(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The chunks in the epoch's order, and the position where each of its pools ends."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = torch.randperm(len(self._sizes), generator=generator(self.seed, epoch, 0, _CHUNKS)).numpy()
            ends = np.cumsum(self._sizes[order])
            last = [*range(self.pool - 1, len(order) - 1, self.pool), len(order) - 1]
            self._epoch = epoch, order, ends[last]
        return self._epoch[1], self._epoch[2]

    def _shuffled(self, epoch: int, number: int) -> Int64[Tensor, "n"]:
        """All indices of one pool of an epoch, shuffled."""
        if self._last is None or self._last[0] != (epoch, number):
            chosen = self._permuted(epoch)[0][number * self.pool : (number + 1) * self.pool]
            rows = np.concatenate([np.arange(self._starts[c], self._starts[c] + self._sizes[c]) for c in chosen])
            order = torch.randperm(len(rows), generator=generator(self.seed, epoch, number, _ROWS))
            self._last = (epoch, number), torch.from_numpy(rows)[order]
        return self._last[1]
