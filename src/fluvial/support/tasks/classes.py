"""Few-shot tasks made of real data: a task is one class, seen in standardised principal components.

The classes are shuffled and split into train, validation and test, so that a model is judged on classes that it has
never seen; components and scales come from the train classes alone. Support and targets of a task are different data:
a row that repeats another of its class is left out, so that no target is a copy of a support point.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fluvial.checks import require_seed
from fluvial.kinds import checked
from fluvial.support.tasks.base import TaskBatch, require_counts
from fluvial.support.tasks.features import LabelledFeatures, as_features

Split = Literal["train", "validation", "test"]
PAPER_SEED = 42
_FEWEST_CLASSES = 3
_LEAST_SPREAD = 1e-5


@checked
class ClassTasks:
    """Tasks from the classes of a labelled data set.

    Targets are drawn without replacement while the class has enough of them, else with replacement from those that
    are not in the support.

    Args:
        features: Shape ``(N, D)``, finite: a tensor or an array.
        labels: Class of each row, shape ``(N,)``: whole numbers or strings.
        dim: Principal components to keep.
        split: Which classes: ``"train"`` (80 %), ``"validation"`` (10 %) or ``"test"`` (10 %), at least one each.
        m: Most support points that tasks will ask for; a class needs one row more.
        leave_out_small: Leave classes with fewer rows out, instead of refusing them; before the split, which then
            depends on ``m``.
        seed: Seed of the shuffle of the classes.
        name: What the family is called.

    Attributes:
        classes: Labels of the classes of this split, in the order of the shuffle.
        duplicates: Rows left out since they repeat another of their class.
        projection: From features to points and back.

    Raises:
        ValueError: If features or labels are not as they must be, a class is too small, there are fewer than 3
            classes, or the train classes have not ``dim`` components.
        TypeError: If features are no numbers.

    Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", ``ImageNetMetaDistribution``.

    Example:
        >>> labels = torch.arange(10).repeat_interleave(20)
        >>> features = labels[:, None] + torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        >>> tasks = ClassTasks(features, labels, dim=3, m=10)
        >>> len(tasks.classes), tasks.batch(4, m=10, n=8, generator=torch.Generator().manual_seed(0)).targets.shape
        (8, torch.Size([4, 8, 3]))
    """

    def __init__(
        self,
        features: Any,
        labels: Any,
        dim: int = 16,
        *,
        split: Split = "train",
        m: int = 50,
        leave_out_small: bool = False,
        seed: int = PAPER_SEED,
        name: str = "classes",
    ) -> None:
        require_counts(dim=dim, m=m)
        _check_split(split)
        given = as_features(features, labels)
        kept = _distinct(given)
        self.duplicates = len(given.labels) - len(kept)
        present = _large_classes(given.labels[kept], m, leave_out_small, self.duplicates)
        self.name, self.dim, self.seed = name, dim, seed
        self._splits = split_classes(present, seed)
        of_class = {label: kept[given.labels[kept] == label] for label in present}
        train = np.sort(np.concatenate([of_class[label] for label in self._splits["train"]]))
        self._rows_hash = _hash_rows(given, of_class)
        self.projection = Projection.fit(given.features[train], dim)
        self._members = {label: self.projection.encode(given.features[rows]) for label, rows in of_class.items()}
        self.split: Split = split

    @property
    def members(self) -> dict[Any, Float[Tensor, "_ dim"]]:
        """Points of every class by its label, those of other splits included."""
        return dict(self._members)

    @property
    def classes(self) -> tuple[Any, ...]:
        """Labels of the classes of this split."""
        return tuple(label.item() for label in self._splits[self.split])

    @cached_property
    def content_hash(self) -> str:
        """sha256 of the features and labels that tasks are made of, the dimension and the seed of the split."""
        return hashlib.sha256(repr((self.dim, self.seed, self._rows_hash)).encode()).hexdigest()

    def most_targets(self, m: int) -> int:
        """Targets that each class of the split has beside ``m`` support points."""
        return min(len(self._members[label]) for label in self._splits[self.split]) - m

    def of_split(self, split: Split) -> "ClassTasks":
        """The same tasks from the classes of another split, over the same memory.

        Raises:
            ValueError: If there is no such split.
        """
        _check_split(split)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.split = split
        return other

    @checked
    def batch(self, count: int, m: int, n: int, generator: torch.Generator) -> TaskBatch:
        """``count`` tasks, each from a class drawn uniformly from those of the split; there is no truth.

        Args:
            count: How many tasks ``B``.
            m: Support points of each.
            n: Targets of each.
            generator: Where the randomness comes from.

        Raises:
            ValueError: If a number is not positive, or a class has fewer than ``m + 1`` rows.
        """
        require_counts(count=count, m=m, n=n)
        labels = self._splits[self.split]
        for label in labels:
            if len(self._members[label]) < m + 1:
                raise ValueError(_too_few(label, len(self._members[label]), m, self.duplicates))
        chosen = torch.randint(len(labels), (count,), generator=generator).tolist()
        support, targets = [], []
        for index in chosen:
            rows = self._members[labels[index]]
            order = torch.randperm(len(rows), generator=generator)
            rest = order[m:]
            enough = len(rest) >= n
            picked = rest[:n] if enough else rest[torch.randint(len(rest), (n,), generator=generator)]
            support.append(rows[order[:m]])
            targets.append(rows[picked])
        return TaskBatch(torch.stack(support), torch.stack(targets))

    @checked
    def sample(self, m: int, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "m d"], Float[Tensor, "n d"]]:
        """Support ``(m, d)`` and targets ``(n, d)`` of one task; errors as for :meth:`batch`."""
        found = self.batch(1, m, n, generator)
        return found.support[0], found.targets[0]


def _hash_rows(given: LabelledFeatures, of_class: dict[Any, NDArray[np.int64]]) -> str:
    """Hash of what is given: points are projected, and their last bits depend on the machine and its threads."""
    digest = hashlib.sha256()
    for label in sorted(of_class):
        digest.update(repr(label.item()).encode())
        digest.update(np.ascontiguousarray(given.features[of_class[label]]).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Projection:
    """Principal components, each scaled to mean 0 and standard deviation 1 over the data that they were fitted to.

    Args:
        mean: Mean of the features, shape ``(D,)``.
        axes: Components over their standard deviations, shape ``(dim, D)``.
    """

    mean: Float[np.ndarray, "D"]
    axes: Float[np.ndarray, "dim D"]

    @classmethod
    def fit(cls, features: Float[np.ndarray, "N D"], dim: int) -> "Projection":
        """Components of some features.

        Raises:
            ValueError: If the features have fewer than ``dim`` directions in which they vary.
        """
        from sklearn.decomposition import PCA

        most = min(features.shape[1], len(features) - 1)
        if dim > most:
            raise ValueError(f"dim must be at most {most} for {len(features)} train features of {features.shape[1]} "
                             f"numbers, got {dim}")  # fmt: skip
        solver = "covariance_eigh" if len(features) > features.shape[1] else "full"
        # centred before: scikit-learn subtracts the mean from the second moments, where float32 would cancel
        mean = features.mean(0, dtype=np.float64)
        rows = (features - mean).astype(features.dtype)
        components = PCA(dim, svd_solver=solver).fit(rows).components_.astype(np.float64)
        spread = (rows @ components.T).std(0)
        varying = int((spread > _LEAST_SPREAD * spread[0]).sum()) if spread[0] > 0 else 0
        if varying < dim:
            raise ValueError(f"train features vary in {varying} directions alone, dim must be at most that, got {dim}")
        return cls(mean, components / spread[:, None])

    @property
    def features(self) -> int:
        """Number of features ``D``."""
        return len(self.mean)

    def encode(self, features: Float[np.ndarray, "n D"]) -> Float[Tensor, "n dim"]:
        """Scaled components of other features, float32."""
        return torch.from_numpy((features - self.mean) @ self.axes.T).float()

    def decode(self, points: Float[Tensor, "n dim"]) -> Float[np.ndarray, "n D"]:
        """Features in the span of the components that points stand for, float64.

        Example:
            >>> random = np.random.default_rng(0).normal(size=(50, 3))
            >>> basis = Projection.fit(random, 3)
            >>> bool(np.abs(basis.decode(basis.encode(random)) - random).max() < 1e-5)
            True
        """
        # The rows of axes are orthogonal: their pseudo-inverse is their transpose over their squared lengths.
        scaled = self.axes / np.square(self.axes).sum(1, keepdims=True)
        found: NDArray[np.float64] = points.double().numpy() @ scaled + self.mean
        return found


def split_classes(labels: NDArray[Any], seed: int) -> dict[str, NDArray[Any]]:
    """Classes shuffled and split 80 / 10 / 10, at least one in each part.

    Args:
        labels: Distinct labels, sorted.
        seed: Seed of ``numpy.random.RandomState``.

    Raises:
        ValueError: If there are fewer than 3.

    Example:
        >>> {split: part.tolist() for split, part in split_classes(np.arange(10), 42).items()}
        {'train': [8, 1, 5, 0, 7, 2, 9, 4], 'validation': [3], 'test': [6]}
    """
    if len(labels) < _FEWEST_CLASSES:
        raise ValueError(f"labels must hold at least {_FEWEST_CLASSES} classes, one for each split, got {len(labels)}")
    require_seed(seed)
    shuffled = np.random.RandomState(seed).permutation(labels)  # as in the paper
    validation = max(1, len(labels) // 10)
    train = min(len(labels) * 8 // 10, len(labels) - validation - 1)
    first, second, third = np.split(shuffled, [train, train + validation])
    return {"train": first, "validation": second, "test": third}


def _check_split(split: str) -> None:
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")


def _distinct(given: LabelledFeatures) -> NDArray[np.int64]:
    """Rows that repeat no earlier one of their class."""
    rows = given.features + 0.0  # no minus zeros: they are equal to zeros and have other bits
    seen: dict[tuple[Any, bytes], int] = {}
    for index, (label, row) in enumerate(zip(given.labels.tolist(), rows, strict=True)):
        seen.setdefault((label, row.tobytes()), index)
    return np.fromiter(seen.values(), np.int64, len(seen))


def _large_classes(labels: NDArray[Any], m: int, leave_out_small: bool, duplicates: int) -> NDArray[Any]:
    present, sizes = np.unique(labels, return_counts=True)
    small = np.flatnonzero(sizes < m + 1)
    if len(small) and not leave_out_small:
        raise ValueError(_too_few(present[small[0]], int(sizes[small[0]]), m, duplicates))
    kept: NDArray[Any] = present[sizes >= m + 1]
    if len(kept) < _FEWEST_CLASSES:
        raise ValueError(
            f"labels must hold at least {_FEWEST_CLASSES} classes of {m + 1} rows or more, got {len(kept)}"
        )
    return kept


def _too_few(label: Any, size: int, m: int, duplicates: int) -> str:
    value = label.item() if isinstance(label, np.generic) else label
    note = f" ({duplicates} rows that repeat another of their class are not counted)" if duplicates else ""
    return f"label {value!r} has {size} members, tasks with m = {m} need at least {m + 1}{note}"
