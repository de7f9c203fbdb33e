r"""Random Fourier densities on a box: :math:`\log p(x) = -\sum_j a_j \cos(w_j \cdot x + \varphi_j) - \log Z`.

They are sampled by rejection, exactly. The normaliser is a Gauss-Legendre quadrature in one or two dimensions (to
rounding), and above a mean over 2^16 scrambled Sobol points with the energy as control variate (log Z to 1e-3). In one
or two dimensions the velocity is known too: the posterior of the datum is integrated on nodes in the part of the box
that is near x / alpha, and on a grid the energy is a matrix product,
:math:`\cos(u + v) = \cos u \cos v - \sin u \sin v`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from torch.quasirandom import SobolEngine

from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.support.tasks.base import SyntheticFamily, Truth, require_counts
from fluvial.support.tasks.draws import uniform
from fluvial.support.tasks.rates import check_points, rates

HALF_SIDE = 3.5
NODES = 48
_GRID_NODES = 64
_SOBOL_POINTS = 2**16
_TILE_VALUES = 2**21
_DEPTH = 44.0
"""Nodes are laid where the kernel is at most that many nats below its maximum."""


@dataclass(frozen=True)
class FourierTruth(Truth):
    """``B`` densities of ``J`` modes each.

    Args:
        frequency: Shape ``(B, J, d)``, in radians per data unit.
        amplitude: Positive, shape ``(B, J)``.
        phase: In radians, shape ``(B, J)``.
    """

    frequency: Float[Tensor, "B J d"]
    amplitude: Float[Tensor, "B J"]
    phase: Float[Tensor, "B J"]
    has_density = True

    @property
    def dim(self) -> int:
        """Dimension of the points."""
        return self.frequency.shape[2]

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "B n d"]:
        count, modes, dim = self.frequency.shape
        x, found = torch.empty(count, n, dim), torch.zeros(count, dtype=torch.long)
        bound = self.amplitude.sum(1, keepdim=True)
        round_size = min(int(1.2 * n * math.exp(float(bound.max()))) + 8, max(8, _TILE_VALUES // (count * modes)))
        while int(found.min()) < n:
            proposal = uniform((count, round_size, dim), -HALF_SIDE, HALF_SIDE, generator)
            chance = torch.rand(count, round_size, generator=generator)
            accepted = torch.log(chance) < -self.energy(proposal) - bound
            place = found[:, None] + torch.cumsum(accepted, 1) - 1
            task, row = torch.nonzero(accepted & (place < n), as_tuple=True)
            x[task, place[task, row]] = proposal[task, row]
            found += accepted.sum(1)
        return x

    def energy(self, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n"]:
        """``sum_j a_j cos(w_j . x + phi_j)`` at each point, in x's dtype."""
        frequency, amplitude, phase = (part.to(x.dtype) for part in (self.frequency, self.amplitude, self.phase))
        angle = (x @ frequency.mT).add_(phase[:, None])
        return (angle.cos_() @ amplitude[..., None]).squeeze(-1)

    def log_density(self, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n"]:
        check_points(x, len(self.phase), self.dim)
        inside = (x.abs() <= HALF_SIDE).all(-1)
        rows = max(1, _TILE_VALUES // self.phase.numel())
        energy = torch.cat([self.energy(part) for part in x.double().split(rows, 1)], 1)
        return torch.where(inside, -energy - self.log_normaliser[:, None], -torch.inf)

    @cached_property
    def log_normaliser(self) -> Float[Tensor, "B"]:
        """Log of Z, float64."""
        rows = max(1, _TILE_VALUES // self.phase.numel())
        if self.dim <= 2:
            points, weight = _grid(self.dim)
            levels = [torch.exp(-self._energy_at(part)) for part in points.split(rows)]
            return torch.log(torch.cat(levels, 1) @ weight)
        unit = SobolEngine(self.dim, scramble=True, seed=0).draw(_SOBOL_POINTS, dtype=torch.float64)
        energies = [self._energy_at(part) for part in (HALF_SIDE * (2 * unit - 1)).split(rows)]
        # the energy is a control variate: exp(-E) + E is nearly constant, and the mean of E is known
        total = sum((torch.exp(-energy) + energy).sum(1) for energy in energies)
        return self.dim * math.log(2 * HALF_SIDE) + torch.log(total / _SOBOL_POINTS - self.mean_energy)

    @cached_property
    def mean_energy(self) -> Float[Tensor, "B"]:
        """Mean of the energy over the box, float64: the mean of a cosine is a product of cardinal sines."""
        share = torch.sinc(self.frequency.double() * (HALF_SIDE / math.pi)).prod(-1)
        return (self.amplitude.double() * torch.cos(self.phase.double()) * share).sum(1)

    def _energy_at(self, points: Float[Tensor, "P d"]) -> Float[Tensor, "B P"]:
        return self.energy(points.expand(len(self.phase), -1, -1))


@dataclass(frozen=True)
class PlanarFourierTruth(FourierTruth):
    """The same in one or two dimensions, where the velocity is known.

    Args:
        nodes: Quadrature nodes along each axis.
    """

    nodes: int = NODES
    has_velocity = True

    def velocity(
        self, x: Float[Tensor, "B n d"], t: Float[Tensor, "B n"], path: GaussianPath
    ) -> Float[Tensor, "B n d"]:
        check_points(x, len(self.phase), self.dim, t)
        now = rates(path, t)
        # one dimension is two of which the second plays no part
        plane = pad(x.detach().double(), (0, 2 - self.dim)).reshape(-1, 2)
        task = torch.arange(len(x)).repeat_interleave(x.shape[1])
        alpha, sigma = now.alpha.flatten(), now.floored_sigma.flatten()
        rows = max(1, _TILE_VALUES // (4 * self.nodes * self.phase.shape[1]))
        tiles = (slice(low, low + rows) for low in range(0, len(task), rows))
        parts = [self._posterior_means(plane[tile], alpha[tile], sigma[tile], task[tile]) for tile in tiles]
        datum, noise = (torch.cat(part)[:, : self.dim].reshape(x.shape) for part in zip(*parts, strict=True))
        return (now.alpha_dot[..., None] * datum + now.sigma_dot[..., None] * noise).to(x.dtype)

    def _posterior_means(
        self, x: Float[Tensor, "r 2"], alpha: Float[Tensor, "r"], sigma: Float[Tensor, "r"], task: Tensor
    ) -> tuple[Float[Tensor, "r 2"], Float[Tensor, "r 2"]]:
        """Posterior means of datum and noise."""
        low, high = _window(x, alpha[:, None], sigma[:, None])
        at, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(self.nodes))
        nodes = low[..., None] + (high - low)[..., None] * (at + 1) / 2
        noise = (x[..., None] - alpha[:, None, None] * nodes) / sigma[:, None, None]
        kernel = -0.5 * noise.square()
        kernel = kernel - kernel.amax(-1, keepdim=True) + torch.log(weight)
        frequency = pad(self.frequency.double(), (0, 2 - self.dim))[task]
        first = frequency[:, :, 0, None] * nodes[:, None, 0] + self.phase.double()[task][..., None]
        second = frequency[:, :, 1, None] * nodes[:, None, 1]
        amplitude = self.amplitude.double()[task][..., None]
        energy = (amplitude * first.cos()).mT @ second.cos() - (amplitude * first.sin()).mT @ second.sin()
        logits = kernel[:, 0, :, None] + kernel[:, 1, None, :] - energy
        posterior = torch.softmax(logits.flatten(1), 1).reshape(logits.shape)
        shares = torch.stack([posterior.sum(2), posterior.sum(1)], 1)
        return (shares * nodes).sum(-1), (shares * noise).sum(-1)


def _window(
    x: Float[Tensor, "r 2"], alpha: Float[Tensor, "r 1"], sigma: Float[Tensor, "r 1"]
) -> tuple[Float[Tensor, "r 2"], Float[Tensor, "r 2"]]:
    """Part of the box along each axis that is near ``x / alpha``; near its edge where that lies outside."""
    alpha = alpha.clamp_min(1e-12)
    centre, bandwidth = x / alpha, sigma / alpha
    outside = (centre.abs() - HALF_SIDE).clamp_min(0.0)
    beyond = 2 * _DEPTH * bandwidth.square()
    # how far the kernel reaches into the box: without cancellation where x is far outside
    depth = beyond / (torch.sqrt(outside.square() + beyond) + outside)
    nearest = centre.clamp(-HALF_SIDE, HALF_SIDE)
    return (nearest - depth).clamp_min(-HALF_SIDE), (nearest + depth).clamp_max(HALF_SIDE)


def _grid(dim: int) -> tuple[Float[Tensor, "P d"], Float[Tensor, "P"]]:
    """Gauss-Legendre nodes on the box, and their weights."""
    at, weight = (HALF_SIDE * torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(_GRID_NODES))
    axes = torch.meshgrid(*[at] * dim, indexing="ij")
    weights = torch.meshgrid(*[weight] * dim, indexing="ij")
    return torch.stack(axes, -1).reshape(-1, dim), torch.stack(weights).prod(0).flatten()


@checked
class FourierDensities(SyntheticFamily):
    r"""Smooth densities on the box [-3.5, 3.5]^d with ``max(30, 5 d)`` random modes.

    Frequencies are :math:`w \sim N(0, I)`, amplitudes :math:`a \sim U(0.3, 1) \cdot 0.5 / \sqrt{J}`, phases uniform.
    The density is known in any dimension, the velocity in one and two. Rejection accepts one proposal in
    :math:`e^{\sum a}`: 6 for ``dim`` 2, 18 for 16, 60 for 32.

    Args:
        dim: Dimension of the points.
        strength: The .5 in the amplitudes.

    Raises:
        ValueError: If ``dim`` is below 1 or ``strength`` is not positive.

    Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", ``RandomFourierDensity``.

    Example:
        >>> support, targets = FourierDensities(2).sample(5, 7, torch.Generator().manual_seed(0))
        >>> support.shape, bool((targets.abs() <= 3.5).all())
        (torch.Size([5, 2]), True)
    """

    name: ClassVar[str] = "fourier"

    def __init__(self, dim: int = 2, *, strength: float = 0.5) -> None:
        require_counts(dim=dim)
        if not 0 < strength < math.inf:
            raise ValueError(f"strength must be positive, got {strength}")
        self.dim, self.strength = dim, strength

    def draw(self, count: int, generator: torch.Generator) -> FourierTruth:
        """``count`` tasks; all draws from ``generator``."""
        require_counts(count=count)
        modes = max(30, 5 * self.dim)
        frequency = torch.randn(count, modes, self.dim, generator=generator)
        amplitude = uniform((count, modes), 0.3, 1.0, generator) * (self.strength / math.sqrt(modes))
        phase = uniform((count, modes), 0.0, 2 * math.pi, generator)
        kind = PlanarFourierTruth if self.dim <= 2 else FourierTruth
        return kind(frequency, amplitude, phase)
