"""One grid of time that several fields walk in turn, each from where another has left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.fields.base import Field
from fluvial.progress import Progress, ProgressCallback
from fluvial.solvers import Trajectory, solve


class Counter:
    """Counts the steps of several solves as one task.

    Args:
        progress: Called after each.
        total: Steps in all.
    """

    def __init__(self, progress: ProgressCallback | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def __call__(self, report: Progress) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(Progress("hybrid", min(self._done, self._total), self._total))


@dataclass(frozen=True)
class Mover:
    """The solver with its grid of equal steps.

    Args:
        steps: Steps from t = 0 to 1.
        method: Its fixed-step method.
        cond: Conditions of the rows, handed to every field.
        count: Counts the steps.
    """

    steps: int
    method: str
    cond: Tensor | None
    count: Counter

    def states(self, field: Field, x0: Tensor, nodes: Sequence[int]) -> Float[Tensor, "S B ..."]:
        """States at the nodes on the way from t = 0 to 1."""
        times = [node / self.steps for node in nodes]
        with torch.no_grad():
            return self._solve(field, x0, steps=self.steps, save_at=times).path

    def rest(self, field: Field, x: Tensor, node: int) -> Tensor:
        """Where a state at a node ends."""
        with torch.no_grad():
            return self._solve(field, x, steps=self.steps - node, t0=node / self.steps).x

    def _solve(self, field: Field, x: Tensor, **way: Any) -> Trajectory:
        return solve(field, x, method=self.method, cond=self.cond, progress=self.count, **way)
