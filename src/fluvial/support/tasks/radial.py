r"""Posterior of the radius of a datum whose direction is uniform, given a noisy point.

For :math:`x = \alpha \rho \omega + \sigma \epsilon` with :math:`\omega` uniform on the sphere, the posterior of the
radius is

.. math::
    f(\rho) \propto q(\rho) \exp\Big(-\frac{(|x| - \alpha\rho)^2}{2\sigma^2}\Big) e^{-\kappa} I_{d/2-1}(\kappa)
    \kappa^{1-d/2}, \qquad \kappa = \frac{\alpha \rho |x|}{\sigma^2},

and, given the radius, the datum's mean is :math:`\rho A_d(\kappa)` along x. Late in time f is as narrow as the
bandwidth, in high dimensions its peak is far from :math:`|x| / \alpha`; so the nodes of the quadrature are laid where f
is, found by zooming in on it with a cheap approximation of the Bessel function.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fluvial.support.tasks.bessel import approximate_log_bessel, von_mises_fisher

NODES = 96
_ZOOM_NODES = 48
_MOST_ZOOMS = 12
_DEPTH = 46.0
"""What lies that many nats below the peak is left out: 1e-20 of it."""
_TAIL = 9.6
"""The same in standard deviations of a Gaussian."""


@dataclass(frozen=True)
class RadialQuery:
    """Points and the radial laws that they came from, ``R`` rows; float64.

    Args:
        length: Norms of the points.
        alpha: Weight of the datum.
        sigma: Weight of the noise, positive.
        radius: Radii of the shells, shape ``(R, k)``.
        log_weight: Their log-weights, shape ``(R, k)``; minus infinity for padding.
        noise: Standard deviation of the radial noise.
        dim: Dimension d.
    """

    length: Float[np.ndarray, "R"]
    alpha: Float[np.ndarray, "R"]
    sigma: Float[np.ndarray, "R"]
    radius: Float[np.ndarray, "R k"]
    log_weight: Float[np.ndarray, "R k"]
    noise: float
    dim: int

    def concentration(self, rho: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R N"]:
        """``kappa`` at each radius."""
        return np.asarray((self.alpha * self.length / self.sigma**2)[:, None] * rho)

    def log_prior_and_distance(self, rho: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R N"]:
        """Log of the posterior but for the Bessel function, up to a constant."""
        gap = (self.length[:, None] - self.alpha[:, None] * rho) / self.sigma[:, None]
        return np.asarray(log_radial_prior(rho, self.radius, self.log_weight, self.noise) - 0.5 * gap**2)


def log_radial_prior(
    rho: Float[np.ndarray, "R N"], radius: Float[np.ndarray, "R k"], log_weight: Float[np.ndarray, "R k"], noise: float
) -> Float[np.ndarray, "R N"]:
    """Log-density of the radius ``|R_k + noise z|``, a folded mixture of Gaussians, up to a constant."""
    parts = []
    for k in range(radius.shape[1]):
        centre = radius[:, k, None]
        folded = np.log1p(np.exp(-2 * rho * centre / noise**2))
        parts.append(log_weight[:, k, None] - 0.5 * ((rho - centre) / noise) ** 2 + folded)
    top = np.max(parts, 0)
    total = sum(np.exp(part - top) for part in parts)
    return np.asarray(top + np.log(total))


def radial_mean(query: RadialQuery, nodes: int = NODES) -> tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"]]:
    """Posterior mean of the datum along the point, and that of the noise (the point less alpha data, over sigma).

    Args:
        query: The rows.
        nodes: Gauss-Legendre nodes for each.
    """
    low, high = _window(query)
    at, weight = np.polynomial.legendre.leggauss(nodes)
    rho = low[:, None] + (high - low)[:, None] * (at + 1) / 2
    log_bessel, resultant = von_mises_fisher(query.dim, query.concentration(rho))
    log_posterior = query.log_prior_and_distance(rho) + log_bessel
    posterior = weight * np.exp(log_posterior - log_posterior.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    datum = rho * resultant
    # the difference at each node, before it is averaged: late in time it is much smaller than its parts
    rest = (query.length[:, None] - query.alpha[:, None] * datum) / query.sigma[:, None]
    return (posterior * datum).sum(1), (posterior * rest).sum(1)


def _window(query: RadialQuery) -> tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"]]:
    """An interval that holds the posterior, and little else."""
    low, high = np.zeros_like(query.length), _upper_bound(query)
    share = np.linspace(0, 1, _ZOOM_NODES)
    for _ in range(_MOST_ZOOMS):
        rho = low[:, None] + (high - low)[:, None] * share
        level = query.log_prior_and_distance(rho) + approximate_log_bessel(query.dim, query.concentration(rho))
        inside = level >= level.max(1, keepdims=True) - _DEPTH
        first = np.maximum(inside.argmax(1) - 1, 0)
        last = np.minimum(_ZOOM_NODES - inside[:, ::-1].argmax(1), _ZOOM_NODES - 1)
        before, rows = high - low, np.arange(len(low))
        low, high = rho[rows, first], rho[rows, last]
        if (high - low >= 0.7 * before).all():
            break
    return low, high


def _upper_bound(query: RadialQuery) -> Float[np.ndarray, "R"]:
    """A radius beyond the posterior: the resultant length is at most 1, so the likelihood's slope is at most that of a
    Gaussian about ``|x| / alpha``, and the prior's that of one about the largest radius."""
    largest = np.where(query.log_weight > -np.inf, query.radius, 0.0).max(1)
    precision = query.alpha**2 * query.noise**2 + query.sigma**2
    centre = (query.alpha * query.length * query.noise**2 + largest * query.sigma**2) / precision
    return np.asarray(centre + _TAIL * query.noise * query.sigma / np.sqrt(precision))
