r"""The exact velocity field of a finite data set.

For data :math:`s_1, \dots, s_N` with prior weights :math:`\pi_i` the optimal flow-matching velocity is a
Nadaraya-Watson smoother whose bandwidth :math:`h_t = \sigma_t / \alpha_t` shrinks with time:

.. math::
    w_i(x) \propto \pi_i \exp\Big(-\frac{\|x - \alpha s_i\|^2}{2 \sigma^2}\Big), \qquad m(x) = \sum_i w_i s_i, \qquad
    u(x) = \dot\alpha m + \frac{\dot\sigma}{\sigma} \big((x - m) + (1 - \alpha) m\big).

The last form is accurate at both ends of time: it never divides by t, and ``x - m`` is taken before it is scaled.
The field's Jacobian is :math:`\frac{\dot\sigma}{\sigma} I + (\dot\alpha - \alpha \frac{\dot\sigma}{\sigma})
\frac{\alpha}{\sigma^2} \mathrm{Cov}_w`. Following the field from noise reproduces the data: it copies.

Sources: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", proposition 1; Matsui Smola 2026,
"Support-Conditioned Flow Matching Is Kernel Smoothing", proposition 4.4.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import as_times, require_tensor
from fluvial.paths import CondOT, GaussianPath
from fluvial.smoothing import Query, Support, local_mean, moments, spread


@dataclass(frozen=True)
class Posterior:
    """What a data set says about ``x1`` given a point ``xt``.

    Args:
        mean: ``E[x1 | xt]``, shape ``(B, *D)``.
        log_density: Log-density of ``xt`` under the path's marginal, shape ``(B,)``, in nats.
        effective_sample_size: ``1 / sum w_i^2``, shape ``(B,)``, between 1 and N.
        entropy: ``-sum w_i log w_i``, shape ``(B,)``, in nats.
        top_weight: Largest weight, shape ``(B,)``.
        top_index: Its datum, shape ``(B,)``.
    """

    mean: Tensor
    log_density: Tensor
    effective_sample_size: Tensor
    entropy: Tensor
    top_weight: Tensor
    top_index: Tensor


class ExactField:
    """Velocity field that transports noise to a finite data set exactly; see the module's docstring.

    It is differentiable in ``x`` and ``t``, once, in reverse and in forward mode. It is no module: the support is in
    no checkpoint.

    Args:
        support: The data, shape ``(N, *D)``, floating, finite; one datum is legitimate (its conditional velocity).
        path: The probability path.
        labels: Class of each datum, shape ``(N,)``, not negative; needed for labels as condition.
        log_prior: Unnormalised log-weights of the data, shape ``(N,)``; uniform if absent.

    Raises:
        ValueError: If the support is empty, not floating or not finite, or labels or prior do not fit it.
        TypeError: If the support is no tensor.

    Example:
        >>> field = ExactField(torch.tensor([[-1.0], [1.0]]))
        >>> field(torch.tensor([[0.0], [0.5]]), torch.tensor([0.0, 0.5]))
        tensor([[0.0000],
                [0.5232]])
    """

    def __init__(
        self,
        support: Tensor,
        path: GaussianPath | None = None,
        *,
        labels: Tensor | None = None,
        log_prior: Tensor | None = None,
    ) -> None:
        _check_support(support, labels, log_prior)
        self.path = CondOT() if path is None else path
        self.shape = tuple(support.shape[1:])
        self._support = Support(support.detach().reshape(len(support), -1), labels, log_prior)

    @property
    def support(self) -> Tensor:
        """The data, shape ``(N, *D)``."""
        return self._support.points.reshape(-1, *self.shape)

    @property
    def singular_at_end(self) -> bool:
        """Whether the velocity is infinite off the data at ``t = 1`` (sigma = 0 there)."""
        return float(self.path.sigma(torch.ones((), dtype=torch.float64))) == 0

    def to(self, device: torch.device | str) -> "ExactField":
        """The same field with its data on another device."""
        moved = object.__new__(ExactField)
        moved.path, moved.shape, moved._support = self.path, self.shape, self._support.to(device)
        return moved

    def __call__(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Float[Tensor, "B *D"]:
        """Velocity at ``(x, t)``.

        Args:
            x: Points, shape ``(B, *D)``.
            t: Times in [0, 1], a scalar or ``(B,)``.
            cond: Labels ``(B,)`` (integers, -1 for the whole support), or a log-prior ``(B, N)`` of each row
                (floating).

        Raises:
            ValueError: If shapes do not fit, a label has no datum, or sigma is 0 at some ``t``.
        """
        query = self._query(x, t, cond)
        if bool((query.sigma == 0).any()):
            raise ValueError(
                "the velocity has no value at t = 1, where sigma = 0: evaluate before, or take posterior(x, t).mean"
            )
        top, offset = local_mean(self._support, query)
        mean = top + offset
        alpha_dot, rate, rest = self._coefficients(t, query)
        return (alpha_dot * mean + rate * ((query.x - top) - offset + rest * mean)).reshape(x.shape)

    def posterior(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Posterior:
        """Distribution of the datum given the point; where sigma = 0 its limit, the nearest datum.

        Arguments and errors are those of the velocity. Results carry no gradient.

        Example:
            >>> found = ExactField(torch.tensor([[-1.0], [1.0]])).posterior(torch.tensor([[0.1]]), torch.tensor(0.9))
            >>> found.top_index.item(), round(found.effective_sample_size.item(), 3)
            (1, 1.0)
        """
        query = _detached(self._query(x, t, cond))
        positive = query.sigma.masked_fill(query.sigma == 0, 1e-30)
        found = moments(self._support, Query(query.x, query.alpha, positive, query.labels, query.log_prior))
        mean = self._support.points[found.top_index] + found.offset
        log_density = found.log_kernel - self._log_total(query)
        log_density = log_density - 0.5 * self._support.dim * torch.log(2 * math.pi * positive.square())
        entropy = torch.log(found.normaliser) - found.surprise / found.normaliser
        at_end = torch.where(found.log_kernel > -1e20, torch.inf, -torch.inf)
        return Posterior(
            mean=mean.to(x.dtype).reshape(x.shape),
            log_density=torch.where(query.sigma == 0, at_end, log_density).to(x.dtype),
            effective_sample_size=(found.normaliser.square() / found.squares).to(x.dtype),
            entropy=entropy.clamp_min(0.0).to(x.dtype),
            top_weight=(1 / found.normaliser).to(x.dtype),
            top_index=found.top_index,
        )

    def score(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Float[Tensor, "B *D"]:
        r"""Score :math:`\nabla_x \log p_t(x) = (\alpha m - x) / \sigma^2` of the marginal; arguments as for the
        velocity."""
        query = self._query(x, t, cond)
        if bool((query.sigma == 0).any()):
            raise ValueError("the score has no value at t = 1, where sigma = 0: evaluate before")
        top, offset = local_mean(self._support, query)
        _, _, rest = self._coefficients(t, query)
        residual = (query.x - top) - offset + rest * (top + offset)
        return (-residual / query.sigma.square()[:, None].to(x.dtype)).reshape(x.shape)

    def divergence(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Float[Tensor, "B"]:
        """Trace of the velocity's Jacobian in closed form, shape ``(B,)``; arguments as for the velocity, no
        gradient."""
        query = _detached(self._query(x, t, cond))
        if bool((query.sigma == 0).any()):
            raise ValueError("the divergence has no value at t = 1, where sigma = 0: evaluate before")
        trace = spread(self._support, query, moments(self._support, query))
        times = as_times(t, x).detach().double().expand(len(x))
        rate = self.path.sigma_dot(times) / query.sigma
        gain = self.path.wronskian(times) * query.alpha / query.sigma**3
        return (rate * self._support.dim + gain * trace).to(x.dtype)

    def _coefficients(self, t: Tensor | float, query: Query) -> tuple[Tensor, Tensor, Tensor]:
        """Rate of alpha, logarithmic rate of sigma, and 1 - alpha, as columns of x's dtype."""
        path, times = self.path, as_times(t, query.x).double().expand(len(query.x))
        parts = (path.alpha_dot(times), path.sigma_dot(times) / query.sigma, path.one_minus_alpha(times))
        alpha_dot, rate, rest = (part[:, None].to(query.x.dtype) for part in parts)
        return alpha_dot, rate, rest

    def _query(self, x: Tensor, t: Tensor | float, cond: Tensor | None) -> Query:
        require_tensor("x", x)
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x must have shape (B, {', '.join(map(str, self.shape))}) like the support, got {tuple(x.shape)}"
            )
        if x.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"x must be float32 or float64, got {x.dtype}")
        times = as_times(t, x).double().expand(len(x))  # float64, since 1e-7 of alpha is all of sigma at the end
        if bool(((times < 0) | (times > 1)).any()):
            raise ValueError(f"t must be in [0, 1], got values from {float(times.min()):g} to {float(times.max()):g}")
        labels, log_prior = self._condition(cond, len(x))
        alpha, sigma = self.path.alpha(times), self.path.sigma(times)
        return Query(x.reshape(len(x), self._support.dim), alpha, sigma, labels, log_prior)

    def _condition(self, cond: Tensor | None, rows: int) -> tuple[Tensor | None, Tensor | None]:
        if cond is None:
            return None, None
        require_tensor("cond", cond)
        if cond.is_floating_point():
            if tuple(cond.shape) != (rows, len(self._support)):
                raise ValueError(f"a log-prior must have shape ({rows}, {len(self._support)}), got {tuple(cond.shape)}")
            top = cond.max(1).values
            if not bool(((top > -torch.inf) & (top < torch.inf)).all()):
                raise ValueError("every row of a log-prior must be below infinity and finite somewhere")
            return None, cond
        if self._support.labels is None:
            raise ValueError("cond holds labels but the support has none: pass labels= to ExactField")
        if tuple(cond.shape) != (rows,):
            raise ValueError(f"labels must have shape ({rows},), got {tuple(cond.shape)}")
        prior, labels = self._support.log_prior, self._support.labels
        present = labels if prior is None else labels[prior > -torch.inf]
        missing = cond[(cond >= 0) & ~torch.isin(cond, present)]
        if len(missing):
            raise ValueError(f"label {int(missing[0])} has no point in the support (or none with a prior above 0)")
        return cond, None

    def _log_total(self, query: Query) -> Tensor:
        """Log of the sum of each row's unnormalised prior weights, float64."""
        if query.log_prior is not None:
            return torch.logsumexp(query.log_prior.double(), 1)
        prior = self._support.log_prior
        prior = (
            self._support.points.new_zeros(len(self._support), dtype=torch.float64) if prior is None else prior.double()
        )
        whole = torch.logsumexp(prior, 0)
        if query.labels is None or self._support.labels is None:
            return whole.expand(len(query.x))
        total = torch.empty(len(query.x), dtype=torch.float64, device=prior.device)
        for label in torch.unique(query.labels):
            members = prior[self._support.labels == label] if label >= 0 else prior
            total[query.labels == label] = torch.logsumexp(members, 0)
        return total


def _detached(query: Query) -> Query:
    return Query(query.x.detach(), query.alpha.detach(), query.sigma.detach(), query.labels, query.log_prior)


def _check_support(support: Tensor, labels: Tensor | None, log_prior: Tensor | None) -> None:
    if not isinstance(support, Tensor):
        raise TypeError(f"support must be a tensor, got {type(support).__name__}")
    if support.ndim < 2 or support.numel() == 0:
        raise ValueError(f"support must have shape (N, *D) with at least one point, got {tuple(support.shape)}")
    if support.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"support must be float32 or float64, got {support.dtype}")
    bad = int((~torch.isfinite(support.reshape(len(support), -1)).all(1)).sum())
    if bad:
        raise ValueError(f"support must be finite, got NaN or infinity in {bad} of {len(support)} points")
    for name, value in (("labels", labels), ("log_prior", log_prior)):
        if value is not None and tuple(value.shape) != (len(support),):
            raise ValueError(f"{name} must have shape ({len(support)},), got {tuple(value.shape)}")
    if labels is not None and bool((labels < 0).any()):
        raise ValueError("labels of a support must not be negative")
    if log_prior is not None and not (bool((log_prior < torch.inf).all()) and bool((log_prior > -torch.inf).any())):
        raise ValueError("log_prior must be below infinity and finite somewhere")
