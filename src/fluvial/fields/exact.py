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
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import as_times, require_tensor
from fluvial.fields.arguments import (
    check_effort,
    check_labels,
    check_point,
    checked_prior,
    checked_support,
    present_labels,
)
from fluvial.fields.base import Course, Walk
from fluvial.fields.courses import choose_course
from fluvial.fields.posterior import Posterior
from fluvial.kinds import checked
from fluvial.paths import CondOT, GaussianPath
from fluvial.smoothing import (
    DEFAULT_MEMORY,
    Effort,
    Moments,
    Query,
    Support,
    combined,
    error_bound,
    local_mean,
    log_total,
    moments,
    needs_derivatives,
    spread,
)

if TYPE_CHECKING:
    import torch.distributed as dist

    from fluvial.smoothing.shards import Shards


@checked
class ExactField:
    """Velocity field that transports noise to a finite data set exactly; see the module's docstring.

    It is differentiable in ``x`` and ``t``, once, in reverse and in forward mode. It is no module: the support is in
    no checkpoint. How it computes depends on the shapes and on the row: see ``docs/exact-field.md``.

    Args:
        support: The data, shape ``(N, *D)``, finite; one datum is legitimate (its conditional velocity). A tensor of
            float32, of float64, or of uint8 (pixels, which stand for ``u / 127.5 - 1``); or a ``numpy.memmap`` of
            these, which is read tile by tile.
        path: The probability path.
        labels: Class of each datum, shape ``(N,)``, not negative; needed for labels as condition.
        log_prior: Unnormalised log-weights of the data, shape ``(N,)``; uniform if absent.
        tol: Largest error of the noise ``(x - alpha m) / sigma`` that skipping data may cause, relative to the noise's
            usual norm ``sqrt(d)``. 0 skips only what rounding hides; with more, a screening pass in bfloat16 finds the
            data that can matter, and the rest is proven not to.
        memory: Bytes that an evaluation may use beyond its inputs and outputs.
        group: Process group over whose ranks the data are split: each passes its own part of them, with their labels
            and prior, and asks the same questions. No derivatives then; ``(B, N)`` conditions have this rank's columns.

    Raises:
        ValueError: If the support is empty, not finite or of another type, labels or prior do not fit it, ``tol`` is
            outside [0, 1) or ``memory`` below 1 MiB.
        TypeError: If the support is neither a tensor nor a memory map.

    Example:
        >>> field = ExactField(torch.tensor([[-1.0], [1.0]]))
        >>> field(torch.tensor([[0.0], [0.5]]), torch.tensor([0.0, 0.5]))
        tensor([[0.0000],
                [0.5232]])
    """

    def __init__(
        self,
        support: "Tensor | np.memmap",
        path: GaussianPath | None = None,
        *,
        labels: Tensor | None = None,
        log_prior: Tensor | None = None,
        tol: float = 0.0,
        memory: int = DEFAULT_MEMORY,
        group: "dist.ProcessGroup | None" = None,
    ) -> None:
        check_effort(tol, memory)
        data = checked_support(support, labels, log_prior)
        self.path = CondOT() if path is None else path
        self.shape = tuple(data.shape[1:])
        self.effort = Effort(float(tol), int(memory))
        data = data.detach().reshape(len(data), -1) if isinstance(data, Tensor) else data
        self._support = Support(data, labels, log_prior)
        self._present = present_labels(labels, log_prior)
        self._shards: "Shards | None" = None
        if group is not None:
            from fluvial.smoothing.shards import Shards

            self._shards = Shards(self._support, group)
            self._present = None if labels is None else torch.tensor(self._shards.labels)

    @property
    def support(self) -> Tensor:
        """The data, shape ``(N, *D)``, in data units (a copy where they are pixels).

        Raises:
            ValueError: If they lie in a file; ``take`` reads some of them.
        """
        if not self._support.in_memory:
            raise ValueError("support lies in a file: read some of it with field.take(index)")
        return self.take(slice(None))

    @checked
    def take(self, index: Tensor | slice) -> Tensor:
        """Some of the data, in data units, shape ``(len(index), *D)``.

        Example:
            >>> ExactField(torch.tensor([[0], [255]], dtype=torch.uint8)).take(torch.tensor([1]))
            tensor([[1.]])
        """
        if isinstance(index, Tensor):
            _check_index(index, len(self._support))
        return self._support.data(index, self._support.dtype).reshape(-1, *self.shape)

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        return self._support.device

    @property
    def singular_at_end(self) -> bool:
        """Whether the velocity is infinite off the data at ``t = 1`` (sigma = 0 there)."""
        return float(self.path.sigma(torch.ones((), dtype=torch.float64))) == 0

    def to(self, device: torch.device | str) -> "ExactField":
        """The same field with its data on another device."""
        moved = object.__new__(type(self))
        moved.__dict__.update(self.__dict__)
        moved._support = self._support.to(device)
        moved._present = None if self._present is None else self._present.to(device)
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
        _require_noise(query, "the velocity has no value at t = 1, where sigma = 0: evaluate before, or take "
                              "posterior(x, t).mean")  # fmt: skip
        coefficients = self._coefficients(t, query)
        if self._shards is None and not needs_derivatives(x, t):
            found = moments(self._support, query, self.effort, stats=False)
            return combined(self._support, query, found, coefficients).reshape(x.shape)
        alpha_dot, rate, rest = coefficients
        top, offset = self._mean(query, x, t)
        mean = top + offset
        return (alpha_dot * mean + rate * ((query.x - top) - offset + rest * mean)).reshape(x.shape)

    def posterior(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Posterior:
        """Distribution of the datum given the point; where sigma = 0 its limit, the nearest datum.

        Arguments and errors are those of the velocity. Results carry no gradient.

        Example:
            >>> found = ExactField(torch.tensor([[-1.0], [1.0]])).posterior(torch.tensor([[0.1]]), torch.tensor(0.9))
            >>> found.top_index.item(), round(found.effective_sample_size.item(), 3)
            (1, 1.0)
        """
        query = self._query(x, t, cond).detached()
        positive = query.sigma.masked_fill(query.sigma == 0, 1e-30)
        asked = Query(query.x, query.alpha, positive, query.labels, query.log_prior)
        top, found = self._joined(asked, moments(self._support, asked, self.effort))
        mean = top + found.offset * self._support.unit
        log_density = found.log_kernel - self._log_total(query)
        log_density = log_density - 0.5 * self._support.dim * torch.log(2 * math.pi * positive.square())
        entropy = torch.log(found.normaliser) - found.surprise / found.normaliser
        at_end = torch.where(found.log_kernel > -1e20, torch.inf, -torch.inf)
        return Posterior(
            mean=mean.reshape(x.shape),
            log_density=torch.where(query.sigma == 0, at_end, log_density).to(x.dtype),
            effective_sample_size=(found.normaliser.square() / found.squares).to(x.dtype),
            entropy=entropy.clamp_min(0.0).to(x.dtype),
            top_weight=(1 / found.normaliser).to(x.dtype),
            top_index=found.top_index,
            error=error_bound(self._support, found) * self._support.unit,
        )

    def score(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Float[Tensor, "B *D"]:
        r"""Score :math:`\nabla_x \log p_t(x) = (\alpha m - x) / \sigma^2` of the marginal; arguments as for the
        velocity."""
        query = self._query(x, t, cond)
        _require_noise(query, "the score has no value at t = 1, where sigma = 0: evaluate before")
        top, offset = self._mean(query, x, t)
        _, _, rest = self._coefficients(t, query)
        residual = (query.x - top) - offset + rest * (top + offset)
        return (-residual / query.sigma.square()[:, None].to(x.dtype)).reshape(x.shape)

    def divergence(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Float[Tensor, "B"]:
        """Trace of the velocity's Jacobian in closed form, shape ``(B,)``; arguments as for the velocity, no
        gradient."""
        query = self._query(x, t, cond).detached()
        _require_noise(query, "the divergence has no value at t = 1, where sigma = 0: evaluate before")
        found, unit = moments(self._support, query, self.effort), self._support.unit
        trace = spread(self._support, query, found, self.effort) * unit**2
        if self._shards is not None:
            top, whole = self._joined(query, found)
            mean = self._support.data(found.top_index, x.dtype) + found.offset * unit
            trace = self._shards.trace(trace, found, mean, whole, top + whole.offset * unit)
        times = as_times(t, x).detach().double().expand(len(x))
        rate = self.path.sigma_dot(times) / query.sigma
        gain = self.path.wronskian(times) * query.alpha / query.sigma**3
        return (rate * self._support.dim + gain * trace).to(x.dtype)

    def trajectory(self, x0: Tensor, cond: Tensor | None, walk: Walk) -> Course | None:
        """A cheaper way to walk from ``x0``, if there is one; solvers ask for it.

        Args:
            x0: First states, shape ``(B, *D)``.
            cond: As for the velocity.
            walk: What the solver is about to do.
        """
        if self._shards is not None or needs_derivatives(x0):
            return None
        return choose_course(self, self._query(x0, 0.0, cond), x0.shape, walk)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Alpha, sigma, the rate of alpha, the logarithmic rate of sigma and 1 - alpha at times ``(B,)``; float64."""
        path, times = self.path, t.double()
        alpha, sigma = path.alpha(times), path.sigma(times)
        return alpha, sigma, path.alpha_dot(times), path.sigma_dot(times) / sigma, path.one_minus_alpha(times)

    def _mean(self, query: Query, *inputs: Tensor | float) -> tuple[Tensor, Tensor]:
        """Top point and the mean's offset from it, in data units, ``(B, d)`` both."""
        if self._shards is None:
            return local_mean(self._support, query, self.effort)
        if needs_derivatives(*inputs):
            raise ValueError("a field whose data are split over a group has no derivatives: use torch.no_grad()")
        top, found = self._joined(query, moments(self._support, query, self.effort))
        return top, found.offset * self._support.unit

    def _joined(self, query: Query, found: Moments) -> tuple[Tensor, Moments]:
        """Top points in data units, and the moments over the data of all ranks."""
        if self._shards is not None:
            return self._shards.joined(query, found)
        return self._support.data(found.top_index, query.x.dtype), found

    def _coefficients(self, t: Tensor | float, query: Query) -> tuple[Tensor, Tensor, Tensor]:
        """Rate of alpha, logarithmic rate of sigma, and 1 - alpha, as columns of x's dtype."""
        _, _, *rates = self.rates(as_times(t, query.x).double().expand(len(query.x)))
        alpha_dot, rate, rest = (part[:, None].to(query.x.dtype) for part in rates)
        return alpha_dot, rate, rest

    def _query(self, x: Tensor, t: Tensor | float, cond: Tensor | None) -> Query:
        require_tensor("x", x)
        if self.device != x.device:
            raise ValueError(f"x must be on the device of the support, {self.device}, got {x.device}")
        check_point(x, self.shape)
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
        if cond.device != self.device:
            raise ValueError(f"cond must be on the device of the support, {self.device}, got {cond.device}")
        if cond.is_floating_point():
            return None, checked_prior(cond, rows, len(self._support), everywhere=self._shards is None)
        check_labels(cond, rows, self._present)
        return cond, None

    def _log_total(self, query: Query) -> Tensor:
        """Log of the sum of each row's unnormalised prior weights, float64."""
        local = log_total(self._support, query)
        return local if self._shards is None else self._shards.log_total(local)


def _require_noise(query: Query, message: str) -> None:
    if bool((query.sigma == 0).any()):
        raise ValueError(message)


def _check_index(index: Tensor, count: int) -> None:
    if index.ndim != 1 or index.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"index must be whole numbers of shape (n,), got {index.dtype} of shape {tuple(index.shape)}")
    if len(index) and not bool(((index >= 0) & (index < count)).all()):
        raise ValueError(f"index must be from 0 to {count - 1}, got {int(index.min())} to {int(index.max())}")
