"""A path's weights and their rates at each point's own time, and the checks that come before."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.paths import GaussianPath

_LEAST_SIGMA = 1e-7
"""Where sigma is smaller, the noise of a point is taken there: beyond, float64 no longer resolves it."""


@dataclass(frozen=True)
class Rates:
    """Weights of datum and noise and their time derivatives, float64, shape ``(B, n)`` or ``(B, n, 1)`` each."""

    alpha: Float[Tensor, "B n *one"]
    sigma: Float[Tensor, "B n *one"]
    alpha_dot: Float[Tensor, "B n *one"]
    sigma_dot: Float[Tensor, "B n *one"]

    @property
    def floored_sigma(self) -> Float[Tensor, "B n *one"]:
        """Sigma, at least 1e-7, for what divides by it."""
        return self.sigma.clamp_min(_LEAST_SIGMA)

    def gain(self, variance: Float[Tensor, "*s"] | float) -> Float[Tensor, "..."]:
        r"""Slope :math:`(\alpha\dot\alpha\lambda + \sigma\dot\sigma) / (\alpha^2\lambda + \sigma^2)` of the velocity
        along a direction in which the data are Gaussian with variance :math:`\lambda`; it broadcasts over it."""
        total = self.alpha.square() * variance + self.sigma.square()
        return (self.alpha * self.alpha_dot * variance + self.sigma * self.sigma_dot) / total

    def columns(self) -> "Rates":
        """The same with one more axis, shape ``(B, n, 1)``."""
        return Rates(*(part[..., None] for part in (self.alpha, self.sigma, self.alpha_dot, self.sigma_dot)))


def rates(path: GaussianPath, t: Float[Tensor, "B n"]) -> Rates:
    """Weights and rates at each time.

    Raises:
        ValueError: If a time is outside [0, 1], or the path's rate is infinite there.

    Example:
        >>> rates(fv.CondOT(), torch.full((1, 1), 0.25)).sigma
        tensor([[0.7500]], dtype=torch.float64)
    """
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"t must be in [0, 1], got values from {float(t.min()):g} to {float(t.max()):g}")
    times = t.detach().double()
    found = Rates(path.alpha(times), path.sigma(times), path.alpha_dot(times), path.sigma_dot(times))
    if not bool((torch.isfinite(found.alpha_dot) & torch.isfinite(found.sigma_dot)).all()):
        raise ValueError(f"{path} has an infinite rate at some t: move t below 1")
    return found


def check_points(x: Tensor, count: int, dim: int, t: Tensor | None = None) -> None:
    """Refuse points that do not belong to ``count`` tasks of dimension ``dim``, and times that do not fit them.

    Raises:
        TypeError: If an argument is no tensor.
        ValueError: If a shape does not fit.

    Example:
        >>> check_points(torch.zeros(2, 5, 3), 2, 4)
        Traceback (most recent call last):
        ValueError: x must have shape (2, n, 4), points of 2 tasks, got (2, 5, 3)
    """
    require_tensor("x", x)
    if x.ndim != 3 or x.shape[0] != count or x.shape[2] != dim:
        raise ValueError(f"x must have shape ({count}, n, {dim}), points of {count} tasks, got {tuple(x.shape)}")
    if t is not None:
        require_tensor("t", t)
        if t.shape != x.shape[:2]:
            raise ValueError(f"t must have shape {tuple(x.shape[:2])}, one time for each point, got {tuple(t.shape)}")
