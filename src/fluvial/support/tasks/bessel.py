r"""The modified Bessel function of the first kind as the radial posterior needs it, over its whole range in float64.

With :math:`\nu = d/2 - 1`, the mean of :math:`e^{\kappa \omega_1}` over the unit sphere in d dimensions is
proportional to :math:`I_\nu(\kappa) \kappa^{-\nu}`, and the von Mises-Fisher law :math:`\propto e^{\kappa \omega_1}`
has mean resultant length :math:`A_d(\kappa) = I_{d/2}(\kappa) / I_{d/2-1}(\kappa)`. scipy's ``ive`` underflows for
small arguments and high orders, and gives up beyond 2^31; there the power series, Debye's expansion in the order and
Hankel's in the argument take over.

Sources: Mardia and Jupp 2000, "Directional Statistics", appendix 1; NIST Digital Library of Mathematical Functions,
10.25.2, 10.40.1, 10.41.3.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, ive

_SMALL = 1e-2
_HIGH_ORDER = 50.0


def von_mises_fisher(dim: int, kappa: Float[np.ndarray, "..."]) -> tuple[
    Float[np.ndarray, "..."], Float[np.ndarray, "..."]
]:  # fmt: skip
    r"""Log of :math:`I_\nu(\kappa) \kappa^{-\nu} e^{-\kappa}`, :math:`\nu = d/2 - 1`, and the mean resultant length.

    Args:
        dim: Dimension d, at least 1.
        kappa: Concentrations, not negative, float64.

    Returns:
        Both of kappa's shape; the length is in [0, 1).

    Example:
        >>> _, length = von_mises_fisher(3, np.array([0.0, 2.0]))  # coth(k) - 1 / k in three dimensions
        >>> length.round(6).tolist(), round(1 / math.tanh(2) - 1 / 2, 6)
        ([0.0, 0.537315], 0.537315)
    """
    low, high = _log_bessel(dim / 2 - 1, kappa), _log_bessel(dim / 2, kappa)
    return low, np.minimum(kappa * np.exp(high - low), 1.0)


def approximate_log_bessel(dim: int, kappa: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    r"""What :func:`von_mises_fisher` gives first, up to a constant and to less than one nat, much cheaper.

    It is the integral of the bound :math:`A_d(\kappa) > \kappa / (\nu + 1/2 + \sqrt{\kappa^2 + (\nu + 3/2)^2})`.

    Source: Amos 1974, "Computation of Modified Bessel Functions and Their Ratios", equation 9.
    """
    beta, shift = (dim + 1) / 2, (dim - 1) / 2
    root = np.hypot(kappa, beta)
    return np.asarray(beta**2 / (root + kappa) - shift * np.log(shift + root))


def _log_bessel(order: float, kappa: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Log of ``I_order(kappa) kappa^-order e^-kappa``."""
    if order >= _HIGH_ORDER:
        return _debye(order, kappa)
    large = kappa > 1e5 * max(1.0, order**2)
    small = kappa < _SMALL
    middle = np.where(small | large, 1.0, kappa)
    found = np.log(ive(order, middle)) - order * np.log(middle)
    if small.any():
        found[small] = _series(order, kappa[small])
    if large.any():
        found[large] = _hankel(order, kappa[large])
    return np.asarray(found)


def _series(order: float, kappa: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    z = kappa**2 / 4
    terms = z / (order + 1) * (1 + z / (2 * (order + 2)))
    return np.asarray(np.log1p(terms) - kappa - order * math.log(2) - gammaln(order + 1))


def _hankel(order: float, kappa: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    square, inverse = 4 * order**2, 1 / (8 * kappa)
    first = (square - 1) * inverse
    second = first * (square - 9) * inverse / 2
    third = second * (square - 25) * inverse / 3
    return np.asarray(np.log1p(second - first - third) - 0.5 * np.log(2 * math.pi * kappa) - order * np.log(kappa))


def _debye(order: float, kappa: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    root = np.hypot(kappa, order)
    p = order / root
    q = p**2
    first = p * (3 - 5 * q) / 24
    second = q * (81 - 462 * q + 385 * q**2) / 1152
    third = p * q * (30375 - 369603 * q + 765765 * q**2 - 425425 * q**3) / 414720
    fourth = q**2 * np.polyval([185910725, -446185740, 349922430, -94121676, 4465125], q) / 39813120
    series = ((fourth / order + third) / order + second) / order + first
    level = order**2 / (root + kappa) - order * np.log(order + root) - 0.5 * np.log(2 * math.pi * root)
    return np.asarray(level + np.log1p(series / order))
