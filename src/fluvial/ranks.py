"""The processes that train, sample or measure together, and what they exchange; without others, nothing is exchanged.

A batch of B rows is dealt like cards: of W processes, process r has the rows r, r + W, r + 2 W, ... So every process
has its share of the rows that lead a batch, and batches need not be divisible.
"""

import atexit
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fluvial.launchers import launched_processes
from fluvial.signals import handling

# torch 2.13 has given it another name, and warns of the old one.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@dataclass(frozen=True)
class Ranks:
    """One process among those that work together.

    Args:
        index: Its number, from 0.
        count: How many there are.
        device: Where tensors must be to be exchanged.

    Example:
        >>> alone, second = Ranks(), Ranks(1, 3)
        >>> list(range(7))[second.rows(7)], alone.rows(7)
        ([1, 4], slice(0, 7, 1))
    """

    index: int = 0
    count: int = 1
    device: torch.device | str = "cpu"

    @classmethod
    def joined(cls) -> "Ranks":
        """The processes that ``torchrun`` or ``accelerate launch`` started with this one; without a launcher, this one.

        They meet by Accelerate, over NCCL on GPUs and gloo on CPUs, and stay together until this process ends. This
        waits for all of them.

        Raises:
            ValueError: If the environment that a launcher makes says something impossible.

        Example:
            >>> Ranks.joined()
            Ranks(index=0, count=1, device='cpu')
        """
        if launched_processes() == 1:
            return cls()
        from accelerate import PartialState

        with terminable_meeting():
            state = PartialState(cpu=not torch.accelerator.is_available())
        leave_at_exit()
        return cls(state.process_index, state.num_processes, state.device)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.index == 0

    def rows(self, total: int) -> slice:
        """Which of ``total`` rows this process has."""
        return slice(self.index, total, self.count)

    def batches(self, total: int, size: int) -> Iterator[range]:
        """Which rows this process has where batches of ``size`` rows are dealt, one to each process in every round.

        All processes have the same number of rounds, and in the last one some may have no rows.

        Example:
            >>> list(Ranks(0, 2).batches(7, 2)), list(Ranks(1, 2).batches(7, 2))
            ([range(0, 2), range(4, 6)], [range(2, 4), range(6, 7)])
        """
        for start in range(0, total, self.count * size):
            mine = start + self.index * size
            yield range(min(mine, total), min(mine + size, total))

    def sum(self, x: Tensor) -> Tensor:
        """Sum of all processes' tensors."""
        return self._reduced(x, dist.ReduceOp.SUM)

    def largest(self, x: Tensor) -> Tensor:
        """Largest of all processes' tensors, element by element."""
        return self._reduced(x, dist.ReduceOp.MAX)

    def gather(self, x: Tensor, total: int) -> Tensor:
        """All ``total`` rows in their order, of which each process gives its own; every process gets them."""
        if self.count == 1:
            return x
        most = -(-total // self.count)
        mine = x.new_zeros((most, *x.shape[1:]), device=self.device)
        mine[: len(x)] = x
        hands = mine.new_empty((self.count * most, *x.shape[1:]))
        _all_gather(hands, mine)
        rows: Tensor = hands.unflatten(0, (self.count, most)).transpose(0, 1).flatten(0, 1)[:total]
        return rows.to(x.device)

    def collect(self, x: Tensor, size: int) -> Tensor:
        """The rows of one round of :meth:`batches`, in order, for the first process; for the others none.

        Args:
            x: Rows of this process, at most ``size``; the last process that has any may have fewer.
            size: Rows of a full batch.
        """
        if self.count == 1:
            return x
        counts = self.gather(torch.tensor([len(x)]), self.count)
        padded = x.new_zeros((1, size, *x.shape[1:]))
        padded[0, : len(x)] = x
        rows: Tensor = self.gather(padded, self.count).flatten(0, 1)
        return rows[: int(counts.sum()) if self.first else 0]

    def alike(self, value: int) -> bool:
        """Whether all processes have the same whole number."""
        ends = self.largest(torch.tensor([value, -value]))
        return int(ends[0]) == -int(ends[1])

    def from_first(self, x: Tensor) -> Tensor:
        """The first process's tensor, of the same shape on all."""
        if self.count == 1:
            return x
        sent = x.to(self.device, copy=True).contiguous()
        dist.broadcast(sent, 0)
        return sent.to(x.device)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.sum(torch.zeros(1))

    def _reduced(self, x: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        if self.count == 1:
            return x
        whole = x.to(self.device, copy=True).contiguous()
        dist.all_reduce(whole, how)
        return whole.to(x.device)


ALONE = Ranks()
"""One process without others."""


@contextmanager
def terminable_meeting() -> Iterator[None]:
    """Inside, where processes wait for one another, SIGTERM ends this one at once.

    A handler of Python's would wait until all have come, which they do not after one has failed on the way.
    """
    with handling(signal.SIG_DFL, signal.SIGTERM) if launched_processes() > 1 else nullcontext():
        yield


def leave_at_exit() -> None:
    """Have the process group end with this process, before the threads that serve it are torn down."""
    # One that ends without it aborts now and then: "terminate called without an active exception".
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
