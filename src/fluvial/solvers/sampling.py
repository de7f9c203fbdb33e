"""Samples of a field, drawn batch by batch so that the batch size changes the memory used and nothing else.

An adaptive solver is the exception: it chooses its steps for a whole batch, so its samples agree to its tolerances,
and it is given no rows beside those asked for.
"""

from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from fluvial.conditions import Condition
from fluvial.fields.base import Field
from fluvial.progress import ProgressCallback, batch_progress
from fluvial.randomness import noise
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
        progress: Called after every step with the number of samples that are done.

    Returns:
        The samples, shape (n, *shape), and the field evaluations spent on each (the most, of an adaptive method).

    Raises:
        ValueError: If ``cond`` has not one row for each sample.

    Example:
        >>> field = fv.ExactField(torch.tensor([[2.0]]))
        >>> draw_samples(field, 2, (1,), solver=Solver("euler", 4))
        (tensor([[2.],
                [2.]]), 4)
    """
    if cond is not None and len(cond) != n:
        raise ValueError(f"cond must have {n} rows, one for each sample, got {len(cond)}")
    adaptive = solver.method in ADAPTIVE_METHODS
    filled = (lambda rows: rows) if adaptive else _filled
    parts, evaluations, rows = [], 0, filled(batch_size)
    for start in range(0, n, rows):
        count = min(rows, n - start)
        x0 = noise(seed, start, filled(count), shape).to(device)
        own = None if cond is None else _rows(cond[start : start + count], len(x0)).to(device)
        with torch.no_grad():
            end = solve(
                field,
                x0,
                cond=own,
                **solver.way,
                progress=batch_progress(progress, task, start, count, n),
            )
        parts.append(end.x[:count].cpu())
        evaluations = max(evaluations, end.evaluations)
    return torch.cat(parts), evaluations


def _filled(rows: int) -> int:
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


def _rows(cond: Any, count: int) -> Any:
    """The conditions, the last one repeated up to ``count`` rows."""
    return cond[torch.arange(count).clamp(max=len(cond) - 1)]
