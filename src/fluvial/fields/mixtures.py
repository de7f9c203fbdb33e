r"""The velocity field of a Gaussian mixture, in closed form on every Gaussian path.

For data from :math:`\sum_k \pi_k N(\mu_k, C_k)` the point :math:`x_t = \alpha x_1 + \sigma x_0` is a mixture again, of
:math:`N(\alpha \mu_k, S_k)` with :math:`S_k = \alpha^2 C_k + \sigma^2 I`. With :math:`w_k(x)` the posterior weights of
its components,

.. math::
    v(x, t) = \sum_k w_k v_k, \qquad
    v_k = \dot\alpha \mu_k + A_k (x - \alpha \mu_k), \qquad
    A_k = (\alpha \dot\alpha C_k + \sigma \dot\sigma I)\, S_k^{-1}.

With :math:`g_k = -S_k^{-1} (x - \alpha \mu_k)` the score of a component and bars for means under :math:`w`, the
divergence is :math:`\sum_k w_k \big(\mathrm{tr} A_k + (g_k - \bar g) \cdot (v_k - \bar v)\big)`. All is taken in the
eigenvectors of each covariance, which are found once. It is accurate at both ends: nothing is divided by t, and
:math:`x - \mu_k` is taken before :math:`(1 - \alpha) \mu_k` is added.

Source: Albergo, Boffi, Vanden-Eijnden 2023, "Stochastic Interpolants: A Unifying Framework for Flows and Diffusions",
appendix A, has the mixture's velocity; the divergence follows from :math:`\nabla w_k = w_k (g_k - \bar g)`.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import as_times, require_shape, require_tensor
from fluvial.fields.components import FLOATS, check_means, checked_weights, spectra
from fluvial.kinds import checked
from fluvial.paths import CondOT, GaussianPath

# VP's sigma' is infinite where its sigma is 0, and their product is not: it is taken this far inside.
_INSIDE = 1e-12


@dataclass(frozen=True)
class _At:
    """What a query is made of; components come first, d numbers of a datum last; float64."""

    weights: Tensor  # (K, B)
    log_density: Tensor  # (B,)
    turned: Tensor  # (K, B, d): x - alpha mu in the eigenvectors
    variances: Tensor  # (K, B, d): of x_t along the eigenvectors
    rates: Tensor  # (K, B, d): eigenvalues of A
    alpha_dot: Tensor  # (B, 1)


@checked
class GaussianMixtureField:
    """Velocity field that transports noise to a Gaussian mixture; see the module's docstring.

    A truth to hold nets, solvers and likelihoods against, since its density is known at all times. Computed in float64
    and returned in the points' type; differentiable in ``x`` and ``t``, in reverse and forward mode. Memory grows as
    points times components times numbers of a datum.

    Args:
        means: Of the components, shape ``(K, *D)``, in data units; float32 or float64.
        covariances: Of a component's ``d`` numbers, in squared data units: shape ``(K, d, d)``, ``(K, d)`` for
            diagonal ones, ``(K,)`` or one number for multiples of the identity. They may be singular, 0 included: where
            the path ends with sigma = 0 as well, the field is then ``singular_at_end``, has no density at ``t = 1``,
            and solvers land on the posterior mean.
        weights: Of the components, shape ``(K,)``, not negative; they are divided by their sum. Equal if absent.
        path: The probability path; ``CondOT()`` if absent.

    Raises:
        TypeError: If means or weights are no tensors, or covariances neither a tensor nor a number.
        ValueError: If shapes do not fit, a value is not finite, a weight negative or all are 0, or a covariance is not
            symmetric and positive semidefinite.

    Example:
        >>> field = GaussianMixtureField(torch.tensor([[-2.0], [2.0]]), 0.25)
        >>> field(torch.tensor([[0.5], [2.0]]), torch.tensor([0.0, 1.0]))
        tensor([[-0.5000],
                [ 2.0000]])
    """

    def __init__(
        self,
        means: Tensor,
        covariances: Tensor | float,
        weights: Tensor | None = None,
        path: GaussianPath | None = None,
    ) -> None:
        check_means(means)
        if path is not None and not isinstance(path, GaussianPath):
            raise TypeError(f"path must be a path such as fv.CondOT(), got {path!r}")
        self.path = CondOT() if path is None else path
        self.shape = tuple(means.shape[1:])
        self.means = means.detach().clone()
        self.weights = checked_weights(weights, means)
        self._means = self.means.double().flatten(1)
        # Eigenvalues (K, d) and eigenvectors (K, d, d); no eigenvectors where the coordinates will do.
        self._values, self._vectors = spectra(covariances, self._means)

    @property
    def singular_at_end(self) -> bool:
        """Whether the velocity is infinite off a component without width at ``t = 1`` (sigma = 0 there)."""
        return self.path.last_sigma == 0 and bool((self._values == 0).any())

    def to(self, device: torch.device | str) -> "GaussianMixtureField":
        """The same field on another device."""
        moved = copy.copy(self)
        for name in ("means", "weights", "_means", "_values", "_vectors"):
            value = getattr(self, name)
            setattr(moved, name, None if value is None else value.to(device))
        return moved

    def __call__(self, x: Tensor, t: Tensor | float, cond: Any = None) -> Float[Tensor, "B *D"]:
        """Velocity at ``(x, t)``.

        Args:
            x: Points, shape ``(B, *D)``.
            t: Times in [0, 1], a scalar or ``(B,)``.
            cond: None; a mixture takes no condition.

        Raises:
            ValueError: If shapes do not fit, a condition is given, or sigma and a component's width are 0 at some
                ``t``.
        """
        at = self._at(x, t, cond, "velocity")
        return (at.weights[..., None] * self._velocities(at)).sum(0).to(x.dtype).reshape(x.shape)

    def score(self, x: Tensor, t: Tensor | float, cond: Any = None) -> Float[Tensor, "B *D"]:
        r"""Score :math:`\nabla_x \log p_t(x)`; arguments and errors are those of the velocity."""
        at = self._at(x, t, cond, "score")
        return (at.weights[..., None] * self._scores(at)).sum(0).to(x.dtype).reshape(x.shape)

    def divergence(self, x: Tensor, t: Tensor | float, cond: Any = None) -> Float[Tensor, "B"]:
        """Trace of the velocity's Jacobian, shape ``(B,)``; arguments and errors are those of the velocity.

        Example:
            >>> field = GaussianMixtureField(torch.zeros(1, 3), 4.0)
            >>> field.divergence(torch.ones(2, 3), torch.tensor([0.0, 1.0]))
            tensor([-3.,  3.])
        """
        at = self._at(x, t, cond, "divergence")
        weights, scores, velocities = at.weights[..., None], self._scores(at), self._velocities(at)
        around = (scores - (weights * scores).sum(0)) * (velocities - (weights * velocities).sum(0))
        return (at.weights * (at.rates.sum(2) + around.sum(2))).sum(0).to(x.dtype)

    @checked
    def log_prob(self, x: Tensor, t: Tensor | float = 1.0) -> Float[Tensor, "B"]:
        """Log-density in nats of the points ``alpha x1 + sigma x0`` at time ``t``, shape ``(B,)``, float64.

        At ``t = 1`` it is the mixture's own, widened by the path's last sigma. Arguments and errors are those of the
        velocity.

        Example:
            >>> field = GaussianMixtureField(torch.zeros(1, 2), 0.25)
            >>> field.log_prob(torch.zeros(1, 2)), -math.log(2 * math.pi * 0.25)
            (tensor([-0.4516], dtype=torch.float64), -0.4515827052894548)
        """
        return self._at(x, t, None, "density").log_density

    @checked
    def sample(self, n: int, generator: torch.Generator, t: float = 1.0) -> Float[Tensor, "n *D"]:
        """Points whose log-density is ``log_prob(x, t)``, of the means' type.

        Args:
            n: How many, at least 1.
            generator: Source of the draws, which are made on its device.
            t: Their time, in [0, 1].

        Raises:
            ValueError: If ``n`` or ``t`` is out of range.

        Example:
            >>> field = GaussianMixtureField(torch.tensor([[-2.0], [2.0]]), 0.0)
            >>> field.sample(3, torch.Generator().manual_seed(0)).flatten()
            tensor([ 2.,  2., -2.])
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if not 0 <= t <= 1:
            raise ValueError(f"t must be in [0, 1], got {t}")
        device, dim = self._means.device, self._means.shape[1]
        options: Any = {"generator": generator, "device": generator.device, "dtype": torch.float64}
        which = torch.multinomial(self.weights.to(generator.device), n, replacement=True, generator=generator)
        which = which.to(device)
        inner, noise = (torch.randn(n, dim, **options).to(device) for _ in range(2))
        inner = inner * self._values[which].sqrt()
        if self._vectors is not None:  # one component at a time: no (n, d, d)
            for k, vectors in enumerate(self._vectors):
                inner[which == k] = inner[which == k] @ vectors.T
        time = torch.tensor(t, dtype=torch.float64)
        x = float(self.path.alpha(time)) * (self._means[which] + inner) + float(self.path.sigma(time)) * noise
        return x.to(self.means.dtype).reshape(n, *self.shape)

    def _at(self, x: Tensor, t: Tensor | float, cond: Any, quantity: str) -> _At:
        """The query's parts, after checks; ``quantity`` names what there is none of where nothing has a width."""
        times = self._times(x, t, cond)
        path, values = self.path, self._values[:, None]
        alpha, sigma = path.alpha(times)[:, None], path.sigma(times)[:, None]
        variances = alpha.square() * values + sigma.square()
        if bool((variances == 0).any()):
            raise ValueError(
                f"the {quantity} has no value at t = 1, where sigma and the width of a component are 0: evaluate before"
            )
        alpha_dot, means = path.alpha_dot(times)[:, None], self._means[:, None]
        residual = (x.double().flatten(1) - means) + path.one_minus_alpha(times)[:, None] * means
        turned = residual if self._vectors is None else torch.bmm(residual, self._vectors)
        joint = -0.5 * (turned.square() / variances + variances.log() + math.log(2 * math.pi)).sum(2)
        joint = joint + self.weights.log()[:, None]
        log_density = torch.logsumexp(joint, 0)
        rates = (alpha * alpha_dot * values + _sigma_rate(path, times)[:, None]) / variances
        return _At((joint - log_density).exp(), log_density, turned, variances, rates, alpha_dot)

    def _times(self, x: Tensor, t: Tensor | float, cond: Any) -> Float[Tensor, "B"]:
        """Times of the rows in float64, after checks."""
        require_tensor("x", x)
        require_shape(x, self.shape)
        if x.dtype not in FLOATS:
            raise ValueError(f"x must be float32 or float64, got {x.dtype}")
        if cond is not None:
            raise ValueError(f"cond must be None: a Gaussian mixture takes no condition, got {type(cond).__name__}")
        times = as_times(t, x).double().expand(len(x))
        if not bool(((times >= 0) & (times <= 1)).all()):
            raise ValueError(f"t must be in [0, 1], got values from {float(times.min()):g} to {float(times.max()):g}")
        return times

    def _velocities(self, at: _At) -> Float[Tensor, "K B d"]:
        return at.alpha_dot * self._means[:, None] + self._back(at.rates * at.turned)

    def _scores(self, at: _At) -> Float[Tensor, "K B d"]:
        return self._back(-at.turned / at.variances)

    def _back(self, turned: Float[Tensor, "K B d"]) -> Float[Tensor, "K B d"]:
        """From the eigenvectors to the coordinates."""
        return turned if self._vectors is None else torch.bmm(turned, self._vectors.mT)


def _sigma_rate(path: GaussianPath, times: Tensor) -> Tensor:
    """The product of sigma and its rate."""
    rate: Tensor = path.sigma(times) * path.sigma_dot(times)
    if not bool(rate.isnan().any()):
        return rate
    inside = times.clamp(max=1 - _INSIDE)
    return rate.where(~rate.isnan(), path.sigma(inside) * path.sigma_dot(inside))
