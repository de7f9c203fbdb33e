"""The adaptive method: Dormand and Prince's pair of order 5(4), as torchdiffeq implements it.

A step is accepted when the largest root-mean-square error over the rows, in units of ``atol + rtol |x|``,
is at most 1. The maximum, unlike a mean over the batch, keeps a difficult row as accurate among easy ones as
on its own.

Source: Dormand and Prince 1980, "A family of embedded Runge-Kutta formulae";
https://github.com/rtqichen/torchdiffeq.
"""

import math
from collections.abc import Sequence

import torch
import torchdiffeq
from torch import Tensor

from fluvial.progress import Progress, ProgressCallback
from fluvial.solvers.grid import Leg
from fluvial.solvers.saves import Saves
from fluvial.solvers.velocity import Velocity, share_of_rows

ADAPTIVE_METHODS = ("dopri5",)
MAX_STEPS = 10_000
"""Steps between two requested times after which an integration counts as stuck."""

_TICKS = 1000


class Monitor:
    """One leg as torchdiffeq sees it: the velocity, the norm of the error, and what happened.

    Args:
        velocity: The field.
        leg: The stretch of time; the field is never evaluated outside of it.
        way: Start and end of the whole integration, for progress.
        progress: Called after each accepted step.
    """

    def __init__(
        self, velocity: Velocity, leg: Leg, way: tuple[float, float], progress: ProgressCallback | None
    ) -> None:
        self.rejected = 0
        self._velocity = velocity
        self._bounds = leg.low, leg.high
        self._way = way
        self._progress = progress
        self._time: Tensor | float = leg.start
        self._errors: Tensor | None = None
        self._broken: Tensor | None = None

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return self._velocity(x, t.clamp(*self._bounds))

    @torch.no_grad()
    def norm(self, error: Tensor) -> Tensor:
        """Largest root mean square over the rows; step sizes carry no gradient."""
        self._errors = error.square().reshape(len(error), -1).mean(1).sqrt()
        largest = self._errors.amax()
        if self._broken is None and not math.isfinite(float(largest)):
            self._broken = ~self._errors.isfinite()  # later on, the step that this row spoiled spoils all others
        return largest

    def callback_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        self._time = t

    def callback_reject_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        self.rejected += 1

    def callback_accept_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        if self._progress is not None:
            start, stop = self._way
            done = (abs(float(t) - start) + float(dt)) / abs(stop - start)
            self._progress(Progress("solve", min(int(_TICKS * done), _TICKS), _TICKS))

    def explain(self, error: AssertionError) -> Exception:
        """The error to raise for one of torchdiffeq's assertions; the field's own come back as they are."""
        reason = str(error)
        errors = self._errors if self._errors is not None else torch.zeros(1)
        bad = ~torch.isfinite(errors) if self._broken is None else self._broken
        where = f"at t = {float(self._time):.6g}"
        if bool(bad.any()):
            return ValueError(f"field: dopri5 met values that are not finite {where}, in {share_of_rows(bad)}")
        failing = share_of_rows(errors > 1)
        if reason.startswith("underflow in dt"):
            return ValueError(
                f"field: the step size of dopri5 became too small {where}, where {failing} exceed the "
                "tolerance; raise rtol and atol, or use float64"
            )
        if reason.startswith("max_num_steps"):
            deciding = share_of_rows(errors > 0.5 * errors.amax())
            return ValueError(
                f"field: dopri5 took {MAX_STEPS} steps and is still {where}, where the errors of {deciding} decide the "
                "step; raise rtol and atol, or use a fixed-step method"
            )
        return error


def integrate_adaptive(
    velocity: Velocity,
    x: Tensor,
    legs: Sequence[Leg],
    *,
    rtol: float,
    atol: float,
    saves: Saves,
    progress: ProgressCallback | None,
) -> tuple[Tensor, int]:
    """Integrate leg after leg and return the last state and the number of rejected steps.

    Requested states come from the method's interpolant (order 4), so they alter no step.

    Args:
        velocity: The field.
        x: First states, shape ``(B, *D)``.
        legs: The legs in order.
        rtol: Tolerance relative to the state.
        atol: Absolute tolerance.
        saves: Requested times.
        progress: Called after each accepted step.

    Raises:
        ValueError: If values become not finite, the step size underflows or a leg takes too many steps; the
            message names the time and the share of rows.
    """
    rejected = 0
    way = (legs[0].start, legs[-1].stop) if legs else (0.0, 1.0)
    clock = torch.float32 if x.device.type == "mps" else torch.float64
    for leg in legs:
        monitor = Monitor(velocity, leg, way, progress)
        inside = saves.between(leg.start, leg.stop)
        times = torch.tensor([leg.start, *inside, leg.stop], dtype=clock, device=x.device)
        options = {"norm": monitor.norm, "step_t": times[-1:], "max_num_steps": MAX_STEPS, "dtype": clock}
        try:
            states = torchdiffeq.odeint(monitor, x, times, rtol=rtol, atol=atol, method="dopri5", options=options)
        except AssertionError as error:
            explained = monitor.explain(error)
            raise explained from (None if explained is not error else error.__cause__)
        x = states[-1]
        saves.keep(inside, list(states[1:-1]))
        saves.arrive(leg.stop, x)
        rejected += monitor.rejected
    return x, rejected
