r"""Distributions along a curve in the plane: a point drawn uniformly along it, plus isotropic Gaussian noise.

The density is :math:`\int_0^1 N(x;\, c(s), \tau^2 I)\, ds`, an infinite mixture. On nodes along the curve, closer than
the noise is wide, it is a finite one to nine digits or more, and so are the marginals of a path: at time t the
components have variance :math:`v = \alpha^2 \tau^2 + \sigma^2` about :math:`\alpha c`. With the mean :math:`\bar c` of
the nodes under their posterior weights the velocity is

.. math::
    \dot\alpha \bar c + \frac{\alpha \dot\alpha \tau^2 + \sigma \dot\sigma}{v} (x - \alpha \bar c).

Circles are closed, so their nodes are equispaced (the trapezoid rule, which is spectrally accurate there); open curves
have Gauss-Legendre nodes.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.paths import GaussianPath
from fluvial.support.tasks.base import Truth
from fluvial.support.tasks.draws import choices, padding
from fluvial.support.tasks.rates import check_points, rates

_TILE_VALUES = 2**21


@runtime_checkable
class Outline(Protocol):
    """Curves of ``B`` tasks, each made of branches, at unit scale about the origin."""

    most: ClassVar[int]
    """Most branches that a task can have."""
    closed: ClassVar[bool]
    """Whether a branch ends where it begins, smoothly."""
    nodes: ClassVar[int]
    """Quadrature nodes of a branch that are enough for the least noise."""

    def __call__(self, s: Float[Tensor, "B n"], branch: Int[Tensor, "B n"]) -> Float[Tensor, "B n 2"]:
        """Points at the parameter ``s`` in [0, 1) of a branch; data are uniform in ``s``."""


@dataclass(frozen=True)
class Frames:
    """Where the curves of ``B`` tasks lie: ``centre + scale * rotation(angle) @ point``.

    Args:
        centre: Shape ``(B, 2)``.
        scale: Shape ``(B,)``.
        angle: In radians, shape ``(B,)``.
    """

    centre: Float[Tensor, "B 2"]
    scale: Float[Tensor, "B"]
    angle: Float[Tensor, "B"]

    def __call__(self, points: Float[Tensor, "B n 2"]) -> Float[Tensor, "B n 2"]:
        """Points of unit scale about the origin, moved to their place."""
        cos, sin = torch.cos(self.angle), torch.sin(self.angle)
        rotation = torch.stack([cos, sin, -sin, cos], 1).reshape(-1, 2, 2).to(points.dtype)
        return self.centre[:, None] + (self.scale[:, None, None] * (points @ rotation))


@dataclass(frozen=True)
class CurvesTruth(Truth):
    """``B`` distributions along curves.

    Args:
        outline: The curves at unit scale.
        frames: Where they lie.
        noise: Standard deviation of the noise, in data units, shape ``(B,)``.
        branches: How many branches each has, shape ``(B,)``; all are as likely.
        refinement: How many times the usual number of quadrature nodes.
    """

    outline: Outline
    frames: Frames
    noise: Float[Tensor, "B"]
    branches: Int[Tensor, "B"]
    refinement: int = 1
    has_density = True
    has_velocity = True

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "B n 2"]:
        branch = choices(self.branches, n, generator)
        points = self.frames(self.outline(torch.rand(branch.shape, generator=generator), branch))
        return points + self.noise[:, None, None] * torch.randn(points.shape, generator=generator)

    def log_density(self, x: Float[Tensor, "B n 2"]) -> Float[Tensor, "B n"]:
        check_points(x, len(self.noise), 2)
        one = torch.ones(x.shape[:2], dtype=torch.float64)
        variance = one * self.noise[:, None].double().square()
        return self._smooth(x.double(), one, variance)[0] - torch.log(2 * math.pi * variance)

    def velocity(
        self, x: Float[Tensor, "B n 2"], t: Float[Tensor, "B n"], path: GaussianPath
    ) -> Float[Tensor, "B n 2"]:
        check_points(x, len(self.noise), 2, t)
        now, own, points = rates(path, t), self.noise[:, None].double().square(), x.detach().double()
        _, mean = self._smooth(points, now.alpha, now.alpha.square() * own + now.sigma.square())
        rest = points - now.alpha[..., None] * mean
        return (now.alpha_dot[..., None] * mean + now.gain(own)[..., None] * rest).to(x.dtype)

    @cached_property
    def _nodes(self) -> tuple[Float[Tensor, "B M 2"], Float[Tensor, "B M"]]:
        """Quadrature nodes of all branches and their log-weights, float64."""
        number = self.refinement * self.outline.nodes
        if self.outline.closed:
            at, weight = np.arange(number) / number, np.full(number, 1 / number)
        else:
            at, weight = np.polynomial.legendre.leggauss(number)
            at, weight = (at + 1) / 2, weight / 2
        count, most = len(self.noise), self.outline.most
        s = torch.from_numpy(at).repeat(count, most)
        branch = torch.arange(most).repeat_interleave(number).expand(count, -1)
        share = padding(self.branches, most).repeat_interleave(number, 1)
        exact = Frames(self.frames.centre.double(), self.frames.scale.double(), self.frames.angle.double())
        return exact(self.outline(s, branch)), share + torch.from_numpy(np.log(weight)).repeat(most)

    def _smooth(
        self, x: Float[Tensor, "B n 2"], alpha: Float[Tensor, "B n"], variance: Float[Tensor, "B n"]
    ) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B n 2"]]:
        """Log of the summed kernels, and the mean of the nodes under them."""
        nodes, log_weight = self._nodes
        rows = max(1, _TILE_VALUES // nodes.shape[1])
        tasks = max(1, rows // max(1, x.shape[1]))
        total, mean = torch.empty_like(alpha), torch.empty_like(x)
        for first in range(0, len(x), tasks):
            for low in range(0, x.shape[1], rows):
                tile, task = (slice(first, first + tasks), slice(low, low + rows)), slice(first, first + tasks)
                total[tile], mean[tile] = _kernel_mean(
                    x[tile], alpha[tile], variance[tile], nodes[task], log_weight[task]
                )
        return total, mean


def _kernel_mean(
    x: Float[Tensor, "b n 2"],
    alpha: Float[Tensor, "b n"],
    variance: Float[Tensor, "b n"],
    nodes: Float[Tensor, "b M 2"],
    log_weight: Float[Tensor, "b M"],
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 2"]]:
    scaled = torch.cat([alpha[..., None] * x, -0.5 * alpha.square()[..., None]], -1) / variance[..., None]
    lifted = torch.cat([nodes, nodes.square().sum(-1, keepdim=True)], -1)
    logits = (scaled @ lifted.mT).add_(log_weight[:, None])
    top = logits.detach().amax(-1, keepdim=True)
    # denormal numbers are slow, and add nothing
    weight = logits.sub_(top).clamp_(min=-700.0).exp_()
    total = weight.sum(-1, keepdim=True)
    log_total = (top + torch.log(total)).squeeze(-1) - 0.5 * x.square().sum(-1) / variance
    return log_total, weight @ nodes / total
