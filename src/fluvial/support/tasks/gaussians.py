r"""Gaussian mixtures, whose density and velocity are known in closed form.

Component k has mean :math:`\mu_k` and covariance :math:`\Sigma_k = U_k \mathrm{diag}(\lambda) U_k^T`. At time t it is a
Gaussian with covariance :math:`\alpha^2 \Sigma_k + \sigma^2 I`, which says how likely a point comes from it, and on it
the velocity is linear:

.. math::
    u_k(x) = \dot\alpha \mu_k + U_k \, \mathrm{diag}\Big(\frac{\alpha \dot\alpha \lambda + \sigma \dot\sigma}
    {\alpha^2 \lambda + \sigma^2}\Big) U_k^T (x - \alpha \mu_k).

Nothing is divided by t or by sigma alone, so both ends of time are exact.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.support.tasks.base import SyntheticFamily, Truth, require_counts
from fluvial.support.tasks.draws import choices, padding
from fluvial.support.tasks.rates import Rates, check_points, rates

_LOG_2PI = math.log(2 * math.pi)
FEWEST, MOST = 2, 8


@dataclass(frozen=True)
class GaussianMixturesTruth(Truth):
    """``B`` mixtures with uniform weights, padded to one number of components.

    Args:
        mean: Means, shape ``(B, K, d)``.
        factor: ``F`` in the covariance ``F F^T + ridge I``, shape ``(B, K, d, d)``.
        count: Components that are used, the first ones, shape ``(B,)``.
        ridge: Variance added in every direction, in data units squared.
    """

    mean: Float[Tensor, "B K d"]
    factor: Float[Tensor, "B K d d"]
    count: Int[Tensor, "B"]
    ridge: float
    has_density = True
    has_velocity = True

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "B n d"]:
        which = choices(self.count, n, generator)
        z = torch.randn(len(which), n, self.mean.shape[2], generator=generator)
        x = math.sqrt(self.ridge) * torch.randn(z.shape, generator=generator)
        x += self.mean.gather(1, which[..., None].expand(z.shape))
        for k in range(self.mean.shape[1]):
            x += (z * (which == k)[..., None]) @ self.factor[:, k].mT
        return x

    def log_density(self, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n"]:
        check_points(x, len(self.count), self.mean.shape[2])
        still = torch.ones(x.shape[:2], dtype=torch.float64), torch.zeros(x.shape[:2], dtype=torch.float64)
        total = torch.full(x.shape[:2], -torch.inf, dtype=torch.float64)
        for logit, _, _ in self._components(x.double(), Rates(still[0], still[1], still[1], still[1]).columns()):
            total = torch.logaddexp(total, logit)
        return total

    def velocity(
        self, x: Float[Tensor, "B n d"], t: Float[Tensor, "B n"], path: GaussianPath
    ) -> Float[Tensor, "B n d"]:
        check_points(x, len(self.count), self.mean.shape[2], t)
        now = rates(path, t).columns()
        top = torch.full((*x.shape[:2], 1), -torch.inf, dtype=torch.float64)
        total, value = torch.zeros_like(top), torch.zeros(x.shape, dtype=torch.float64)
        for k, (logit, rotated, spread) in enumerate(self._components(x.detach().double(), now)):
            slope = (rotated * now.gain(spread)) @ self._axes[1][:, k].mT
            velocity = now.alpha_dot * self.mean[:, k, None].double() + slope
            higher = torch.maximum(top, logit[..., None])
            kept, weight = torch.exp(top - higher), torch.exp(logit[..., None] - higher)
            top, total, value = higher, kept * total + weight, kept * value + weight * velocity
        return (value / total).to(x.dtype)

    @cached_property
    def _axes(self) -> tuple[Float[Tensor, "B K d"], Float[Tensor, "B K d d"]]:
        """Variances along the principal axes of each component, and the axes as columns; float64."""
        factor = self.factor.double()
        variance, axes = torch.linalg.eigh(factor @ factor.mT)
        return variance.clamp_min(0.0) + self.ridge, axes

    @cached_property
    def _log_weight(self) -> Float[Tensor, "B K"]:
        return padding(self.count, self.mean.shape[1])

    def _components(
        self, x: Float[Tensor, "B n d"], now: Rates
    ) -> Iterator[tuple[Float[Tensor, "B n"], Float[Tensor, "B n d"], Float[Tensor, "B 1 d"]]]:
        """Of each component: log of weight times density, the point in its axes about its mean, and its variances."""
        variances, axes = self._axes
        for k in range(self.mean.shape[1]):
            rotated = (x - now.alpha * self.mean[:, k, None]) @ axes[:, k]
            spread = variances[:, k, None]
            total = now.alpha.square() * spread + now.sigma.square()
            logit = -0.5 * (rotated.square() / total + torch.log(total) + _LOG_2PI).sum(-1)
            yield logit + self._log_weight[:, k, None], rotated, spread


@checked
class GaussianMixtures(SyntheticFamily):
    r"""Mixtures of 2 to 8 Gaussians with uniform weights.

    Means are :math:`\mu \sim 5\, N(0, I)`, covariances :math:`F F^T + 0.1 I` with :math:`F_{ij} \sim N(0, 1)`.

    Args:
        dim: Dimension of the points.
        mean_scale: Standard deviation of the means.
        factor_scale: Standard deviation of the entries of ``F``.
        ridge: Variance added in every direction.

    Raises:
        ValueError: If ``dim`` is below 1, ``ridge`` not positive or a scale negative.

    Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", ``gaussian_mixture``.

    Example:
        >>> found = GaussianMixtures(3).batch(4, m=5, n=7, generator=torch.Generator().manual_seed(0))
        >>> found.support.shape, found.targets.shape, found.truth.log_density(found.targets).shape
        (torch.Size([4, 5, 3]), torch.Size([4, 7, 3]), torch.Size([4, 7]))
    """

    name: ClassVar[str] = "gmm"

    def __init__(self, dim: int = 2, *, mean_scale: float = 5.0, factor_scale: float = 1.0, ridge: float = 0.1) -> None:
        require_counts(dim=dim)
        if not (mean_scale >= 0 and factor_scale >= 0 and ridge > 0):
            raise ValueError(
                f"mean_scale and factor_scale must not be negative and ridge must be positive, "
                f"got {mean_scale}, {factor_scale} and {ridge}"
            )
        self.dim, self.mean_scale, self.factor_scale, self.ridge = dim, mean_scale, factor_scale, ridge

    def draw(self, count: int, generator: torch.Generator) -> GaussianMixturesTruth:
        """``count`` mixtures; all draws from ``generator``."""
        require_counts(count=count)
        number = torch.randint(FEWEST, MOST + 1, (count,), generator=generator)
        mean = self.mean_scale * torch.randn(count, MOST, self.dim, generator=generator)
        factor = self.factor_scale * torch.randn(count, MOST, self.dim, self.dim, generator=generator)
        return GaussianMixturesTruth(mean, factor, number, self.ridge)
