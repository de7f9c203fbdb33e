r"""A field that makes new points of a data set without training: the exact one, smoothed.

The exact field copies, because late in time its denoiser :math:`m` is a step function, the nearest datum. Averaged
over perturbations of the point,

.. math:: \bar m(x) = \frac1M \sum_j m(x + \delta e_j), \qquad \delta = s (\alpha + \sigma),
          \qquad u(x) = \dot\alpha \bar m + \frac{\dot\sigma}{\sigma} (x - \alpha \bar m),

it ends on a mean of the few data nearest to :math:`x + s e_j` instead. The perturbations :math:`e_j` are standard
normal, the same for every point and time, and come in pairs of opposite sign. Their mean is zero, so that u is also the
average of the exact velocities, and the smoothed score the average of the exact scores, at the perturbed points.

In :math:`y = x/\alpha`, :math:`h = \sigma/\alpha` the perturbation is :math:`s (1 + h) e_j`: a function of the
bandwidth, so all paths still share one flow. On CondOT it is the constant s of the source.

Source: Scarvelis, Borde and Solomon 2025, "Closed-Form Diffusion Models", arXiv 2310.12395 (the smoothed score and its
nearest-neighbour estimate, for CondOT).
"""

import copy
import math
from collections.abc import Callable
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import as_times, require_tensor
from fluvial.fields.arguments import check_labels, check_point, checked_prior
from fluvial.fields.exact import ExactField
from fluvial.fields.nearest import Local, NearestData, Perturbed
from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.randomness import noise

# Rows that one call of the exact field is given, if the batch itself is smaller.
_ROWS = 4096


@checked
class SmoothedField:
    """Exact field averaged over fixed perturbations of the point, over all data or the nearest alone.

    With ``smoothing=0`` and all data it is the exact field. It is differentiable in ``x`` and ``t``, and its divergence
    is a closed form; with ``neighbours`` it jumps, by no more than the weight left out, where the nearest data change.

    Source: Scarvelis, Borde and Solomon 2025, "Closed-Form Diffusion Models", arXiv 2310.12395.

    Args:
        exact: Exact field of the data, with its path, labels and prior.
        smoothing: ``s``, the standard deviation of the perturbations at ``t = 1``, in data units.
        neighbours: How many data, the nearest to each perturbed ``x / alpha``, have weight; all if None.
        perturbations: ``M``, even; a sample is a mean of at most M data.
        seed: Seed of the perturbations.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If ``exact`` is no :class:`~fluvial.fields.ExactField`.

    Example:
        >>> exact = fv.ExactField(torch.tensor([[-1.0], [1.0]]))
        >>> field = SmoothedField(exact, smoothing=4.0, perturbations=8)
        >>> field.denoiser(torch.tensor([[0.1]]), 1.0)  # half of the perturbed points are nearer to -1
        tensor([[0.]])
    """

    def __init__(
        self,
        exact: ExactField,
        smoothing: float,
        *,
        neighbours: int | None = None,
        perturbations: int = 16,
        seed: int = 0,
    ) -> None:
        if not isinstance(exact, ExactField):
            raise TypeError(
                f"exact must be an ExactField, got {type(exact).__name__}: wrap data as fv.ExactField(data)"
            )
        _check_numbers(smoothing, neighbours, perturbations, seed, len(exact._support))
        self.exact = exact
        self.smoothing = float(smoothing)
        self.neighbours = neighbours
        self.perturbations = perturbations
        self.seed = seed
        half = noise(seed, 0, perturbations // 2, exact.shape, torch.float64)
        self._offsets = torch.stack([half, -half], 1).flatten(0, 1) if smoothing else 0 * half[:1]
        self._nearest = None if neighbours is None else NearestData(exact, neighbours)

    @property
    def support(self) -> Tensor:
        """The data, shape ``(N, *D)``."""
        return self.exact.support

    @property
    def path(self) -> GaussianPath:
        """Path of the exact field."""
        return self.exact.path

    @property
    def singular_at_end(self) -> bool:
        """As the exact field: where sigma = 0 the velocity is infinite off the points that it ends on."""
        return self.exact.singular_at_end

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
        times = self._times(x, t, cond, "velocity")
        if self._nearest is None:
            return self._averaged(self.exact, x, times, cond)
        mean = self._local(self._nearest, x, times, cond).mean
        path, flat = self.path, x.flatten(1).double()
        parts = (path.alpha_dot(times), path.sigma_dot(times) / path.sigma(times), path.one_minus_alpha(times))
        alpha_dot, rate, rest = (part[:, None] for part in parts)
        return (alpha_dot * mean + rate * ((flat - mean) + rest * mean)).to(x.dtype).reshape(x.shape)

    def denoiser(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Float[Tensor, "B *D"]:
        """Smoothed posterior mean, without gradient; where sigma = 0, the mean of the perturbed points' nearest data.

        Arguments and errors are those of the velocity.
        """
        times = self._times(x, t, cond)
        with torch.no_grad():
            if self._nearest is None:
                return self._averaged(lambda *query: self.exact.posterior(*query).mean, x, times, cond)
            return self._local(self._nearest, x, times, cond).mean.to(x.dtype).reshape(x.shape)

    def divergence(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Float[Tensor, "B"]:
        """Trace of the velocity's Jacobian in closed form, shape ``(B,)``; arguments as for the velocity, no
        gradient."""
        times = self._times(x, t, cond, "divergence")
        with torch.no_grad():
            if self._nearest is None:
                return self._averaged(self.exact.divergence, x, times, cond)
            spread, sigma = self._local(self._nearest, x, times, cond).spread, self.path.sigma(times)
            gain = self.path.wronskian(times) * self.path.alpha(times) / sigma**3
            return (self.path.sigma_dot(times) / sigma * self._offsets[0].numel() + gain * spread).to(x.dtype)

    def omitted(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Float[Tensor, "B"]:
        """Upper bound on the weight of the data beyond the nearest, averaged over perturbations, shape ``(B,)``.

        Times the diameter of the data it bounds the distance of the denoiser from the one over all data; that, times
        ``path.wronskian(t) / path.sigma(t)``, bounds the velocity's. Arguments as for the velocity.

        Example:
            >>> exact = fv.ExactField(torch.tensor([[0.0], [1.0], [9.0]]))
            >>> field = SmoothedField(exact, smoothing=0.0, neighbours=2)
            >>> field.omitted(torch.zeros(2, 1), torch.tensor([0.0, 0.5]))
            tensor([0.3333, 0.2741])
        """
        times = self._times(x, t, cond)
        if self._nearest is None:
            return x.new_zeros(len(x))
        with torch.no_grad():
            return self._local(self._nearest, x, times, cond).omitted.to(x.dtype)

    def to(self, device: torch.device | str) -> "SmoothedField":
        """The same field with its data on another device."""
        moved = copy.copy(self)
        moved.exact = self.exact.to(device)
        moved._nearest = None if self.neighbours is None else NearestData(moved.exact, self.neighbours)
        return moved

    def _width(self, times: Tensor) -> Tensor:
        return self.smoothing * (self.path.alpha(times) + self.path.sigma(times))

    def _averaged(self, evaluate: Callable[..., Tensor], x: Tensor, times: Tensor, cond: Tensor | None) -> Tensor:
        """Mean of ``evaluate(x, t, cond)`` over the perturbed points, as many of them at once as are few rows."""
        if not self.smoothing:
            return evaluate(x, times, cond)
        width = self._width(times).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        total = x.new_zeros(())
        for offsets in self._offsets.to(x).split(max(1, _ROWS // max(1, len(x)))):
            points = (x + width * offsets[:, None]).flatten(0, 1)
            conds = None if cond is None else cond.repeat(len(offsets), *[1] * (cond.ndim - 1))
            found = evaluate(points, times.repeat(len(offsets)), conds).unflatten(0, (len(offsets), len(x))).sum(0)
            total = total + found
        return total / len(self._offsets)

    def _local(self, nearest: NearestData, x: Tensor, times: Tensor, cond: Tensor | None) -> Local:
        """What the nearest data say, in float64."""
        parts = (x.flatten(1).double(), self.path.alpha(times), self.path.sigma(times), self._width(times))
        return nearest.local(Perturbed(*parts, self._offsets.flatten(1).to(x.device)), cond)

    def _times(self, x: Tensor, t: Tensor | float, cond: Tensor | None, quantity: str = "") -> Tensor:
        """Times of the rows in float64, after checks; where sigma = 0 there is no ``quantity``, if one is named."""
        require_tensor("x", x)
        if x.device != self.exact.device:
            raise ValueError(f"x must be on the device of the support, {self.exact.device}, got {x.device}")
        check_point(x, self.exact.shape)
        times = as_times(t, x).double().expand(len(x))
        if not bool(((times >= 0) & (times <= 1)).all()):
            raise ValueError(f"t must be in [0, 1], got values from {float(times.min()):g} to {float(times.max()):g}")
        if quantity and bool((self.path.sigma(times) == 0).any()):
            raise ValueError(
                f"the {quantity} has no value at t = 1, where sigma = 0: evaluate before, or take denoiser(x, t)"
            )
        if cond is not None:
            require_tensor("cond", cond)
            if cond.is_floating_point():
                checked_prior(cond, len(x), len(self.exact._support))
            else:
                check_labels(cond, len(x), self.exact._present)
        return times


def _check_numbers(smoothing: float, neighbours: int | None, perturbations: int, seed: int, data: int) -> None:
    if not 0 <= smoothing < math.inf:
        raise ValueError(f"smoothing must be finite and not negative, got {smoothing}")
    if neighbours is not None and not (_is_integer(neighbours) and 1 <= neighbours <= data):
        raise ValueError(f"neighbours must be None or an integer from 1 to the {data} data, got {neighbours!r}")
    if not _is_integer(perturbations) or perturbations < 2 or perturbations % 2:
        raise ValueError(f"perturbations must be an even integer of at least 2, got {perturbations!r}")
    if not _is_integer(seed) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
