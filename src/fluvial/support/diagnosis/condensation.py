r"""What a Gaussian with the data's covariance says of collapse, from its eigenvalues alone.

With ``m`` support points of :math:`N(0, \Lambda)` and queries :math:`\tilde x = x_1 + h z` that are none of theirs,
:math:`a_i = h^2 / \lambda_i`:

* the point tells :math:`I = \tfrac12 \sum_i \ln(1 + 1/a_i)` nats about its datum. About :math:`m e^{-I}` support points
  lie where the posterior is; at :math:`I = \ln m` one is left, and takes the weight (the condensation criterion);
* the effective sample size is about :math:`1 + (m - 1) E[(E k)^2 / E k^2]` with :math:`k` the kernel at a random
  support point, which is :math:`1 + (m - 1) \prod_i \frac{a_i + 2}{a_i + 1} \sqrt{\frac{a_i}{a_i + 4}}`;
* of the datum's variance, :math:`\sum_i \frac{\lambda_i h^2}{\lambda_i + h^2} / \sum_i \lambda_i` is undetermined.

Source: Biroli et al. 2024, "Dynamical Regimes of Diffusion Models" (condensation); Matsui Smola 2026,
"Support-Conditioned Flow Matching Is Kernel Smoothing" (effective sample size).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def condensation_bandwidth(eigenvalues: Float[Tensor, "B d"], count: int) -> Float[Tensor, " B"]:
    """Bandwidth at which a point of the path tells ``ln(count)`` nats about its datum.

    Args:
        eigenvalues: Of each task's covariance, not all 0.
        count: Support size, at least 2.

    Example:
        >>> float(condensation_bandwidth(torch.ones(1, 2, dtype=torch.float64), 5))
        0.5
    """
    return _solved(lambda h2: 0.5 * torch.log1p(eigenvalues / h2).sum(1), math.log(count), eigenvalues)


def undetermined(eigenvalues: Float[Tensor, "B d"], bandwidth: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Share of the datum's variance that a point of the path leaves open.

    Example:
        >>> float(undetermined(torch.ones(1, 3), torch.ones(1)))
        0.5
    """
    h2 = bandwidth.square()[:, None]
    left = torch.where(eigenvalues > 0, eigenvalues * h2 / (eigenvalues + h2), 0.0)  # not 0 / 0 at bandwidth 0
    return left.sum(1) / eigenvalues.sum(1)


def bandwidth_leaving(eigenvalues: Float[Tensor, "B d"], share: float) -> Float[Tensor, " B"]:
    """Bandwidth at which ``share`` of the datum's variance is undetermined; see :func:`undetermined`."""
    return _solved(lambda h2: -undetermined(eigenvalues, h2[:, 0].sqrt()), -share, eigenvalues)


def expected_size(eigenvalues: Float[Tensor, "B d"], m: int, bandwidth: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Effective sample size of ``m`` support points at held-out queries.

    Example:
        >>> one, half = torch.ones(1, 2, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
        >>> round(float(expected_size(one, 1000, half)), 1)
        191.4
    """
    positive = eigenvalues.clamp_min(1e-12 * float(eigenvalues.max()))
    a = bandwidth.square()[:, None] / positive
    return 1 + (m - 1) * (torch.log((a + 2) / (a + 1)) - 0.5 * torch.log1p(4 / a)).sum(1).exp()


def _solved(falling: Callable[[Tensor], Tensor], level: float, eigenvalues: Tensor) -> Tensor:
    """Bandwidths at which a function of their squares ``(B, 1)``, falling in them, is at ``level``."""
    middle = 0.5 * eigenvalues.sum(1).log()
    low, high = middle - 40, middle + 40
    for _ in range(80):
        middle = (low + high) / 2
        above = falling((2 * middle).exp()[:, None]) > level
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return high.exp()
