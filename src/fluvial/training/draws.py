"""Data order and random streams as functions of the seed and the step: no state to save, nothing to restore.

Position ``p = step * batch_size + i`` of the endless sequence of data is element ``p mod N`` of the
permutation of epoch ``p // N``, so batches run across epochs and are never ragged. A third counter separates the
streams of epochs, weights and dropout from one another; those of the steps have two.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor

from fluvial.data import Dataset
from fluvial.data.order import ChunkedOrder
from fluvial.randomness import RowGenerator, generator
from fluvial.ranks import Ranks
from fluvial.training.config import TrainConfig

_EPOCH, _WEIGHTS, _DROPOUT = 1, 2, 3


class DataOrder:
    """Indices of the batches of a shuffled, endless pass over ``count`` data.

    Args:
        count: Number of data, N.
        batch_size: Data per step.
        seed: Seed of the permutations.

    Example:
        >>> order = DataOrder(5, 2, seed=0)
        >>> sorted(torch.cat([order.batch(step) for step in range(5)]).tolist())
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._last: tuple[int, Tensor] | None = None  # the epoch that the next batch most likely starts in

    def batch(self, step: int) -> Int[Tensor, "B"]:
        """Indices of step ``step`` (from 0)."""
        indices = torch.empty(self.batch_size, dtype=torch.int64)
        epoch, start = divmod(step * self.batch_size, self.count)
        filled = 0
        while filled < self.batch_size:
            part = self._permutation(epoch)[start : start + self.batch_size - filled]
            indices[filled : filled + len(part)] = part
            filled, epoch, start = filled + len(part), epoch + 1, 0
        return indices

    def _permutation(self, epoch: int) -> Int[Tensor, "N"]:
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, torch.randperm(self.count, generator=generator(self.seed, epoch, 0, _EPOCH))
        return self._last[1]


def data_order(train: Dataset, config: TrainConfig) -> DataOrder | ChunkedOrder:
    """The order that training data are visited in: that of their chunks, where they can only be read so."""
    if train.chunks is None:
        return DataOrder(len(train), config.batch_size, config.seed)
    return ChunkedOrder(train.chunks, config.batch_size, config.seed)


def step_generator(seed: int, step: int) -> torch.Generator:
    """CPU generator of every draw of one step: dropped labels, noise, times, bank."""
    return generator(seed, step, 0)


def row_generator(seed: int, step: int, total: int, ranks: Ranks) -> RowGenerator:
    """The same where the rows of a batch, ``total`` in all, are dealt to several processes.

    In one process and up to 1024 rows it is :func:`step_generator`'s stream.
    """
    return RowGenerator(seed, step, total, ranks)


@contextmanager
def weights_stream(seed: int) -> Iterator[None]:
    """Inside, torch's global CPU generator is seeded for the initial weights; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator(seed, 0, 0, _WEIGHTS).initial_seed())
        yield


@contextmanager
def dropout_stream(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators are seeded for one step's dropout; then they are as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state = generator(seed, step, rank, _DROPOUT).initial_seed()
        torch.default_generator.manual_seed(state)
        if device.type == "cuda":
            torch.cuda.manual_seed(state)
        yield
