r"""Spherical shells: thin sets on which an isotropic kernel spends its weight outside of the data.

The radius is :math:`|R_k + \tau z|` with :math:`z \sim N(0, 1)` and the direction uniform, so the density is
:math:`q(|x|) / (S_d |x|^{d-1})` with q the folded mixture of Gaussians and :math:`S_d` the area of the unit sphere. The
velocity is an integral over the radius alone, see :mod:`fluvial.support.tasks.radial`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.support.tasks.base import SyntheticFamily, Truth, require_counts
from fluvial.support.tasks.draws import choices, padding, uniform
from fluvial.support.tasks.radial import NODES, RadialQuery, radial_mean
from fluvial.support.tasks.rates import Rates, check_points, rates

FEWEST, MOST = 2, 5
_TILE_ROWS = 2048


@dataclass(frozen=True)
class ShellsTruth(Truth):
    """``B`` sets of shells about the origin, as likely as one another, padded to one number.

    Args:
        radius: Shape ``(B, K)``.
        count: Shells that are used, the first ones, shape ``(B,)``.
        dim: Dimension of the points.
        noise: Standard deviation of the radial noise.
        nodes: Quadrature nodes over the radius.
    """

    radius: Float[Tensor, "B K"]
    count: Int[Tensor, "B"]
    dim: int
    noise: float
    nodes: int = NODES
    has_density = True
    has_velocity = True

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "B n d"]:
        radius = self.radius.gather(1, choices(self.count, n, generator))
        radius = radius + self.noise * torch.randn(radius.shape, generator=generator)
        direction = torch.randn(*radius.shape, self.dim, generator=generator)
        return radius[..., None] * normalize(direction, dim=-1)

    def log_density(self, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n"]:
        check_points(x, len(self.count), self.dim)
        length = torch.linalg.vector_norm(x.double(), dim=-1)
        rho, centre = length[..., None], self.radius[:, None].double()
        folded = (
            torch.log1p(torch.exp(-2 * rho * centre / self.noise**2)) - 0.5 * ((rho - centre) / self.noise).square()
        )
        found = torch.logsumexp(padding(self.count, self.radius.shape[1])[:, None] + folded, -1)
        found = found - 0.5 * math.log(2 * math.pi * self.noise**2)
        half = self.dim / 2
        log_area = math.log(2) + half * math.log(math.pi) - math.lgamma(half)
        # infinite at the origin, where the density is unless d = 1
        fall = (self.dim - 1) * torch.log(length) if self.dim > 1 else torch.zeros_like(length)
        return found - log_area - fall

    def velocity(
        self, x: Float[Tensor, "B n d"], t: Float[Tensor, "B n"], path: GaussianPath
    ) -> Float[Tensor, "B n d"]:
        check_points(x, len(self.count), self.dim, t)
        now, points = rates(path, t), x.detach().double()
        length = torch.linalg.vector_norm(points, dim=-1)
        datum, noise = self._radial_means(length, now)
        # where sigma is below its floor: late in time the noise is in proportion to it
        speed = now.alpha_dot * datum + now.sigma_dot * (noise * now.sigma / now.floored_sigma)
        # at the origin the velocity is zero by symmetry
        direction: Tensor = points / length.clamp_min(1e-300)[..., None]
        return (speed[..., None] * direction).to(x.dtype)

    def _radial_means(self, length: Float[Tensor, "B n"], now: Rates) -> tuple[
        Float[Tensor, "B n"], Float[Tensor, "B n"]
    ]:  # fmt: skip
        """Posterior means of datum and noise along each point."""
        task = torch.arange(len(length)).repeat_interleave(length.shape[1])
        log_weight = padding(self.count, self.radius.shape[1])
        columns = (length.flatten(), now.alpha.flatten(), now.floored_sigma.flatten())
        datum, noise = torch.empty_like(columns[0]), torch.empty_like(columns[0])
        for low in range(0, len(task), _TILE_ROWS):
            tile = slice(low, low + _TILE_ROWS)
            laws = (self.radius[task[tile]].double().numpy(), log_weight[task[tile]].numpy())
            sizes, alpha, sigma = (column[tile].numpy() for column in columns)
            means = radial_mean(RadialQuery(sizes, alpha, sigma, *laws, self.noise, self.dim), self.nodes)
            datum[tile], noise[tile] = (torch.from_numpy(mean) for mean in means)
        return datum.reshape(length.shape), noise.reshape(length.shape)


@checked
class Shells(SyntheticFamily):
    r"""Two to five spherical shells about the origin, as likely as one another.

    Radii are uniform in [0, 5], the radial noise is :math:`0.3\, N(0, 1)`, directions are uniform.

    Args:
        dim: Dimension of the points.
        largest_radius: Upper end of the radii, in data units.
        noise: Standard deviation of the radial noise.

    Raises:
        ValueError: If ``dim`` is below 1, or a size is not positive.

    Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", ``spherical_shells``; the radii
    are calibrated to its effective sample sizes.

    Example:
        >>> found = Shells(8).batch(4, m=5, n=7, generator=torch.Generator().manual_seed(0))
        >>> found.support.shape, found.truth.velocity(found.targets, torch.full((4, 7), 0.5), fv.CondOT()).shape
        (torch.Size([4, 5, 8]), torch.Size([4, 7, 8]))
    """

    name: ClassVar[str] = "shells"

    def __init__(self, dim: int = 8, *, largest_radius: float = 5.0, noise: float = 0.3) -> None:
        require_counts(dim=dim)
        if not (0 < largest_radius < math.inf and 0 < noise < math.inf):
            raise ValueError(f"largest_radius and noise must be positive, got {largest_radius} and {noise}")
        self.dim, self.largest_radius, self.noise = dim, largest_radius, noise

    def draw(self, count: int, generator: torch.Generator) -> ShellsTruth:
        """``count`` tasks; all draws from ``generator``."""
        require_counts(count=count)
        radius = uniform((count, MOST), 0.0, self.largest_radius, generator)
        number = torch.randint(FEWEST, MOST + 1, (count,), generator=generator)
        return ShellsTruth(radius, number, self.dim, self.noise)
