"""From a field and a starting point to a trajectory: the one public way to integrate."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.fields.base import Field, Walk, breakpoints, trajectory
from fluvial.kinds import checked
from fluvial.progress import ProgressCallback
from fluvial.solvers.adaptive import ADAPTIVE_METHODS, integrate_adaptive
from fluvial.solvers.fixed import FIXED_METHODS, TABLEAUS, integrate_fixed
from fluvial.solvers.grid import Grid, Step, checked_grid, lay_steps, make_legs, make_steps, rounded
from fluvial.solvers.jumps import JUMP_METHODS, check_averages, integrate_jumps
from fluvial.solvers.saves import Saves
from fluvial.solvers.velocity import Velocity, land, share_not_finite

DEFAULT_STEPS = 25
DEFAULT_TOLERANCE = 1e-5
LANDING_SIGMA = 1e-4
"""Noise level at which the adaptive method leaves a field that is singular at the end and lands."""


@dataclass(frozen=True)
class Trajectory:
    """Where :func:`solve` went and what it cost.

    Args:
        x: States at the end time, shape ``(B, *D)``.
        t: Times of ``path``, shape ``(S,)``: those of ``save_at``, or the end time alone.
        path: States at those times, shape ``(S, B, *D)``.
        evaluations: How many times the field was evaluated on the batch.
        rejected: How many steps the adaptive method tried and took back; 0 for fixed-step methods.
    """

    x: Float[Tensor, "B *D"]
    t: Float[Tensor, " S"]
    path: Float[Tensor, "S B *D"]
    evaluations: int
    rejected: int


@checked
def solve(
    field: Field,
    x0: Tensor,
    *,
    steps: int | None = None,
    method: str = "midpoint",
    grid: Grid | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    cond: Any = None,
    t0: float = 0.0,
    t1: float = 1.0,
    save_at: Sequence[float] | np.ndarray | Tensor | None = None,
    progress: ProgressCallback | None = None,
) -> Trajectory:
    r"""Solve :math:`dx/dt = v(x, t)` from ``t0`` to ``t1``.

    The field is evaluated on the whole batch with ``t`` of shape ``(B,)``. Its breakpoints become nodes of
    the grid, and each side of a breakpoint sees its own velocity. A field that is singular at ``t = 1`` is
    not evaluated there: the last step of a fixed-step method, and of the adaptive one from sigma = 1e-4,
    lands on the posterior mean. The result is differentiable; wrap the call in ``torch.no_grad()`` for
    sampling.

    Args:
        field: The velocity, ``field(x, t, cond) -> v`` with ``x`` and ``v`` of shape ``(B, *D)``.
        x0: States at ``t0``, shape ``(B, *D)``; their type is the type of the computation.
        steps: Number of steps of a fixed-step method, shared among the legs between breakpoints; 25 if not
            given.
        method: ``"euler"``, ``"midpoint"``, ``"heun"`` or ``"rk4"`` (1, 2, 2, 4 evaluations a step, and
            orders), or ``"dopri5"``, which chooses its steps. ``"meanflow"`` jumps along average velocities, for
            fields that know them: ``field(x, t, cond, r)``.
        grid: Nodes of time for a fixed-step method or jumps, strictly monotone from ``t0`` to ``t1``, instead of equal
            steps; a breakpoint that is none of them becomes one.
        rtol: Tolerance relative to the state, 1e-5 if not given; ``"dopri5"`` only.
        atol: Absolute tolerance, 1e-5 if not given; ``"dopri5"`` only.
        cond: Condition, passed to the field as it is.
        t0: Start time, in [0, 1].
        t1: End time, in [0, 1]; before ``t0`` to integrate backwards.
        save_at: Times between ``t0`` and ``t1``, in any order, whose states are kept.
        progress: Called after each step.

    Returns:
        The end states, the states at ``save_at``, and the number of evaluations.

    Raises:
        ValueError: If an argument is invalid, or the integration fails (values that are not finite, a step
            size that underflows): the message names the time and the share of rows.

    Example:
        >>> trajectory = solve(lambda x, t, cond=None: -x, torch.ones(1, 2), steps=10, method="rk4")
        >>> trajectory.x, trajectory.evaluations
        (tensor([[0.3679, 0.3679]]), 40)
    """
    count, tolerances = _check_method(method, steps, grid, rtol, atol)
    check_states(x0)
    t0, t1 = float(t0), float(t1)
    check_interval(t0, t1)
    nodes = None if grid is None else checked_grid(grid, t0, t1)
    wanted = _wanted(save_at, t0, t1)
    velocity = Velocity(field, cond)
    if velocity.path is not None and rounded(t0, x0.dtype) >= 1:
        raise ValueError(f"t0 must be < 1: the field has no velocity at t = 1, where sigma = 0, got {t0}")
    saves = Saves(wanted, t0, t1)
    if method in JUMP_METHODS:
        check_averages(field)
        steps_ = _steps(field, velocity, x0, t0, t1, count, nodes)
        saves.arrive(t0, x0)
        x, velocity.evaluations = integrate_jumps(field, x0, steps_, cond, saves=saves, progress=progress)
        kept, rejected = saves.states(), 0
    elif method in FIXED_METHODS:
        steps_ = _steps(field, velocity, x0, t0, t1, count, nodes)
        x, kept = _solve_fixed(field, velocity, x0, steps_, method, saves, progress)
        rejected = 0
    else:
        saves.arrive(t0, x0)
        x, rejected = _solve_adaptive(velocity, x0, t0, t1, breakpoints(field), *tolerances, saves, progress)
        kept = saves.states()
    path = torch.stack(kept) if wanted else x[None]
    return Trajectory(x, x.new_tensor(wanted or [t1]), path, velocity.evaluations, rejected)


def _steps(
    field: Field, velocity: Velocity, x0: Tensor, t0: float, t1: float, count: int, nodes: Sequence[float] | None
) -> list[Step]:
    """The steps between the given nodes, or ``count`` about equal ones."""
    legs = make_legs(t0, t1, breakpoints(field), x0.dtype)
    if nodes is None:
        return make_steps(legs, count)
    steps = lay_steps(legs, nodes)
    late = steps[-1].start
    if velocity.path is not None and rounded(late, x0.dtype) >= 1:
        raise ValueError(f"grid: the node {late!r} is 1 in {x0.dtype}, where the field has no velocity: leave it out")
    return steps


def _solve_fixed(
    field: Field,
    velocity: Velocity,
    x0: Tensor,
    steps: Sequence[Step],
    method: str,
    saves: Saves,
    progress: ProgressCallback | None,
) -> tuple[Tensor, list[Tensor]]:
    """Walk the steps, in the field's own course if it has one; the last states and the kept ones."""
    t0, t1 = steps[0].start, steps[-1].stop
    lands = velocity.path if velocity.path is not None and rounded(t1, x0.dtype) >= 1 else None
    end_only = lands is not None and all(t in (t0, t1) for t in saves.times)
    walk = Walk(method, len(steps) * len(TABLEAUS[method].c), end_only)
    course = velocity.course = trajectory(field, x0, velocity.cond, walk)
    start = x0 if course is None else course.start
    saves.arrive(t0, start)
    x = integrate_fixed(velocity, start, steps, method, lands=lands, saves=saves, progress=progress)
    kept = saves.states()
    return (x, kept) if course is None else (course.states(x), [course.states(state) for state in kept])


def _solve_adaptive(
    velocity: Velocity,
    x: Tensor,
    t0: float,
    t1: float,
    jumps: tuple[float, ...],
    rtol: float,
    atol: float,
    saves: Saves,
    progress: ProgressCallback | None,
) -> tuple[Tensor, int]:
    """Integrate as far as the field has a stable velocity, then land where it has none."""
    path = velocity.path if t1 > t0 else None
    stop = t1 if path is None else min(t1, path.time_at_sigma(LANDING_SIGMA), 1 - torch.finfo(x.dtype).eps)
    legs = make_legs(t0, stop, jumps, x.dtype) if t0 < stop or path is None else []
    x, rejected = integrate_adaptive(velocity, x, legs, rtol=rtol, atol=atol, saves=saves, progress=progress)
    if path is not None and stop < t1:
        start = max(t0, stop)
        targets = [t1, *saves.between(start, t1)]
        x, *kept = land(velocity, path, x, start, targets)
        saves.keep(targets[1:], kept)
        saves.arrive(t1, x)
        _require_landed(x)
    return x, rejected


def _require_landed(x: Tensor) -> None:
    share = share_not_finite(x)
    if share is not None:
        raise ValueError(f"field: the posterior mean on which dopri5 lands is not finite in {share}")


def _check_method(
    method: str, steps: int | None, grid: Grid | None, rtol: float | None, atol: float | None
) -> tuple[int, tuple[float, float]]:
    """The number of steps and the tolerances, defaults filled in; each has meaning for its kind of method alone."""
    known = (*FIXED_METHODS, *JUMP_METHODS, *ADAPTIVE_METHODS)
    if method not in known:
        near = difflib.get_close_matches(str(method), known, 1, 0.0)[0]
        raise ValueError(f"method must be one of {', '.join(known)}, got {method!r}; did you mean {near!r}?")
    if steps is not None and method in ADAPTIVE_METHODS:
        raise ValueError(f"steps must not be given with {method}, which chooses its own, got {steps}")
    if steps is not None and (not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1):
        raise ValueError(f"steps must be an integer of at least 1, got {steps!r}")
    if grid is not None and method in ADAPTIVE_METHODS:
        raise ValueError(f"grid must not be given with {method}, which chooses its own steps")
    if grid is not None and steps is not None:
        raise ValueError(f"steps must not be given with grid, whose nodes are the steps, got {steps}")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and method not in ADAPTIVE_METHODS:
            raise ValueError(f"{name} must not be given with {method}, whose steps are fixed, got {value}")
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    filled = (DEFAULT_TOLERANCE if value is None else float(value) for value in (rtol, atol))
    return DEFAULT_STEPS if steps is None else int(steps), (next(filled), next(filled))


def check_states(x0: Tensor) -> None:
    require_tensor("x0", x0)
    if not x0.is_floating_point():
        raise ValueError(f"x0 must have a floating-point type, got {x0.dtype}")
    if x0.ndim == 0 or x0.numel() == 0:
        raise ValueError(f"x0 must have shape (B, *D) with at least one value, got {tuple(x0.shape)}")
    share = share_not_finite(x0)
    if share is not None:
        raise ValueError(f"x0 must be finite, got NaN or infinite values in {share}")


def check_interval(t0: float, t1: float) -> None:
    for name, t in (("t0", t0), ("t1", t1)):
        if not 0 <= t <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {t}")
    if t0 == t1:
        raise ValueError(f"t0 and t1 must differ, got {t0} for both")


def _wanted(save_at: Sequence[float] | np.ndarray | Tensor | None, t0: float, t1: float) -> list[float]:
    """The times of ``save_at`` as numbers; none if it is not given."""
    if save_at is None:
        return []
    times = torch.as_tensor(save_at, dtype=torch.float64)
    if times.ndim != 1 or len(times) == 0:
        raise ValueError(f"save_at must be a sequence of at least one time, got shape {tuple(times.shape)}")
    low, high = min(t0, t1), max(t0, t1)
    outside = [t for t in times.tolist() if not low <= t <= high]
    if outside:
        raise ValueError(f"save_at must lie between t0 = {t0} and t1 = {t1}, got {outside[0]}")
    return [float(t) for t in times.tolist()]
