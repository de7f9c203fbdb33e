"""What a family of few-shot tasks offers: random distributions, each seen through a handful of examples.

A task is a distribution drawn at random from a family. A model is given ``m`` examples of it, the support, and is to
make points of the same distribution; ``n`` others, the targets, say how well it does. Families draw many tasks at
once, since nets are trained on batches of them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.paths import GaussianPath


class Truth(ABC):
    """The distributions of ``B`` tasks; which of them know density and velocity, a subclass says."""

    has_density: bool = False
    """Whether :meth:`log_density` is known."""
    has_velocity: bool = False
    """Whether :meth:`velocity` is known."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "B n d"]:
        """``n`` independent points of each task."""

    def log_density(self, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n"]:
        """Log-density of each task at points of its own, in nats, float64, differentiable in x.

        Raises:
            ValueError: If it is not known.
        """
        raise ValueError(f"the density of {type(self).__name__} is not known")

    def velocity(
        self, x: Float[Tensor, "B n d"], t: Float[Tensor, "B n"], path: GaussianPath
    ) -> Float[Tensor, "B n d"]:
        """Marginal velocity of the path from noise to each task's distribution, of x's dtype, without gradient.

        Args:
            x: Points, shape ``(B, n, d)``.
            t: Times, shape ``(B, n)``.
            path: The probability path.

        Raises:
            ValueError: If it is not known.
        """
        raise ValueError(f"the velocity of {type(self).__name__} is not known")


@dataclass(frozen=True)
class TaskBatch:
    """``B`` tasks, each with its support and its targets.

    Args:
        support: Examples given to the model, shape ``(B, m, d)``.
        targets: Others of the same distribution, never among the support; shape ``(B, n, d)``.
        truth: The distributions themselves; None for real data.
    """

    support: Float[Tensor, "B m d"]
    targets: Float[Tensor, "B n d"]
    truth: Truth | None = None


@runtime_checkable
class Family(Protocol):
    """A distribution over tasks.

    Attributes:
        name: What it is called on the command line.
        dim: Dimension of the points.
    """

    @property
    def name(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def batch(self, count: int, m: int, n: int, generator: torch.Generator) -> TaskBatch:
        """``count`` fresh tasks with ``m`` support points and ``n`` targets each; all draws from ``generator``."""
        ...

    def sample(self, m: int, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "m d"], Float[Tensor, "n d"]]:
        """Support and targets of one fresh task."""
        ...


class SyntheticFamily(ABC):
    """A family whose distributions are known, so that support and targets are fresh draws from them."""

    name: ClassVar[str]
    dim: int

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Truth:
        """The distributions of ``count`` fresh tasks."""

    @checked
    def batch(self, count: int, m: int, n: int, generator: torch.Generator) -> TaskBatch:
        """``count`` fresh tasks.

        Args:
            count: How many tasks ``B``.
            m: Support points of each.
            n: Targets of each.
            generator: Where the randomness comes from.

        Raises:
            ValueError: If a number is not positive.
        """
        require_counts(count=count, m=m, n=n)
        truth = self.draw(count, generator)
        points = truth.sample(m + n, generator)
        return TaskBatch(points[:, :m].contiguous(), points[:, m:].contiguous(), truth)

    @checked
    def sample(self, m: int, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "m d"], Float[Tensor, "n d"]]:
        """Support ``(m, d)`` and targets ``(n, d)`` of one fresh task; arguments as for :meth:`batch`."""
        found = self.batch(1, m, n, generator)
        return found.support[0], found.targets[0]


def require_counts(**counts: int) -> None:
    """Refuse numbers below 1.

    Raises:
        ValueError: If there is one; the message names it.

    Example:
        >>> require_counts(m=0)
        Traceback (most recent call last):
        ValueError: m must be at least 1, got 0
    """
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
