r"""Exponents of the kernel weights, and how accurately they can be had.

Up to a constant of the row, the exponent of point ``s_i`` at ``x`` is

.. math:: \ell_i = \frac{\alpha}{\sigma^2} \langle x, s_i \rangle - \frac{\alpha^2}{2 \sigma^2} \|s_i\|^2
          = -\frac{\alpha^2}{2 \sigma^2} \|x/\alpha - s_i\|^2 + \text{const}.

The first form is one matrix product. With unit roundoff :math:`\epsilon` its error is at most about
:math:`\epsilon \frac{\alpha}{\sigma^2} (\|x\| r + \alpha r^2 / 2)`, ``r`` the largest norm in the support: harmless
early, unbounded as sigma falls. The second subtracts before it squares, so its error stays small where it matters (at
points near ``x/alpha``) at several times the cost.
"""

import torch
from torch import Tensor

from fluvial.smoothing.products import inner
from fluvial.smoothing.query import Query, Way
from fluvial.smoothing.support import Support

# Largest rounding error of an exponent that is harmless whatever the weights, by the dtype of x.
HARMLESS = {torch.float32: 3e-5, torch.float64: 1e-11}

# Beyond it a product overflows before a small radius makes it harmless.
_LARGEST_GAIN = 1e30


def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of rounding to a floating type."""
    return 0.5 * torch.finfo(dtype).eps


def product_error(query: Query, support: Support, dtype: torch.dtype) -> Tensor:
    """Usual size of the largest rounding error of a row's exponents from a product in ``dtype``; float64, ``(B,)``.

    Infinite where the product could overflow.
    """
    size = torch.linalg.vector_norm(query.x, dim=1).double()
    radius = support.radius
    error = unit_roundoff(dtype) * query.gain * (size * radius + 0.5 * query.alpha * radius**2)
    return torch.where(query.gain < _LARGEST_GAIN, error, torch.inf)


def rounding_bound(dim: int) -> float:
    """What :func:`product_error` is to be multiplied with for a bound that no order of summation can break."""
    return dim + 8.0


class Exponents:
    """Exponents of a block of rows, for one tile of points after the other.

    Args:
        way: How to compute them.
        query: The rows.
        support: Whose values come; where they are fewer than coordinates, the exponents are scaled and not the rows.
    """

    def __init__(self, way: Way, query: Query, support: Support) -> None:
        self._exact = way in (Way.DISTANCE, Way.CANDIDATES)
        self.dtype = query.x.dtype if way == Way.PRODUCT else torch.float64
        self._gain = query.gain[:, None].to(self.dtype)
        self._decay = (-0.5 * (query.alpha / query.sigma).square())[:, None].to(self.dtype)
        self._narrow = (query.alpha / query.sigma)[:, None]
        self._late = not self._exact and support.dim > len(support)
        x = query.x if self.dtype == query.x.dtype else query.precise(support)
        self._x = x / query.alpha[:, None] if self._exact else x if self._late else x * self._gain

    def __call__(self, values: Tensor, squared_norms: Tensor, out: Tensor | None = None) -> Tensor:
        """Exponents of ``n`` points, shape ``(b, n)``, each row up to :func:`row_constant`; written to ``out``."""
        if self._exact:
            distance = torch.cdist(self._x, values, compute_mode="donot_use_mm_for_euclid_dist")
            return torch.mul(distance.mul_(self._narrow).square_(), -0.5, out=out)
        product = inner(self._x, values)
        if self._late:
            product.mul_(self._gain)
        return torch.addcmul(product, self._decay, squared_norms[None].to(self.dtype), out=out)


def row_constant(way: Way, query: Query, support: Support) -> Tensor:
    r"""What to add to a row's exponents to get :math:`-\|x - \alpha s_i\|^2 / 2 \sigma^2`; float64, shape ``(b,)``."""
    if way in (Way.DISTANCE, Way.CANDIDATES):
        return torch.zeros(len(query.x), dtype=torch.float64, device=query.x.device)
    ratio: Tensor = torch.linalg.vector_norm(query.precise(support), dim=1) / query.sigma
    return -0.5 * ratio.square()


def tilt(logits: Tensor, support: Support, query: Query, points: slice) -> Tensor:
    """Add priors to the exponents of some points and exclude other labels, in place."""
    if query.log_prior is not None:
        logits += query.log_prior[:, points].to(logits.dtype)
    elif support.log_prior is not None:
        logits += support.log_prior[points].to(logits.dtype)
    if query.labels is not None and support.labels is not None:
        other = (support.labels[points] != query.labels[:, None]) & (query.labels >= 0)[:, None]
        logits.masked_fill_(other, -torch.inf)
    return logits
