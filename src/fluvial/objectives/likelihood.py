r"""Maximum likelihood: a continuous normalizing flow trained by the log-density that it gives the data.

A datum is carried back to the noise that it comes from by a fixed-step method, and with it the integrals of

.. math:: \nabla \cdot v, \qquad \|v\|^2, \qquad \|\partial v / \partial x\|_F^2,

so that the negative log-density and the two regularisers of RNODE come out of one pass. With the rows
:math:`\epsilon_k^\top J` of one backward pass each, :math:`\epsilon_k^\top J \epsilon_k` estimates the divergence and
:math:`\|\epsilon_k^\top J\|^2` the squared Frobenius norm; summed over the unit vectors both are exact.

Each evaluation of the net waits for the one before: an update takes ``steps`` times the stages of the method, where
flow matching takes one.

Sources: Chen et al. 2018, "Neural Ordinary Differential Equations"; Grathwohl et al. 2019, "FFJORD"; Finlay et al.
2020, "How to Train Your Neural ODE: the World of Jacobian and Kinetic Regularization" (RNODE).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fluvial.checks import require_tensor
from fluvial.devices import to_device
from fluvial.fields.base import Field, breakpoints, singular_at_end
from fluvial.fields.carried import Carried, log_normal, rademacher
from fluvial.fields.divergences import pullback, require_constant
from fluvial.kinds import checked
from fluvial.levels import spread_levels
from fluvial.objectives.base import Batch, Loss, require_call
from fluvial.objectives.recomputed import recomputed
from fluvial.randomness import draw_rows
from fluvial.solvers.fixed import FIXED_METHODS, TABLEAUS, Tableau, advance
from fluvial.solvers.grid import Step, make_legs, make_steps

ESTIMATES = ("hutchinson", "exact")
"""Ways to take the divergence in training."""


@checked
@dataclass(frozen=True)
class MaximumLikelihood:
    r"""Negative log-density of the data, in nats per dimension, with the regularisers of RNODE.

    .. math:: L = -\frac{\log p_1(x_1)}{d} + \frac{\lambda_K}{d} \int_0^1 \|v\|^2\, dt
        + \frac{\lambda_J}{d} \int_0^1 \|\partial v / \partial x\|_F^2\, dt

    along the trajectory that ends at the datum. What is differentiated is what was computed, the fixed-step method
    itself: by backpropagation through all steps, or with ``adjoint`` by recomputing one step after the other from the
    end to the start. Both give the same gradient up to rounding. A continuous adjoint (solving the adjoint's own
    equation backwards) would give one that is off by the solver's error instead.

    Sources: as above; Onken and Ruthotto 2020, "Discretize-Optimize vs. Optimize-Discretize for Time-Series Regression
    and Continuous Normalizing Flows", for the choice of the discrete gradient.

    Args:
        steps: Steps of the method between t = 1 and 0, about equal.
        method: ``"euler"``, ``"midpoint"``, ``"heun"`` or ``"rk4"``: 1, 2, 2 or 4 evaluations a step.
        adjoint: Keep one state for each step instead of its graph, and evaluate each step once more for the gradient:
            the memory is that of one step whatever their number, the time about half as long again.
        divergence: ``"hutchinson"``, one backward pass for each of ``probes`` random directions, unbiased; or
            ``"exact"``, as many as a datum has numbers.
        probes: Random directions of each datum, the same at all times; for ``"hutchinson"``.
        kinetic: Weight of the kinetic energy, the integral of the squared speed per dimension, in squared units of the
            data over the square of the unit of time.
        jacobian: Weight of the integral of the Jacobian's squared Frobenius norm per dimension, without units of the
            data; estimated with the same directions as the divergence, without another backward pass.
        levels: Grey levels of data in [-1, 1], such as 256: uniform noise as wide as one level is added, without which
            the density of data on a grid has no bound.

    Raises:
        ValueError: If a number is out of its range, or a name unknown.

    Example:
        >>> objective = fv.objectives.MaximumLikelihood(steps=2)
        >>> loss = objective(fv.nn.MLP((2,), width=8), fv.Batch(torch.zeros(3, 2)), generator=torch.Generator())
        >>> round(loss.loss.item(), 4), round(0.5 * math.log(2 * math.pi), 4), int(loss.logs["evaluations"])
        (0.9189, 0.9189, 8)
    """

    steps: int = 8
    method: str = "rk4"
    adjoint: bool = False
    divergence: str = "hutchinson"
    probes: int = 1
    kinetic: float = 0.0
    jacobian: float = 0.0
    levels: int | None = None

    def __post_init__(self) -> None:
        for name, valid in (("method", FIXED_METHODS), ("divergence", ESTIMATES)):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")
        for name, least in (("steps", 1), ("probes", 1), ("levels", 2)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        for name in ("kinetic", "jacobian"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")

    @property
    def logged(self) -> tuple[str, ...]:
        """Names of what it logs: all but the last per dimension, before they are weighted, and evaluations of the net
        in one pass."""
        return ("nll", "kinetic", "jacobian", "evaluations")

    @property
    def evaluations(self) -> int:
        """Evaluations of the net, one after the other, that a pass takes (a field's breakpoints add none)."""
        return self.steps * len(TABLEAUS[self.method].c)

    def __call__(self, net: Field, batch: Batch, *, generator: torch.Generator) -> Loss:
        """Loss of ``net`` on ``batch``; all draws come from ``generator``.

        Raises:
            ValueError: If the field makes single points of noise (sigma = 0 at t = 1), which have no density, or has
                more legs between its breakpoints than there are steps.
        """
        require_call(net, batch, generator)
        if singular_at_end(net):
            raise ValueError("the field makes single points of noise (sigma = 0 at t = 1), which have no density")
        x1 = self._dequantised(batch.x1, generator)
        carried = Carried(net, x1, self._rates(x1, generator))
        z = carried.start(x1, 3)
        steps = make_steps(make_legs(1.0, 0.0, breakpoints(net), x1.dtype), self.steps)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            for step in steps:
                z = self._advance(carried, z, step, batch.cond)
        points, integrals = carried.split(z)
        return self._loss(points, integrals, x1)

    def _dequantised(self, x1: Tensor, generator: torch.Generator) -> Tensor:
        if self.levels is None:
            return x1

        def draw(count: int, g: torch.Generator) -> Tensor:
            return torch.rand((count, *x1.shape[1:]), generator=g, device=g.device, dtype=x1.dtype)

        uniform = draw_rows(draw, len(x1), generator)
        return spread_levels(x1, to_device(uniform, x1.device), self.levels)

    def _rates(self, x: Tensor, generator: torch.Generator) -> "Rates":
        if self.divergence == "exact":
            dim = math.prod(x.shape[1:])
            unit = torch.eye(dim, dtype=x.dtype, device=x.device).reshape(dim, 1, *x.shape[1:])
            return Rates(unit.unbind(0), 1.0, self.kinetic > 0, self.jacobian > 0)
        directions = rademacher(x, self.probes, generator).unbind(1)
        return Rates(directions, 1 / self.probes, self.kinetic > 0, self.jacobian > 0)

    def _advance(self, carried: Carried, z: Tensor, step: Step, cond: Any) -> Tensor:
        tableau = TABLEAUS[self.method]
        if self.adjoint and torch.is_grad_enabled():
            return recomputed(lambda state: runge_kutta(carried, state, step, tableau, cond), z)
        return runge_kutta(carried, z, step, tableau, cond)

    def _loss(self, points: Tensor, integrals: Tensor, x1: Tensor) -> Loss:
        """From where the data came to, and the integrals from t = 1 to 0, which have the sign of the time's way."""
        dim = math.prod(x1.shape[1:])
        trace, energy, norm = integrals.unbind(1)
        nll, energy, norm = -(log_normal(points) + trace) / dim, -energy / dim, -norm / dim
        per_sample = nll
        for weight, term in ((self.kinetic, energy), (self.jacobian, norm)):
            per_sample = per_sample + weight * term if weight else per_sample
        per_sample = per_sample.to(x1.dtype)
        values = (*(term.detach().mean().to(x1.dtype) for term in (nll, energy, norm)),)
        logs = dict(zip(self.logged, (*values, x1.new_full((), self.evaluations)), strict=True))
        return Loss(per_sample.mean(), per_sample.detach(), logs)


@dataclass(frozen=True)
class Rates:
    """Velocity of a field, and what its trajectories integrate: divergence, squared speed, squared Jacobian.

    Args:
        directions: Directions ``epsilon`` of the rows ``epsilon^T J``, each of the shape of the points or to be
            broadcast to it.
        weight: Weight of each direction in the sums: 1 for the unit vectors, one over their number for random ones.
        kinetic: Whether the squared speed keeps its gradient.
        jacobian: Whether the squared norm keeps its gradient.

    Example:
        >>> field = lambda x, t, cond=None: torch.stack([x[:, 1], 3 * x[:, 1]], 1)
        >>> rates = Rates([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])], 1.0)
        >>> with torch.no_grad():
        ...     rates(field, torch.tensor([[2.0, 1.0]]), torch.zeros(1))
        (tensor([[1., 3.]]), tensor([[ 3., 10., 10.]]))
    """

    directions: Sequence[Tensor]
    weight: float
    kinetic: bool = True
    jacobian: bool = True

    def __call__(self, field: Field, x: Tensor, t: Tensor, cond: Any = None) -> tuple[Tensor, Tensor]:
        """Velocity ``(B, *D)`` and the three rates ``(B, 3)``; without gradients enabled no graph is kept."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            v = field(at, t, cond)
            require_tensor("what the net returns", v)
            if v.shape != x.shape:
                raise ValueError(f"the net must return shape {tuple(x.shape)}, got {tuple(v.shape)}")
            speed = v.flatten(1).square().sum(1)
            trace, norm, constant = torch.zeros_like(speed), torch.zeros_like(speed), True
            for direction in self.directions:
                row = pullback((v * direction).sum(), at, keep=keep, again=True)
                if row is not None:
                    constant = False
                    trace = trace + self.weight * (row * direction).flatten(1).sum(1)
                    norm = norm + self.weight * (row if self.jacobian else row.detach()).flatten(1).square().sum(1)
        if constant:
            require_constant(lambda y: field(y, t, cond), x, v)
        found = torch.stack([trace, speed if self.kinetic else speed.detach(), norm], 1)
        return (v, found) if keep else (v.detach(), found.detach())


def runge_kutta(
    velocity: Callable[[Tensor, Tensor, Any], Tensor], z: Tensor, step: Step, tableau: Tableau, cond: Any = None
) -> Tensor:
    """One step of an explicit method, without reading a value back from the device."""

    def at(x: Tensor, t: float) -> Tensor:
        return velocity(x, x.new_full((len(x),), t), cond)

    return advance(at, tableau, z, at(z, step.leg.clamp(step.start)), step, step.stop)
