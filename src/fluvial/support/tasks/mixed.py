"""A mixture of families: every task comes from one of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.support.tasks.base import Family, TaskBatch, Truth, require_counts


@dataclass(frozen=True)
class MixedTruth(Truth):
    """Tasks of several families in one batch; density and velocity are known where all of them know theirs.

    Args:
        parts: Which tasks, as positions in the batch, and their distributions; every position occurs once.
    """

    parts: tuple[tuple[Int[Tensor, "_"], Truth], ...]

    def __post_init__(self) -> None:
        for name in ("has_density", "has_velocity"):
            object.__setattr__(self, name, all(getattr(truth, name) for _, truth in self.parts))

    @checked
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "B n d"]:
        return self._joined([truth.sample(n, generator) for _, truth in self.parts])

    def log_density(self, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n"]:
        return self._joined([truth.log_density(x[rows]) for rows, truth in self.parts])

    def velocity(
        self, x: Float[Tensor, "B n d"], t: Float[Tensor, "B n"], path: GaussianPath
    ) -> Float[Tensor, "B n d"]:
        return self._joined([truth.velocity(x[rows], t[rows], path) for rows, truth in self.parts])

    def _joined(self, found: Sequence[Tensor]) -> Tensor:
        return joined([rows for rows, _ in self.parts], found)


def joined(rows: Sequence[Int[Tensor, "_"]], parts: Sequence[Tensor]) -> Tensor:
    """Parts of a batch put at their positions.

    Example:
        >>> joined([torch.tensor([1]), torch.tensor([0])], [torch.tensor([5.0]), torch.tensor([6.0])])
        tensor([6., 5.])
    """
    return torch.cat(list(parts))[torch.argsort(torch.cat(list(rows)))]


@checked
class Mixed:
    """Tasks of several families, each drawn uniformly from them; a batch holds tasks of several.

    Args:
        families: The families, all of one dimension; synthetic or real.
        name: What the mixture is called.

    Raises:
        ValueError: If there is none, or their dimensions differ.

    Example:
        >>> from fluvial.support.tasks import Moons, Rings
        >>> found = Mixed([Moons(), Rings()]).batch(4, m=5, n=7, generator=torch.Generator().manual_seed(0))
        >>> found.support.shape, found.truth.has_velocity
        (torch.Size([4, 5, 2]), True)
    """

    def __init__(self, families: Sequence[Family], *, name: str = "mixed") -> None:
        if not families:
            raise ValueError("families must hold at least one family, got none")
        foreign = [type(family).__name__ for family in families if not isinstance(family, Family)]
        if foreign:
            raise TypeError(f"families must be families of tasks, got {foreign[0]}")
        dims = sorted({family.dim for family in families})
        if len(dims) > 1:
            listed = ", ".join(f"{family.name} ({family.dim})" for family in families)
            raise ValueError(f"families must have one dimension, got {listed}")
        self.families, self.dim, self.name = tuple(families), dims[0], name

    @property
    def most_targets(self) -> Callable[[int], int]:
        """Targets that every task has beside ``m`` support points; no such attribute where all are synthetic."""
        limits = [family.most_targets for family in self.families if hasattr(family, "most_targets")]
        if not limits:
            raise AttributeError("a mixture of synthetic families has no limit of its targets")
        return lambda m: min(limit(m) for limit in limits)

    @checked
    def batch(self, count: int, m: int, n: int, generator: torch.Generator) -> TaskBatch:
        """``count`` fresh tasks; arguments and errors are those of the families.

        The truth is None if a family has none.
        """
        require_counts(count=count, m=m, n=n)
        kind = torch.randint(len(self.families), (count,), generator=generator)
        rows, found = [], []
        for index, family in enumerate(self.families):
            own = torch.nonzero(kind == index).flatten()
            if len(own):
                rows.append(own)
                found.append(family.batch(len(own), m, n, generator))
        truths = [part.truth for part in found if part.truth is not None]
        truth = MixedTruth(tuple(zip(rows, truths, strict=True))) if len(truths) == len(found) else None
        support, targets = joined(rows, [p.support for p in found]), joined(rows, [p.targets for p in found])
        return TaskBatch(support, targets, truth)

    @checked
    def sample(self, m: int, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "m d"], Float[Tensor, "n d"]]:
        """Support ``(m, d)`` and targets ``(n, d)`` of one fresh task."""
        found = self.batch(1, m, n, generator)
        return found.support[0], found.targets[0]
