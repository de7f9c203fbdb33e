r"""Nodes of time that a method uses best on a field: those at which all its steps err alike, as seen at the end.

From a state of the exact flow at :math:`t_i`, step i of a method of order p ends at a distance :math:`e_i` from the
flow; to first order the error at the end is :math:`\sum_i \Phi_i e_i`, with :math:`\Phi_i` the Jacobian of the flow
from :math:`t_{i+1}` to the end. Since :math:`|\Phi_i e_i| \approx \psi(t_i)\, h_i^{p+1}`, the sum of the sizes is least
for a given number of steps if nodes are as dense as :math:`\psi^{1/(p+1)}`, and then all its terms are equal: the
equidistribution principle, with :math:`\psi^{1/(p+1)}` the monitor function. The nodes are found by de Boor's
iteration: measure the terms on a grid, move the nodes until the measured monitor has the same integral over each step,
measure again.

The size of :math:`\Phi_i e_i` is measured by an adjoint: for random signs w,
:math:`\mathbb{E}\, (w^\top \Phi_i e_i)^2 = |\Phi_i e_i|^2`, and one pass backwards along the trajectory gives
:math:`\Phi_i^\top w` for all i.

Source: de Boor 1973, "Good approximation by splines with variable knots. II"; Huang and Russell 2011, "Adaptive Moving
Mesh Methods", chapter 2; the weights are those of Becker and Rannacher 2001, "An optimal control approach to a
posteriori error estimation in finite element methods", section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.fields.base import Field, breakpoints
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.solvers.fixed import FIXED_METHODS
from fluvial.solvers.grid import Leg, make_legs, make_steps, share_steps
from fluvial.solvers.trajectory import check_interval, check_states, solve

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
"""Order of convergence of each fixed-step method."""

FLOOR = 0.1
"""Share of the mean monitor that is added everywhere, so that no stretch of time is left without nodes."""

_MOST_MEASURED = 32  # steps on which the monitor is measured; a grid of more steps follows the same density
_REFINED = 3  # steps of RK4 along the reference within each measured step
_DIRECTIONS = 2  # random signs for each row
_REFERENCE = 128  # steps of RK4, at least, to the ends that grids are judged by


@dataclass(frozen=True)
class _Task:
    """What a grid is sought for."""

    field: Field
    x0: Tensor
    cond: Any
    method: str

    def move(self, x: Tensor, nodes: Sequence[float], method: str) -> Tensor:
        """States at the last node, from those at the first."""
        return solve(self.field, x, grid=nodes, method=method, cond=self.cond, t0=nodes[0], t1=nodes[-1]).x


def optimised_grid(
    field: Field,
    x0: Float[Tensor, "B *D"],
    steps: int,
    method: str = "midpoint",
    *,
    cond: Any = None,
    t0: float = 0.0,
    t1: float = 1.0,
    rounds: int = 6,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> list[float]:
    """Nodes of time on which a fixed-step method errs least along a field, for ``fv.solve(grid=...)``.

    Of the equal steps and the grids of all rounds it returns the one whose end points are nearest to a fine solution,
    in the root mean square over ``x0``.

    Args:
        field: The velocity, differentiable in ``x``.
        x0: States at ``t0``, shape ``(B, *D)``; a few hundred rows, since a few of them make most of the error. Float64
            for more than about 30 steps of RK4, whose errors drown in the rounding of float32.
        steps: Number of steps, at least one for each stretch between the field's breakpoints, which become nodes.
        method: ``"euler"``, ``"midpoint"``, ``"heun"`` or ``"rk4"``.
        cond: Condition, ``B`` rows, passed to the field.
        t0: Start time, in [0, 1].
        t1: End time, in [0, 1]; before ``t0`` to integrate backwards.
        rounds: How often the nodes are moved.
        seed: Of the random signs.
        progress: Called after each round.

    Returns:
        ``steps + 1`` strictly monotone times from ``t0`` to ``t1``.

    Raises:
        ValueError: If an argument is invalid, or the integration fails; the message names the time.

    Example:
        >>> from fluvial.solvers.grids import optimised_grid
        >>> late = lambda x, t, cond=None: 0 * x + t[:, None] ** 3    # most of its change is near t = 1
        >>> grid = optimised_grid(late, torch.zeros(8, 1), 4, "euler")
        >>> [round(t, 1) for t in grid]
        [0.0, 0.4, 0.7, 0.8, 1.0]
    """
    _check(method, steps, rounds, seed)
    check_states(x0)
    t0, t1 = float(t0), float(t1)
    check_interval(t0, t1)
    task = _Task(field, x0, cond, method)
    legs = make_legs(t0, t1, breakpoints(field), x0.dtype)
    ends = [legs[0].start, *(leg.stop for leg in legs)]
    nodes, measured = (_even(legs, count) for count in (steps, max(min(steps, _MOST_MEASURED), len(legs))))
    with torch.no_grad():
        truth = task.move(x0, _even(legs, max(_REFERENCE, 4 * steps)), "rk4")
        best, least = nodes, _distance(task.move(x0, nodes, method), truth)
    for number in range(1, rounds + 1):
        weights = _monitor(task, measured, seed, number)
        measured, nodes = (_placed(measured, weights, ends, count) for count in (len(measured) - 1, steps))
        with torch.no_grad():
            error = _distance(task.move(x0, nodes, method), truth)
        if error < least:
            best, least = nodes, error
        if progress is not None:
            progress(Progress("optimise grid", number, rounds, {"error": least}))
    return best


def _even(legs: Sequence[Leg], count: int) -> list[float]:
    """Nodes of about equal steps."""
    return [legs[0].start, *(step.stop for step in make_steps(legs, count))]


def _monitor(task: _Task, nodes: Sequence[float], seed: int, number: int) -> Float[np.ndarray, " steps"]:
    """Integral of the monitor function over each step: floored and smoothed over neighbours."""
    found = _errors(task, nodes, seed, number)
    width = np.abs(np.diff(nodes))
    power = 1 / (ORDERS[task.method] + 1)
    density: np.ndarray = found**power / width
    padded = np.pad(density, 1, mode="edge")
    density = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    mean = float((density * width).sum() / width.sum())
    return (density + FLOOR * mean if mean > 0 else np.ones_like(density)) * width


def _errors(task: _Task, nodes: Sequence[float], seed: int, number: int) -> Float[np.ndarray, " steps"]:
    """What the error of each step makes of the end points, root mean square over the rows."""
    cells = [_refined(left, right) for left, right in pairwise(nodes)]
    with torch.no_grad():
        states, local, x = [task.x0], [], task.x0
        for cell in cells:
            stop = task.move(x, cell, "rk4")
            local.append(task.move(x, [cell[0], cell[-1]], task.method) - stop)
            states.append(x := stop)
    signs = generator(seed, number)
    adjoints = [(2 * torch.randint(0, 2, task.x0.shape, generator=signs) - 1).to(task.x0) for _ in range(_DIRECTIONS)]
    found = []
    for i in reversed(range(len(cells))):
        products = [(w * local[i]).flatten(1).sum(1).double() for w in adjoints]
        found.append(float(torch.stack(products).square().mean().sqrt()))
        if i:  # nothing is measured before the first step
            adjoints = _pulled_back(task, states[i], cells[i], adjoints)
    return np.array(found[::-1])


def _pulled_back(task: _Task, x: Tensor, cell: Sequence[float], adjoints: Sequence[Tensor]) -> list[Tensor]:
    """The transposed Jacobian of the flow over a cell, applied to each adjoint."""
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        stop = task.move(start, cell, "rk4")
        last = len(adjoints) - 1
        return [torch.autograd.grad(stop, start, w, retain_graph=k < last)[0] for k, w in enumerate(adjoints)]


def _refined(left: float, right: float) -> list[float]:
    return [left + (right - left) * k / _REFINED for k in range(_REFINED)] + [right]


def _placed(
    nodes: Sequence[float], weights: Float[np.ndarray, " cells"], ends: Sequence[float], steps: int
) -> list[float]:
    """Nodes between which the weights, spread evenly over their cells, have equal integrals; the ends are nodes.

    Args:
        nodes: Ends of the cells, those in ``ends`` among them.
        weights: Positive, one for each cell.
        ends: Start, breakpoints and end of the whole way.
        steps: Number of steps, shared among the stretches between ``ends`` by the weights in them.
    """
    total = np.concatenate([[0.0], np.cumsum(weights)])
    marks = [total[nodes.index(end)] for end in ends]
    shares = share_steps([right - left for left, right in pairwise(marks)], steps)
    placed = [ends[0]]
    for (left, right), share, stop in zip(pairwise(marks), shares, ends[1:], strict=True):
        inside = np.interp(left + (right - left) * np.arange(1, share) / share, total, nodes)
        placed += [*inside.tolist(), stop]
    return placed


def _distance(x: Tensor, truth: Tensor) -> float:
    return float((x - truth).double().square().flatten(1).sum(1).mean().sqrt())


def _check(method: str, steps: int, rounds: int, seed: int) -> None:
    if method not in FIXED_METHODS:
        raise ValueError(f"method must be one of {', '.join(FIXED_METHODS)}, whose steps are fixed, got {method!r}")
    for name, value in {"steps": steps, "rounds": rounds}.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    generator(seed)  # refuses what is no seed
