r"""Exponents of the kernel weights, and how accurately they can be had.

Up to a constant of the row, the exponent of point ``s_i`` at ``x`` is

.. math:: \ell_i = \frac{\alpha}{\sigma^2} \langle x, s_i \rangle - \frac{\alpha^2}{2 \sigma^2} \|s_i\|^2
          = -\frac{\alpha^2}{2 \sigma^2} \|x/\alpha - s_i\|^2 + \text{const}.

The first form is one matrix product. Its rounding error is at most about
:math:`\epsilon \frac{\alpha}{\sigma^2} (\|x\| r + \alpha r^2 / 2)` with ``r`` the largest norm in the support:
harmless early, unbounded as sigma falls. The second subtracts before it squares, so its error stays small where it
matters (at points near ``x/alpha``) at several times the cost. Each row takes the cheapest way that is accurate enough.
"""

from enum import IntEnum

import torch
from torch import Tensor

# Largest tolerated rounding error of an exponent, by the dtype of x.
_TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11}

# Beyond it a product overflows before a small radius makes it harmless.
_LARGEST_GAIN = 1e30


class Way(IntEnum):
    """How a row's exponents are computed, from cheap to accurate."""

    PRODUCT = 0
    PRODUCT_FLOAT64 = 1
    DISTANCE = 2


def accurate_way(x: Tensor, alpha: Tensor, sigma: Tensor, radius: float) -> Tensor:
    """Cheapest accurate :class:`Way` of each row, shape ``(B,)``; ``x`` is ``(B, d)`` less alpha times the shift."""
    size = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    gain = alpha / sigma.square()
    error = gain * (size * radius + 0.5 * alpha * radius**2)
    tolerance = _TOLERANCE[x.dtype]
    native = 0.5 * torch.finfo(x.dtype).eps * error <= tolerance
    double = 0.5 * torch.finfo(torch.float64).eps * error <= tolerance
    native, double = (safe & (gain < _LARGEST_GAIN) for safe in (native, double))
    return torch.where(native, int(Way.PRODUCT), torch.where(double, int(Way.PRODUCT_FLOAT64), int(Way.DISTANCE)))


def exponents(way: Way, x: Tensor, alpha: Tensor, sigma: Tensor, values: Tensor, squared_norms: Tensor) -> Tensor:
    """Exponents of ``n`` points at ``b`` rows, shape ``(b, n)``, each row up to a constant (see
    :func:`row_constant`)."""
    if way == Way.DISTANCE:
        scaled = x.double() / alpha[:, None]
        distance = torch.cdist(scaled, values.double(), compute_mode="donot_use_mm_for_euclid_dist")
        return -0.5 * (distance * (alpha / sigma)[:, None]).square()
    dtype = torch.float64 if way == Way.PRODUCT_FLOAT64 else x.dtype
    gain, decay = (part[:, None].to(dtype) for part in (alpha / sigma.square(), -0.5 * (alpha / sigma).square()))
    product: Tensor = torch.addmm(decay * squared_norms.to(dtype), x.to(dtype) * gain, values.to(dtype).T)
    return product


def row_constant(way: Way, x: Tensor, sigma: Tensor) -> Tensor:
    r"""What to add to a row's exponents to get :math:`-\|x - \alpha s_i\|^2 / 2 \sigma^2`; float64, shape ``(b,)``."""
    if way == Way.DISTANCE:
        return torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    ratio: Tensor = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64) / sigma
    return -0.5 * ratio.square()
