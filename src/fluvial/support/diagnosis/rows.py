"""Real data as tasks: each class in turn, or all data as one; other rows in the support each time."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.support.diagnosis.draws import LEAST_HELD_OUT
from fluvial.support.tasks.base import TaskBatch, require_counts
from fluvial.support.tasks.classes import ClassTasks, Projection
from fluvial.support.tasks.features import as_features


class ClassRows:
    """Tasks from all classes of a data set, for a look at the data rather than for training.

    Rows that repeat another of their class are left out, so that no held-out point is a copy of a support point.

    Args:
        features: Shape ``(N, D)``, finite: a tensor or an array.
        labels: Class of each row, shape ``(N,)``; None for one class.
        m: Support size, for which every class needs enough rows.
        dim: Standardised principal components to keep, as in :class:`fluvial.support.tasks.ClassTasks`; None takes the
            features as they are.
        name: What it is called.

    Attributes:
        duplicates: Rows left out since they repeat another of their class.
        classes: Number of classes.
        all_classes: The same before a split took some of them.
        rows: Number of rows, repeats included.
        features: Number of features that the points are standardised principal components of; None where the points
            are the features themselves.

    Raises:
        ValueError: If features or labels are not as they must be, all rows of a class are equal, or a class has fewer
            than ``m + 8`` rows.
        TypeError: If features are no numbers.

    Example:
        >>> rows = ClassRows(torch.arange(40.0).reshape(20, 2), None, m=5)
        >>> rows.most_targets(5), rows.batch(3, 5, 4, torch.Generator().manual_seed(0)).targets.shape
        (15, torch.Size([3, 4, 2]))
    """

    def __init__(
        self, features: Any, labels: Any | None, *, m: int, dim: int | None = None, name: str = "data"
    ) -> None:
        require_counts(m=m)
        unlabelled = labels is None
        given = as_features(features, np.zeros(_length(features), np.int64) if unlabelled else labels)
        values = given.features.astype(np.float64)
        if bool((values == values[0]).all()):
            raise ValueError(f"features must differ from one another, got {len(values)} equal rows")
        rows = values if dim is None else Projection.fit(values, dim).encode(values).double().numpy()
        self.name, self.dim, self.duplicates = name, int(rows.shape[1]), 0
        self._members: list[Tensor] = []
        for label in np.unique(given.labels):
            of_class = given.labels == label
            # repeats are sought among the features themselves: rounding must not tell them apart
            _, first = np.unique(values[of_class], axis=0, return_index=True)
            self.duplicates += int(of_class.sum()) - len(first)
            what = "data" if unlabelled else f"label {label.item()!r}"
            _check_members(what, len(first), int(of_class.sum()), m)
            self._members.append(torch.from_numpy(rows[of_class][np.sort(first)]))
        self.classes, self.rows = len(self._members), len(rows)
        self.all_classes = self.classes
        self.features = None if dim is None else int(values.shape[1])

    @classmethod
    def of_tasks(cls, tasks: ClassTasks, m: int) -> "ClassRows":
        """The classes of a split of a data set, in the components that its tasks are seen in.

        Raises:
            ValueError: If a class has fewer than ``m + 8`` rows.

        Example:
            >>> from fluvial.support.tasks import family_by_name
            >>> rows = ClassRows.of_tasks(family_by_name("digits", 4, split="test"), m=20)
            >>> rows.classes, rows.all_classes, rows.dim, rows.features
            (1, 10, 4, 64)
        """
        members = [tasks.members[label] for label in tasks.classes]
        labels = np.repeat(np.asarray(tasks.classes), [len(points) for points in members])
        found = cls(torch.cat(members), labels, m=m, name=tasks.name)
        found.duplicates = tasks.duplicates
        found.rows = sum(map(len, tasks.members.values())) + tasks.duplicates
        found.all_classes, found.features = len(tasks.members), tasks.projection.features
        return found

    def most_targets(self, m: int) -> int:
        """Rows that the smallest class has beside ``m``."""
        return min(map(len, self._members)) - m

    def batch(self, count: int, m: int, n: int, generator: torch.Generator) -> TaskBatch:
        """``count`` tasks, from each class equally many, give or take one; there is no truth.

        Raises:
            ValueError: If a number is not positive, or a class has fewer than ``m + n`` rows.
        """
        require_counts(count=count, m=m, n=n)
        if n > self.most_targets(m):
            raise ValueError(f"m + n must be at most {self.most_targets(0)}, the rows of a class, got {m + n}")
        drawn = []
        for place in torch.randperm(count, generator=generator).tolist():
            rows = self._members[place % self.classes]
            drawn.append(rows[torch.randperm(len(rows), generator=generator)[: m + n]])
        points = torch.stack(drawn)
        return TaskBatch(points[:, :m].contiguous(), points[:, m:].contiguous())

    def sample(self, m: int, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "m d"], Float[Tensor, "n d"]]:
        """Support ``(m, d)`` and targets ``(n, d)`` of one task; errors as for :meth:`batch`."""
        found = self.batch(1, m, n, generator)
        return found.support[0], found.targets[0]


def _length(features: Any) -> int:
    shape = tuple(getattr(features, "shape", ())) or np.shape(features)
    return int(shape[0]) if shape else 0


def _check_members(what: str, distinct: int, rows: int, m: int) -> None:
    if distinct == 1:
        raise ValueError(f"{what}: all {rows} rows are equal, there is nothing to diagnose")
    if distinct < m + LEAST_HELD_OUT:
        members = f"{distinct} different members" if distinct < rows else f"{distinct} members"
        raise ValueError(f"{what} has {members}, a diagnosis with m = {m} needs at least {m + LEAST_HELD_OUT}")
