"""The schedules alpha and sigma that fluvial knows, and one made of a bandwidth."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.paths.base import GaussianPath


@checked
class CondOT(GaussianPath):
    r"""Straight path from noise to data: :math:`\alpha_t = t`, :math:`\sigma_t = 1 - (1 - \sigma_\min) t`.

    Source: Lipman et al. 2023, "Flow Matching for Generative Modeling", section 4.1, example II.

    Args:
        sigma_min: Standard deviation left around each datum at t = 1, in data units. 0 interpolates exactly.

    Raises:
        ValueError: If ``sigma_min`` is outside [0, 1).

    Example:
        >>> CondOT().bandwidth(torch.tensor(0.5))
        tensor(1.)
    """

    straight = True

    def __init__(self, sigma_min: float = 0.0) -> None:
        if not 0 <= sigma_min < 1:
            raise ValueError(f"sigma_min must be in [0, 1), got {sigma_min}")
        self.sigma_min = sigma_min

    def alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return t

    def sigma(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return (1 - t) + self.sigma_min * t

    def one_minus_alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return 1 - t

    def alpha_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return torch.ones_like(t)

    def sigma_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return torch.full_like(t, self.sigma_min - 1)


@checked
class VP(GaussianPath):
    r"""Variance-preserving diffusion path, time reversed so that data is at ``t = 1``.

    With :math:`s = 1 - t` and :math:`B(s) = \beta_\min s + (\beta_\max - \beta_\min) s^2 / 2`,
    :math:`\alpha_t = e^{-B/2}` and :math:`\sigma_t = \sqrt{1 - e^{-B}}`. At ``t = 0`` alpha is .0066, not 0, with the
    default rates; at ``t = 1`` the rate of sigma is infinite.

    Source: Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations", appendix B;
    Lipman et al. 2023, section 4.1, example I.

    Args:
        beta_min: Noising rate at the data end.
        beta_max: Noising rate at the noise end.

    Raises:
        ValueError: Unless ``0 < beta_min <= beta_max``.

    Example:
        >>> path, t = VP(), torch.tensor(0.3, dtype=torch.float64)
        >>> round(float(path.alpha(t) ** 2 + path.sigma(t) ** 2), 12)
        1.0
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < beta_min <= beta_max < math.inf:
            raise ValueError(
                f"beta_min and beta_max must satisfy 0 < beta_min <= beta_max, got {beta_min} and {beta_max}"
            )
        self.beta_min = beta_min
        self.beta_max = beta_max

    def _noised(self, t: Tensor) -> Tensor:
        s = 1 - t
        return s * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * s)

    def _rate(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * (1 - t)

    def alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return torch.exp(-0.5 * self._noised(t))

    def sigma(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return torch.sqrt(-torch.expm1(-self._noised(t)))

    def one_minus_alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return -torch.expm1(-0.5 * self._noised(t))

    def alpha_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return 0.5 * self._rate(t) * self.alpha(t)

    def sigma_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return -0.5 * self._rate(t) * torch.exp(-self._noised(t)) / self.sigma(t)


class Cosine(GaussianPath):
    r"""Trigonometric path :math:`\alpha_t = \sin(\pi t / 2)`, :math:`\sigma_t = \cos(\pi t / 2)`; variance preserving.

    Source: Albergo and Vanden-Eijnden 2023, "Building Normalizing Flows with Stochastic Interpolants", section 2.

    Example:
        >>> Cosine().sigma(torch.tensor([0.0, 1.0]))
        tensor([1., 0.])
    """

    def alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return torch.sin(0.5 * math.pi * t)

    def sigma(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return torch.sin(0.5 * math.pi * (1 - t))

    def one_minus_alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return 2 * torch.sin(0.25 * math.pi * (1 - t)) ** 2

    def alpha_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return 0.5 * math.pi * self.sigma(t)

    def sigma_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return -0.5 * math.pi * self.alpha(t)


@checked
class Polynomial(GaussianPath):
    r"""Convex polynomial path :math:`\alpha_t = t^n`, :math:`\sigma_t = 1 - t^n`; ``n = 1`` is :class:`CondOT`.

    Args:
        n: Exponent, at least 1.

    Raises:
        ValueError: If ``n < 1``: the path would start with infinite speed.

    Example:
        >>> Polynomial(2).alpha(torch.tensor(0.5))
        tensor(0.2500)
    """

    def __init__(self, n: float) -> None:
        if not 1 <= n < math.inf:
            raise ValueError(f"n must be at least 1, got {n}")
        self.n = n

    def alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return t**self.n

    def sigma(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.one_minus_alpha(t)

    def one_minus_alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        late = (1 - t).clamp(max=0.5)
        return torch.where(t < 0.5, 1 - t**self.n, -torch.expm1(self.n * torch.log1p(-late)))

    def alpha_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.n * t ** (self.n - 1)

    def sigma_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return -self.alpha_dot(t)


@checked
class FromBandwidth(GaussianPath):
    r"""Convex path with a bandwidth of one's own: :math:`\alpha = 1 / (1 + h)`, :math:`\sigma = h / (1 + h)`.

    All Gaussian paths share one exact flow and differ by how fast the bandwidth falls, so a bandwidth is all that a
    schedule decides. :math:`h_t = (1 - t) / t` is :class:`CondOT`. Both functions are called with float64 times.
    The path cannot be differentiated in t at t = 0, where its parts are quotients of infinities.

    Args:
        h: Bandwidth, a decreasing function of t from infinity (at t = 0) to 0 or a positive rest (at t = 1).
        h_dot: Its time derivative.

    Example:
        >>> path = FromBandwidth(lambda t: (1 - t) / t, lambda t: -1 / t**2)
        >>> path.alpha(torch.tensor([0.0, 0.25, 1.0]))
        tensor([0.0000, 0.2500, 1.0000])
    """

    # The rates are quotients of infinities at t = 0: they are taken this far inside, where float64 still resolves them.
    _first = 1e-9

    def __init__(self, h: Callable[[Tensor], Tensor], h_dot: Callable[[Tensor], Tensor]) -> None:
        self.h = h
        self.h_dot = h_dot

    def alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return (1 / (1 + self.h(t.double()))).to(t.dtype)

    def sigma(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        h = self.h(t.double())
        return torch.where(h > 1, 1 / (1 + 1 / h), h / (1 + h)).to(t.dtype)

    def one_minus_alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.sigma(t)

    def alpha_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        inside = t.double().clamp_min(self._first)
        return (-self.h_dot(inside) / (1 + self.h(inside)) ** 2).to(t.dtype)

    def sigma_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return -self.alpha_dot(t)
