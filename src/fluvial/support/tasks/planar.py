"""Rings, moons and spirals: thin curves in the plane with a random place, size, rotation and noise for each task."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.support.tasks.base import SyntheticFamily, require_counts
from fluvial.support.tasks.curves import CurvesTruth, Frames
from fluvial.support.tasks.draws import uniform

FARTHEST_CENTRE = 3.0
SMALLEST_SCALE, LARGEST_SCALE = 2.0, 5.0
LEAST_NOISE, MOST_NOISE = 0.03, 0.08
"""Bounds of the noise's standard deviation, relative to the scale."""


def _frames(count: int, generator: torch.Generator) -> tuple[Frames, Float[Tensor, "B"]]:
    """Random frames, and the standard deviation of each task's noise."""
    centre = uniform((count, 2), -FARTHEST_CENTRE, FARTHEST_CENTRE, generator)
    scale = uniform((count,), SMALLEST_SCALE, LARGEST_SCALE, generator)
    angle = uniform((count,), 0.0, 2 * math.pi, generator)
    return Frames(centre, scale, angle), scale * uniform((count,), LEAST_NOISE, MOST_NOISE, generator)


@dataclass(frozen=True)
class Circles:
    """Concentric circles.

    Args:
        radius: Shape ``(B, 3)``, at most 1.
    """

    radius: Float[Tensor, "B k"]
    most: ClassVar[int] = 3
    closed: ClassVar[bool] = True
    nodes: ClassVar[int] = 320

    def __call__(self, s: Float[Tensor, "B n"], branch: Int[Tensor, "B n"]) -> Float[Tensor, "B n 2"]:
        radius = self.radius.to(s.dtype).gather(1, branch)
        angle = 2 * math.pi * s
        return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], -1)


@dataclass(frozen=True)
class Crescents:
    """Two half circles of radius 1, each with its tip inside the other."""

    most: ClassVar[int] = 2
    closed: ClassVar[bool] = False
    nodes: ClassVar[int] = 256

    def __call__(self, s: Float[Tensor, "B n"], branch: Int[Tensor, "B n"]) -> Float[Tensor, "B n 2"]:
        sign = 1 - 2 * branch
        x = sign * (torch.cos(math.pi * s) - 0.5)
        return torch.stack([x, sign * (torch.sin(math.pi * s) - 0.25)], -1)


@dataclass(frozen=True)
class Arms:
    """One arm, or two opposite ones, of an Archimedean spiral that ends at radius 1.

    The angle grows as the square root, which spreads the points evenly along the arm.

    Args:
        last: Angle at the end, in radians, above pi / 2, where it begins; shape ``(B,)``.
        turn: 1 for anticlockwise, -1 for clockwise, shape ``(B,)``.
    """

    last: Float[Tensor, "B"]
    turn: Float[Tensor, "B"]
    most: ClassVar[int] = 2
    closed: ClassVar[bool] = False
    nodes: ClassVar[int] = 448

    def __call__(self, s: Float[Tensor, "B n"], branch: Int[Tensor, "B n"]) -> Float[Tensor, "B n 2"]:
        last, first = self.last[:, None].to(s.dtype), math.pi / 2
        angle = torch.sqrt(first**2 + s * (last.square() - first**2))
        radius = (1 - 2 * branch) * angle / last
        return torch.stack([radius * torch.cos(angle), self.turn[:, None] * radius * torch.sin(angle)], -1)


class Rings(SyntheticFamily):
    """One to three concentric circles with noise; ``dim`` is 2.

    The centre is uniform in [-3, 3]^2, the scale S uniform in [2, 5], radii uniform in [.3 S, S], the noise's standard
    deviation uniform in [.03 S, .08 S]; the circles are as likely.

    Example:
        >>> support, targets = Rings().sample(5, 7, torch.Generator().manual_seed(0))
        >>> support.shape, targets.shape
        (torch.Size([5, 2]), torch.Size([7, 2]))
    """

    name: ClassVar[str] = "rings"
    dim = 2

    def draw(self, count: int, generator: torch.Generator) -> CurvesTruth:
        """``count`` tasks; all draws from ``generator``."""
        require_counts(count=count)
        frames, noise = _frames(count, generator)
        radius = uniform((count, Circles.most), 0.3, 1.0, generator)
        number = torch.randint(1, Circles.most + 1, (count,), generator=generator)
        return CurvesTruth(Circles(radius), frames, noise, number)


class Moons(SyntheticFamily):
    """Two interleaved half circles with noise; ``dim`` is 2.

    The centre is uniform in [-3, 3]^2, the half circles' radius S uniform in [2, 5], the rotation uniform, the noise's
    standard deviation uniform in [.03 S, .08 S].

    Example:
        >>> Moons().batch(4, 5, 7, torch.Generator().manual_seed(0)).targets.shape
        torch.Size([4, 7, 2])
    """

    name: ClassVar[str] = "moons"
    dim = 2

    def draw(self, count: int, generator: torch.Generator) -> CurvesTruth:
        """``count`` tasks; all draws from ``generator``."""
        require_counts(count=count)
        frames, noise = _frames(count, generator)
        return CurvesTruth(Crescents(), frames, noise, torch.full((count,), 2))


class Spirals(SyntheticFamily):
    """Spirals of one arm or two, with noise; ``dim`` is 2.

    The centre is uniform in [-3, 3]^2, the outer radius S uniform in [2, 5], the number of turns uniform in [.75, 1.5],
    either way round; rotation uniform, the noise's standard deviation uniform in [.03 S, .08 S].

    Example:
        >>> Spirals().batch(4, 5, 7, torch.Generator().manual_seed(0)).targets.shape
        torch.Size([4, 7, 2])
    """

    name: ClassVar[str] = "spirals"
    dim = 2

    def draw(self, count: int, generator: torch.Generator) -> CurvesTruth:
        """``count`` tasks; all draws from ``generator``."""
        require_counts(count=count)
        frames, noise = _frames(count, generator)
        last = math.pi / 2 + 2 * math.pi * uniform((count,), 0.75, 1.5, generator)
        turn = 1.0 - 2.0 * torch.randint(0, 2, (count,), generator=generator)
        number = torch.randint(1, Arms.most + 1, (count,), generator=generator)
        return CurvesTruth(Arms(last, turn), frames, noise, number)
