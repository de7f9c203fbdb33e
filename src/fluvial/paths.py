r"""Gaussian probability paths between noise and data.

A path joins noise :math:`x_0 \sim N(0, I)` and data :math:`x_1` by

.. math:: x_t = \alpha_t x_1 + \sigma_t x_0, \qquad u_t = \dot\alpha_t x_1 + \dot\sigma_t x_0,

with :math:`\alpha` rising to 1 and :math:`\sigma` falling to (about) 0. Its bandwidth :math:`h_t = \sigma_t /
\alpha_t` is the width of the kernel with which the exact field of a data set smooths at time ``t``. Velocity
:math:`u`, score :math:`\nabla \log p_t`, denoiser :math:`E[x_1 | x_t]` and noise :math:`E[x_0 | x_t]` are linear
functions of one another given :math:`x_t`; :meth:`GaussianPath.convert` goes from any one to any other.

Rates and complements (:math:`1 - \alpha`) come in forms that stay exact at both ends of time. Every method keeps the
shape, dtype and device of ``t``.
"""

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Quantity = Literal["velocity", "score", "denoiser", "noise"]

__all__ = ["VP", "CondOT", "Cosine", "FromBandwidth", "GaussianPath", "PathSample", "Polynomial", "align"]


@dataclass(frozen=True)
class PathSample:
    """A point on a path and the conditional velocity there.

    Args:
        xt: Points, shape ``(B, *D)``.
        ut: Conditional velocities, shape ``(B, *D)``.
    """

    xt: Tensor
    ut: Tensor


def align(value: Tensor, x: Tensor) -> Tensor:
    """Shape a scalar or ``(B,)`` tensor so that it broadcasts over ``x`` of shape ``(B, *D)``.

    Raises:
        ValueError: If ``value`` is neither a scalar nor one number per row of ``x``.

    Example:
        >>> align(torch.zeros(3), torch.zeros(3, 2, 2)).shape
        torch.Size([3, 1, 1])
    """
    if value.ndim == 0:
        return value
    if value.ndim != 1 or value.shape[0] != x.shape[0]:
        raise ValueError(f"t must be a scalar or have shape ({x.shape[0]},), got {tuple(value.shape)}")
    return value.reshape(-1, *[1] * (x.ndim - 1))


def _check_quantity(argument: str, name: str) -> None:
    known = get_args(Quantity)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1, 0.0)[0]
        raise ValueError(f"{argument} must be one of {', '.join(known)}, got {name!r}; did you mean {near!r}?")


class GaussianPath(ABC):
    r"""What every path :math:`x_t = \alpha_t x_1 + \sigma_t x_0` offers; the five below say what alpha and sigma
    are."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Weight of the datum."""

    @abstractmethod
    def sigma(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Weight of the noise."""

    @abstractmethod
    def one_minus_alpha(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """``1 - alpha``, without cancellation near ``t = 1``."""

    @abstractmethod
    def alpha_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Time derivative of alpha."""

    @abstractmethod
    def sigma_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Time derivative of sigma."""

    def bandwidth(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Kernel width ``sigma / alpha`` in data units; infinite where alpha is 0."""
        return self.sigma(t) / self.alpha(t)

    def wronskian(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        r""":math:`\sigma \dot\alpha - \alpha \dot\sigma`, the determinant of (xt, ut) as a function of (x1, x0);
        positive."""
        return self.sigma(t) * self.alpha_dot(t) - self.alpha(t) * self.sigma_dot(t)

    def sample(self, x0: Float[Tensor, "B *D"], x1: Float[Tensor, "B *D"], t: Float[Tensor, "*T"]) -> PathSample:
        """Point at time ``t`` between each noise and datum, and the conditional velocity there.

        Args:
            x0: Noise, shape ``(B, *D)``.
            x1: Data, shape ``(B, *D)``.
            t: Times, a scalar or ``(B,)``.

        Example:
            >>> CondOT().sample(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor(0.25)).xt
            tensor([[0.2500, 0.2500]])
        """
        alpha, sigma = align(self.alpha(t), x1), align(self.sigma(t), x1)
        alpha_dot, sigma_dot = align(self.alpha_dot(t), x1), align(self.sigma_dot(t), x1)
        return PathSample(alpha * x1 + sigma * x0, alpha_dot * x1 + sigma_dot * x0)

    def convert(
        self,
        value: Float[Tensor, "B *D"],
        x: Float[Tensor, "B *D"],
        t: Float[Tensor, "*T"],
        *,
        source: str,
        target: str,
    ) -> Float[Tensor, "B *D"]:
        r"""Turn one description of the field at ``(x, t)`` into another.

        With ``m`` the denoiser and ``e`` the noise, ``x = alpha m + sigma e``, ``velocity = alpha' m + sigma' e`` and
        ``score = -e / sigma``.

        Args:
            value: The quantity named by ``source``, shape ``(B, *D)``.
            x: Points, shape ``(B, *D)``.
            t: Times, a scalar or ``(B,)``.
            source: ``"velocity"``, ``"score"``, ``"denoiser"`` or ``"noise"``.
            target: Likewise.

        Raises:
            ValueError: If a name is unknown, or the target is undetermined there: a denoiser from a score or noise
                where alpha = 0, a noise or score from a denoiser where sigma = 0, a score where sigma = 0.

        Example:
            >>> x, t = torch.tensor([[2.0]]), torch.tensor(0.5)
            >>> CondOT().convert(torch.tensor([[1.0]]), x, t, source="velocity", target="denoiser")
            tensor([[2.5000]])
        """
        _check_quantity("source", source)
        _check_quantity("target", target)
        if source == target:
            return value
        alpha, sigma = align(self.alpha(t), x), align(self.sigma(t), x)
        self._require_determined(alpha, sigma, source, target)
        if source == "score":
            value, source = -sigma * value, "noise"
        if target == "score":
            noise = value if source == "noise" else self.convert(value, x, t, source=source, target="noise")
            return -noise / sigma
        if source == target:
            return value
        alpha_dot, sigma_dot, det = (align(f(t), x) for f in (self.alpha_dot, self.sigma_dot, self.wronskian))
        if source == "velocity":
            return ((sigma * value - sigma_dot * x) if target == "denoiser" else (alpha_dot * x - alpha * value)) / det
        if source == "noise":
            return ((x - sigma * value) if target == "denoiser" else (alpha_dot * x - det * value)) / alpha
        noise = ((x - value) + align(self.one_minus_alpha(t), x) * value) / sigma
        return noise if target == "noise" else alpha_dot * value + sigma_dot * noise

    @staticmethod
    def _require_determined(alpha: Tensor, sigma: Tensor, source: str, target: str) -> None:
        from_noise = source in ("score", "noise") and target in ("denoiser", "velocity")
        if from_noise and bool((alpha == 0).any()):
            raise ValueError(
                f"{target} is not determined by the {source} where alpha = 0 (t = 0): move t inside (0, 1)"
            )
        by_sigma = target == "score" or (source == "denoiser" and target != "denoiser")
        if by_sigma and bool((sigma == 0).any()):
            raise ValueError(
                f"{target} is not determined by the {source} where sigma = 0 (t = 1): move t inside (0, 1)"
            )

    def time_at_sigma(self, sigma: float) -> float:
        """Time at which the noise's weight has fallen to ``sigma``; 1.0 if it never falls that far.

        Raises:
            ValueError: If ``sigma`` is outside (0, 1].

        Example:
            >>> round(CondOT().time_at_sigma(0.25), 6)
            0.75
        """
        if not 0 < sigma <= 1:
            raise ValueError(f"sigma must be in (0, 1], got {sigma}")
        low, high = 0.0, 1.0
        if float(self.sigma(torch.tensor(high, dtype=torch.float64))) >= sigma:
            return high
        for _ in range(60):
            middle = (low + high) / 2
            if float(self.sigma(torch.tensor(middle, dtype=torch.float64))) > sigma:
                low = middle
            else:
                high = middle
        return high

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


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
        return -torch.expm1(self.n * torch.log1p(-(1 - t)))

    def alpha_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return self.n * t ** (self.n - 1)

    def sigma_dot(self, t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return -self.alpha_dot(t)


class FromBandwidth(GaussianPath):
    r"""Convex path with a bandwidth of one's own: :math:`\alpha = 1 / (1 + h)`, :math:`\sigma = h / (1 + h)`.

    All Gaussian paths share one exact flow and differ by how fast the bandwidth falls, so a bandwidth is all that a
    schedule decides. :math:`h_t = (1 - t) / t` is :class:`CondOT`. Both functions are called with float64 times.

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
