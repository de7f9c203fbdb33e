"""What every Gaussian path offers, whatever its alpha and sigma: arithmetic, through which NaN and infinity pass."""

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import as_times, require_beside, require_tensor
from fluvial.kinds import checked

Quantity = Literal["velocity", "score", "denoiser", "noise"]


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
    """Shape a scalar or ``(B,)`` tensor so that it broadcasts over ``x`` of shape ``(B, *D)``, in ``x``'s dtype.

    Example:
        >>> align(torch.zeros(3), torch.zeros(3, 2, 2)).shape
        torch.Size([3, 1, 1])
    """
    require_tensor("value", value)
    require_tensor("x", x)
    value = value.to(x.dtype)
    return value if value.ndim == 0 else value.reshape(-1, *[1] * (x.ndim - 1))


def _check_quantity(argument: str, name: str) -> None:
    known = get_args(Quantity)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1, 0.0)[0]
        raise ValueError(f"{argument} must be one of {', '.join(known)}, got {name!r}; did you mean {near!r}?")


class GaussianPath(ABC):
    r"""What every path :math:`x_t = \alpha_t x_1 + \sigma_t x_0` offers; a subclass says what alpha and sigma are."""

    straight: ClassVar[bool] = False
    """Whether alpha and sigma are linear in time and sum to 1 at both ends."""

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

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor | float) -> PathSample:
        """Point at time ``t`` between each noise and datum, and the conditional velocity there.

        Args:
            x0: Noise, shape ``(B, *D)``.
            x1: Data, shape ``(B, *D)``.
            t: Times in [0, 1], a scalar or ``(B,)``.

        Raises:
            TypeError: If an argument is no tensor.
            ValueError: If the shapes do not fit.

        Example:
            >>> fv.CondOT().sample(torch.zeros(1, 2), torch.ones(1, 2), 0.25).xt
            tensor([[0.2500, 0.2500]])
        """
        require_tensor("x0", x0)
        require_tensor("x1", x1)
        if x0.shape != x1.shape:
            raise ValueError(f"x0 and x1 must have one shape, got {tuple(x0.shape)} and {tuple(x1.shape)}")
        require_beside("x0", x0, "x1", x1)
        t = as_times(t, x1)
        alpha, sigma = align(self.alpha(t), x1), align(self.sigma(t), x1)
        alpha_dot, sigma_dot = align(self.alpha_dot(t), x1), align(self.sigma_dot(t), x1)
        return PathSample(alpha * x1 + sigma * x0, alpha_dot * x1 + sigma_dot * x0)

    @checked
    def convert(
        self,
        value: Float[Tensor, "B *D"],
        x: Float[Tensor, "B *D"],
        t: Tensor | float,
        *,
        source: str = "velocity",
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
                where alpha = 0, a noise or score from a denoiser where sigma = 0, a score where sigma = 0,
                anything from VP's infinite velocity at t = 1.

        Example:
            >>> x, t = torch.tensor([[2.0]]), torch.tensor(0.5)
            >>> fv.CondOT().convert(torch.tensor([[1.0]]), x, t, source="velocity", target="denoiser")
            tensor([[2.5000]])
        """
        _check_quantity("source", source)
        _check_quantity("target", target)
        if source == target:
            return value
        if value.shape != x.shape:
            raise ValueError(f"value must have the shape of x, {tuple(x.shape)}, got {tuple(value.shape)}")
        t = as_times(t, x)
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
            if not bool(torch.isfinite(det).all()):
                raise ValueError(f"{target} is not determined by the velocity where that is infinite: move t below 1")
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

    @checked
    def time_at_sigma(self, sigma: float) -> float:
        """Time at which the noise's weight has fallen to ``sigma``; 1.0 if it never falls that far.

        Raises:
            ValueError: If ``sigma`` is outside (0, 1].

        Example:
            >>> round(fv.CondOT().time_at_sigma(0.25), 6)
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

    @checked
    def time_at_bandwidth(self, bandwidth: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Times at which the bandwidth has fallen to given ones; 1 where it never falls that far.

        Args:
            bandwidth: In data units, any shape; float64 for times near the ends.

        Example:
            >>> fv.CondOT().time_at_bandwidth(torch.tensor([1.0, 3.0], dtype=torch.float64))
            tensor([0.5000, 0.2500], dtype=torch.float64)
        """
        low, high = torch.zeros_like(bandwidth), torch.ones_like(bandwidth)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.bandwidth(middle) > bandwidth
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return high

    @property
    def last_sigma(self) -> float:
        """Weight of the noise at ``t = 1``, in float64."""
        return float(self.sigma(torch.ones((), dtype=torch.float64)))

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"
