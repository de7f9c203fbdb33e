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
# Weights this many nats below the top one count for nothing.
_DEPTH = 80.0


def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of rounding to a floating type."""
    return 0.5 * torch.finfo(dtype).eps


def row_norms(x: Tensor) -> Tensor:
    """Norms of rows from above, float64 ``(B,)``, without a float64 copy of the rows."""
    norms = torch.linalg.vector_norm(x, dim=1).double()
    if x.dtype == torch.float32 and not bool(torch.isfinite(norms).all()):  # a square may have overflowed
        norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    above: Tensor = norms * (1 + 1e-3) + 1e-18  # sums in float32, of squares that may have underflowed
    return above


def product_error(query: Query, support: Support, dtype: torch.dtype) -> Tensor:
    """Usual size of the largest rounding error of a row's exponents from a product in ``dtype``; float64, ``(B,)``.

    Infinite where the product could overflow.
    """
    size = row_norms(query.x)
    product = size * support.radius + 0.5 * query.alpha * support.radius**2
    exponent = query.gain * product
    error = unit_roundoff(dtype) * (exponent + _prior_size(query, support, exponent))
    largest = 0.125 * torch.finfo(dtype).max
    safe = (torch.maximum(size, product) * query.gain.clamp_min(1.0) < largest) & (support.radius**2 < largest)
    return torch.where(safe & (query.gain < _LARGEST_GAIN), error, torch.inf)


def _prior_size(query: Query, support: Support, exponent: Tensor) -> Tensor | float:
    """Largest log-prior, relative to the highest, of a point that can matter; exponents are at most ``exponent``."""
    if query.log_prior is not None:
        return exponent + _DEPTH
    if support.log_prior is None or query.labels is not None:  # a class may lie below the highest as a whole
        return support.prior_range
    return torch.clamp(exponent + _DEPTH, max=support.prior_range)


def distance_error(query: Query, support: Support, top: Tensor) -> Tensor:
    """Bound on the error of exponents from differences in float64 of all points that matter; float64, ``(B,)``.

    Args:
        query: The rows.
        support: The points.
        top: Largest exponent of each row, the constant included, ``(B,)``.
    """
    roundoff, lowest = unit_roundoff(torch.float64), 1 + _DEPTH - top
    size = row_norms(query.x)
    moved = 4 * roundoff * (size + 2 * query.alpha * support.extent) / query.sigma
    relative = 16 * roundoff * rounding_bound(support.dim)
    error: Tensor = relative * lowest + moved * (2 * lowest).sqrt() + moved.square()
    return error


def rounding_bound(dim: int) -> float:
    """What :func:`product_error` is to be multiplied with for a bound that no order of summation can break."""
    return dim + 8.0


class Exponents:
    """Exponents of a block of rows, for one tile of points after the other; NaN at rows that are not finite.

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
        if self._exact:  # infinity less a point would look like a point far away
            self._x.masked_fill_(~torch.isfinite(self._x), torch.nan)

    def __call__(self, values: Tensor, squared_norms: Tensor, out: Tensor | None = None) -> Tensor:
        """Exponents of ``n`` points, shape ``(b, n)``, each row up to a constant; written to ``out``."""
        if self._exact:
            distance = torch.cdist(self._x, values, compute_mode="donot_use_mm_for_euclid_dist")
            return torch.mul(distance.mul_(self._narrow).square_(), -0.5, out=out)
        product = inner(self._x, values)
        if self._late:
            product.mul_(self._gain)
        return torch.addcmul(product, self._decay, squared_norms[None].to(self.dtype), out=out)


def prior_level(query: Query, support: Support) -> Tensor | float:
    """Largest log-prior, which exponents are relative to: else its size would cost them their digits."""
    if query.log_prior is None:
        return support.prior_level
    return 0.0 if query.level is None else query.level


def pair_exponents(support: Support, query: Query, rows: Tensor, points: Tensor) -> Tensor:
    """Exact exponents of pairs, ``(P,)``: float64, from differences, priors included."""
    apart = query.precise(support, rows) - query.alpha[rows, None] * support.values(points, torch.float64)
    exponents = -0.5 * (apart.square().sum(1) / query.sigma[rows].square())
    if query.log_prior is not None:
        level = 0.0 if query.level is None else query.level[rows]
        return exponents + (query.log_prior[rows, points].double() - level)
    prior = support.log_prior
    return exponents if prior is None else exponents + (prior[points].double() - support.prior_level)


def tilt(logits: Tensor, support: Support, query: Query, points: slice) -> Tensor:
    """Add priors less :func:`prior_level` to the exponents of some points and exclude other labels, in place."""
    if query.log_prior is not None:
        prior = query.log_prior[:, points]
        logits += (prior if query.level is None else prior.double() - query.level[:, None]).to(logits.dtype)
    elif support.log_prior is not None:
        logits += (support.log_prior[points].double() - support.prior_level).to(logits.dtype)
    if query.labels is not None and support.labels is not None:
        other = (support.labels[points] != query.labels[:, None]) & (query.labels >= 0)[:, None]
        logits.masked_fill_(other, -torch.inf)
    return logits


def log_total(support: Support, query: Query) -> Tensor:
    """Log of the sum of each row's unnormalised prior weights, float64 ``(B,)``."""
    if query.log_prior is not None:
        return torch.logsumexp(query.log_prior.double(), 1)
    prior, labels = support.log_prior, support.labels
    prior = torch.zeros(len(support), dtype=torch.float64, device=query.x.device) if prior is None else prior.double()
    whole = torch.logsumexp(prior, 0)
    if query.labels is None or labels is None:
        return whole.expand(len(query.x))
    total = torch.empty(len(query.x), dtype=torch.float64, device=prior.device)
    for label in torch.unique(query.labels):
        members = prior[labels == label] if label >= 0 else prior
        total[query.labels == label] = torch.logsumexp(members, 0)
    return total
