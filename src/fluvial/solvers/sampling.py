"""Samples of a field, drawn batch by batch so that the batch size changes the memory used and nothing else.

An adaptive solver is the exception: it chooses its steps for a whole batch, so its samples agree to its tolerances,
and it is given no rows beside those asked for.

Several processes are dealt the batches. With fixed steps these are made smaller, so that each process has some.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from fluvial.conditions import Condition
from fluvial.fields.base import Field
from fluvial.kinds import checked
from fluvial.progress import ProgressCallback, batch_progress
from fluvial.randomness import noise
from fluvial.ranks import ALONE, Ranks
from fluvial.solvers.adaptive import ADAPTIVE_METHODS
from fluvial.solvers.trajectory import solve

ROW_MULTIPLE = 8
"""Batches are filled up to a multiple of this: matrix products treat the rows of a last, smaller block differently,
and their last bits with them. Full blocks give the same bits in every batch size (measured on CPUs)."""


class Way(TypedDict):
    """Arguments that say how to integrate."""

    steps: int | None
    method: str
    rtol: float | None
    atol: float | None


@dataclass(frozen=True)
class Solver:
    """How a field is integrated from noise to data.

    Args:
        method: Name of a solver.
        steps: Steps of a fixed-step method; None for an adaptive one.
        rtol: Relative error per step of an adaptive method.
        atol: Absolute error per step of an adaptive method.
    """

    method: str = "midpoint"
    steps: int | None = 25
    rtol: float = 1e-5
    atol: float = 1e-5

    @property
    def way(self) -> "Way":
        """Arguments for ``fv.solve`` and ``fv.log_prob``; tolerances only where steps are chosen by them.

        Example:
            >>> Solver("heun", 25).way
            {'steps': 25, 'method': 'heun', 'rtol': None, 'atol': None}
        """
        adaptive = self.method in ADAPTIVE_METHODS
        rtol, atol = (self.rtol, self.atol) if adaptive else (None, None)
        return {"steps": self.steps, "method": self.method, "rtol": rtol, "atol": atol}


@checked
def draw_samples(
    field: Field,
    n: int,
    shape: tuple[int, ...],
    *,
    seed: int = 0,
    solver: Solver = Solver(),
    cond: Condition | None = None,
    batch_size: int = 512,
    device: Any = "cpu",
    task: str = "sample",
    ranks: Ranks = ALONE,
    progress: ProgressCallback | None = None,
) -> tuple[Tensor, int]:
    """Integrates ``n`` noises, of which number i depends on ``(seed, i)`` alone, to samples on the CPU.

    Args:
        field: What to sample.
        n: How many samples.
        shape: Shape of one datum.
        seed: Seed of the noise.
        solver: How to integrate.
        cond: Condition of each sample, n rows: labels, an ``Embedding``, ``Tokens``, or a log-prior of the exact field;
            None for none.
        batch_size: Samples integrated together, filled up to a multiple of 8 where steps are fixed.
        device: Where ``field`` computes.
        task: Name shown beside the bar.
        ranks: The processes that share the work, each of which calls this with the same arguments.
        progress: Called after every step with the number of samples that are done.

    Returns:
        The samples, shape (n, *shape), of which processes other than the first get none; and the field evaluations
        spent on each (the most, of an adaptive method).

    Raises:
        ValueError: If ``cond`` has not one row for each sample.

    Example:
        >>> field = fv.ExactField(torch.tensor([[2.0]]))
        >>> draw_samples(field, 2, (1,), solver=Solver("euler", 4))
        (tensor([[2.],
                [2.]]), 4)
    """
    check_draws(n, shape, batch_size)
    if cond is not None and len(cond) != n:
        raise ValueError(f"cond must have {n} rows, one for each sample, got {len(cond)}")
    parts, evaluations = [], 0
    for batch in deal_batches(n, batch_size, solver, ranks):
        x0 = noise(seed, batch.start, batch.filled, shape).to(device)
        own = None if cond is None else batch.rows_of(cond).to(device)
        with torch.no_grad():
            end = solve(field, x0, cond=own, **solver.way, progress=batch.progress(progress, task))
        parts.append(ranks.collect(end.x[: batch.count], batch.size).cpu())
        evaluations = max(evaluations, end.evaluations if batch.count else 0)
    return torch.cat(parts), int(ranks.largest(torch.tensor(evaluations)))


@dataclass(frozen=True)
class DrawnBatch:
    """Samples that one process integrates together.

    Args:
        start: Number of the first.
        count: How many are kept; 0 where the last round has none for this process.
        filled: How many are integrated.
        size: How many a batch has in all rounds but the last.
        total: Samples in all.
        together: Numbers of the samples that all processes have in this round.
    """

    start: int
    count: int
    filled: int
    size: int
    total: int
    together: range

    def rows_of(self, cond: Any) -> Any:
        """The conditions of these samples, the last one repeated where the batch is filled up."""
        return cond[torch.arange(self.start, self.start + self.filled).clamp(max=self.total - 1)]

    def progress(self, progress: ProgressCallback | None, task: str) -> ProgressCallback | None:
        """Turns what is reported of this batch into samples of all."""
        return batch_progress(progress, task, self.together.start, len(self.together), self.total)


def deal_batches(n: int, batch_size: int, solver: Solver, ranks: Ranks) -> Iterator[DrawnBatch]:
    """The batches of one process, one in each round; all processes have as many rounds.

    Args:
        n: Samples in all.
        batch_size: The most that are integrated together, before they are filled up.
        solver: How to integrate: with fixed steps, a batch's size decides nothing but memory, and is chosen such that
            every process has some.
        ranks: The processes.

    Example:
        >>> [(batch.start, batch.count) for batch in deal_batches(40, 8, Solver(), Ranks(1, 2))]
        [(8, 8), (24, 8), (0, 0)]
    """
    adaptive = solver.method in ADAPTIVE_METHODS
    multiple = 1 if adaptive else ROW_MULTIPLE
    share = batch_size if adaptive or ranks.count == 1 else min(batch_size, -(-n // ranks.count))
    size = _filled(share, multiple)
    for number, mine in enumerate(ranks.batches(n, size)):
        start = number * ranks.count * size
        together = range(start, min(start + ranks.count * size, n))
        # One that has none takes part with the first few, so that it knows the form of what it hands in.
        filled = _filled(max(len(mine), 1), multiple)
        yield DrawnBatch(mine.start if mine else 0, len(mine), filled, size, n, together)


def check_draws(n: int, shape: Sequence[int], batch_size: int) -> None:
    """Refuse numbers of samples and shapes of which there are no samples.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> check_draws(0, (2,), 1)
        Traceback (most recent call last):
        ValueError: n must be at least 1, got 0
    """
    for name, least in (("n", n), ("batch_size", batch_size), ("shape", min(shape, default=1))):
        if least < 1:
            raise ValueError(f"{name} must be at least 1{' throughout' if name == 'shape' else ''}, got {least}")


def _filled(rows: int, multiple: int) -> int:
    return -(-rows // multiple) * multiple
