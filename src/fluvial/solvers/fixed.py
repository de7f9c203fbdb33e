r"""Explicit Runge-Kutta methods with a fixed number of steps.

A method is its Butcher tableau; the step is the same for all:

.. math:: k_i = v\Big(x + h \sum_{j<i} a_{ij} k_j,\; t + c_i h\Big), \qquad x \leftarrow x + h \sum_i b_i k_i.

Source: Hairer, Norsett and Wanner 1993, "Solving Ordinary Differential Equations I", section II.1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fluvial.paths import GaussianPath
from fluvial.progress import Progress, ProgressCallback
from fluvial.solvers.grid import Step
from fluvial.solvers.saves import Saves
from fluvial.solvers.velocity import Velocity, land, share_not_finite


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method.

    Args:
        c: Time of each stage, as a share of the step.
        a: For each stage, the weights of the slopes before it.
        b: Weights of the slopes in the step.
    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    @cached_property
    def later(self) -> tuple[tuple[float, tuple[float, ...]], ...]:
        """Time and weights of each stage after the first."""
        return tuple(zip(self.c[1:], self.a[1:], strict=True))


TABLEAUS = {
    "euler": Tableau(c=(0.0,), a=((),), b=(1.0,)),
    "midpoint": Tableau(c=(0.0, 1 / 2), a=((), (1 / 2,)), b=(0.0, 1.0)),
    "heun": Tableau(c=(0.0, 1.0), a=((), (1.0,)), b=(1 / 2, 1 / 2)),
    "rk4": Tableau(
        c=(0.0, 1 / 2, 1 / 2, 1.0),
        a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}
FIXED_METHODS = tuple(TABLEAUS)

CHECKS = 10  # states that are looked at later, to say where they stopped being finite
_KEPT = 2**16  # values of a state that is kept for this; of a larger one the sum is


def integrate_fixed(
    velocity: Velocity,
    x: Tensor,
    steps: Sequence[Step],
    method: str,
    *,
    lands: GaussianPath | None,
    saves: Saves,
    progress: ProgressCallback | None,
) -> Tensor:
    """Walk the steps and return the last state; requested states go to ``saves``.

    A requested time inside a step is reached by a shorter step from the same state, sharing its first stage,
    so that the walk itself is the same whatever is requested.

    Args:
        velocity: The field.
        x: First states, shape ``(B, *D)``.
        steps: The steps in order.
        method: One of :data:`FIXED_METHODS`.
        lands: The path on whose posterior mean the last step lands, where the field is singular at its end.
        saves: Requested times.
        progress: Called after each step.

    Raises:
        ValueError: If the last states are not finite; the message names the step where that began.
    """
    tableau, checks, stride = TABLEAUS[method], [], math.ceil(len(steps) / CHECKS)
    keeps = bool(saves.times)
    for number, step in enumerate(steps, start=1):
        between = saves.between(step.start, step.stop) if keeps else []
        start, kept = step.leg.clamp(step.start), []
        if lands is not None and number == len(steps):
            x, *kept = land(velocity, lands, x, start, [step.stop, *between])
        else:
            before, first = x, velocity(x, start)
            x = advance(velocity, tableau, before, first, step, step.stop)
            kept = [advance(velocity, tableau, before, first, step, target) for target in between]
        if keeps:
            saves.keep(between, kept)
            saves.arrive(step.stop, x)
        if number % stride == 0 or number == len(steps):
            checks.append((step.stop, x if x.numel() <= _KEPT else x.detach().sum()))
        if progress is not None:
            progress(Progress("solve", number, len(steps)))
    _require_finite(x, steps[0].start, checks, f"{method} with {len(steps)} steps")
    return x


def advance(
    velocity: Callable[[Tensor, float], Tensor], tableau: Tableau, x: Tensor, first: Tensor, step: Step, target: float
) -> Tensor:
    """One step of the method from ``x`` at ``step.start`` to ``target``, given the slope at its start."""
    h = target - step.start
    if not tableau.later:  # Euler's method, where the calls below would be felt beside a tiny net
        return torch.add(x, first, alpha=h * tableau.b[0])
    slopes = [first]
    for c, weights in tableau.later:
        slopes.append(velocity(_combine(x, h, weights, slopes), step.leg.clamp(step.start + c * h)))
    return _combine(x, h, tableau.b, slopes)


def _combine(x: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """``x + h sum_i weights_i slopes_i``, leaving out weights that are zero."""
    total = None
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            total = torch.add(x, slope, alpha=h * weight) if total is None else total.add_(slope, alpha=h * weight)
    return x if total is None else total


def _require_finite(x: Tensor, start: float, checks: Sequence[tuple[float, Tensor]], walk: str) -> None:
    """Read the checks, which until then stay on the device, only if the last states are not finite."""
    share = share_not_finite(x)
    if share is None:
        return
    for stop, total in checks:
        if not math.isfinite(float(total.detach().sum())):
            raise ValueError(
                f"field: {walk} left the finite numbers between t = {start:.6g} and t = {stop:.6g}; "
                f"{share} are not finite at the end"
            )
        start = stop
