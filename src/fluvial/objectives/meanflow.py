r"""Mean Flows: a net that knows the average velocity between two times, and so samples in one step.

The average velocity :math:`U(x_t, t, r) = \frac{1}{r - t} \int_t^r v(x_\tau, \tau)\, d\tau` along the flow obeys, with
:math:`t = 0` at noise and :math:`r \ge t`,

.. math:: U = v + (r - t) \frac{dU}{dt}, \qquad \frac{dU}{dt} = v \cdot \partial_x U + \partial_t U,

a derivative along the tangent ``(v, 1, 0)`` of ``(x, t, r)``, taken in forward mode. The net is regressed on the right
side without gradient. The published form has the conditional velocity in the tangent as well; the improved one takes
the net's own velocity ``U(x, t, t)`` there, which leaves a regression whose target has the conditional velocity in its
first term alone.

Sources: Geng et al. 2025, "Mean Flows for One-step Generative Modeling" (their clock runs the other way: it is mirrored
here); Geng et al. 2025, "Improved Mean Flows", for the tangent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.conditions import is_present, labels_of, null_like
from fluvial.couplings import Coupling, Independent
from fluvial.kinds import checked
from fluvial.objectives.base import Batch, Loss, met, noise_like, require_call
from fluvial.objectives.forward_mode import derivative_along
from fluvial.paths import CondOT, GaussianPath
from fluvial.randomness import RowGenerator, draw_rows
from fluvial.times import LogitNormal, OrderedPairs, Pairs, SeparatePairs

AverageVelocity = Callable[..., Tensor]
"""``net(x, t, cond, r)``: the average velocity from ``t`` to ``r``; without ``r`` the velocity at ``t``."""


@checked
@dataclass(frozen=True)
class MeanFlow:
    r"""Regression on the average velocity between two times.

    The first ``share`` of the rows of a batch have ``r > t``; the others have ``r = t``, where the regression is that
    of :class:`~fluvial.objectives.CFM`. Forward mode runs on the former alone, and without a graph.

    Args:
        path: Probability path.
        coupling: Which noise meets which datum.
        pairs: Distribution of the times ``(t, r)``.
        share: Share of the rows with ``r > t``, in [0, 1].
        power: Exponent of the adaptive weight :math:`(L + \mathrm{offset})^{-\mathrm{power}}` of each row, with ``L``
            its squared error summed over all elements; 0 is the plain regression, whose optimum is the average
            velocity.
        offset: Offset of the weight, positive.
        improved: Whether the tangent is the net's own velocity, not the conditional one.
        omega: Weight of the conditional velocity in the target of rows with a condition; 1 is no guidance.
        kappa: Weight of the net's own velocity under the condition there. The guidance scale that the net then has is
            ``omega / (1 - kappa)``, at no cost in sampling.
        interval: Times ``(start, end)`` between which the target is guided.

    Raises:
        ValueError: If ``share`` is outside [0, 1] or ``kappa`` outside [0, 1), ``power`` is negative, ``offset`` is not
            positive, ``omega`` is not finite, or ``interval`` is not ordered inside [0, 1].

    Example:
        >>> net = fv.nn.MLP((2,), width=16, depth=1, gap=True)
        >>> loss = fv.MeanFlow()(net, fv.Batch(torch.zeros(8, 2)), generator=torch.Generator().manual_seed(0))
        >>> loss.per_sample.shape, sorted(loss.logs)
        (torch.Size([8]), ['error', 'error_between', 'share'])
    """

    path: GaussianPath = field(default_factory=CondOT)
    coupling: Coupling = field(default_factory=Independent)
    pairs: Pairs = field(default_factory=SeparatePairs)
    share: float = 0.5
    power: float = 0.0
    offset: float = 1e-3
    improved: bool = True
    omega: float = 1.0
    kappa: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], got {self.share}")
        if not 0 <= self.power < float("inf"):
            raise ValueError(f"power must be finite and not negative, got {self.power}")
        if not 0 < self.offset < float("inf"):
            raise ValueError(f"offset must be positive and finite, got {self.offset}")
        if not abs(self.omega) < float("inf"):
            raise ValueError(f"omega must be finite, got {self.omega}")
        if not 0 <= self.kappa < 1:
            raise ValueError(f"kappa must be in [0, 1), got {self.kappa}")
        if len(self.interval) != 2 or not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise ValueError(f"interval must satisfy 0 <= start < end <= 1, got {self.interval}")

    @property
    def logged(self) -> tuple[str, ...]:
        """Names of what it logs: the unweighted error of all rows, of those with ``r > t``, and the latter's share."""
        return ("error", "error_between", "share")

    @classmethod
    def published(cls, path: GaussianPath | None = None) -> "MeanFlow":
        """The form and the settings of Geng et al. 2025 on ImageNet, mirrored to this clock."""
        return cls(
            CondOT() if path is None else path,
            pairs=OrderedPairs(LogitNormal(0.4, 1.0)),
            share=0.25,
            power=1.0,
            offset=1e-2,
            improved=False,
        )

    def __call__(self, net: AverageVelocity, batch: Batch, *, generator: torch.Generator) -> Loss:
        """Loss of ``net`` on ``batch``; all draws come from ``generator``.

        Args:
            net: ``net(x, t, cond, r)``, where ``r = t`` gives what the net returns without ``r``.
            batch: Data.
            generator: Source of noise and times.
        """
        require_call(net, batch, generator)
        x1, count = batch.x1, self._between(len(batch), generator)
        x0 = noise_like(x1, generator)
        t, r = draw_rows(
            lambda rows, g: self.pairs(rows, generator=g, dtype=x1.dtype, device=x1.device), len(x1), generator
        )
        x0 = met(self.coupling, x0, x1, labels_of(batch.cond), generator)
        point = self.path.sample(x0, x1, t)
        target = self._target(net, point.xt, t, point.ut, batch.cond)
        if count:
            rows = slice(count)
            cond = None if batch.cond is None else batch.cond[rows]
            slope = self._slope(net, point.xt[rows], t[rows], r[rows], target[rows], cond)
            moved = target[rows] + _column(r[rows] - t[rows], slope) * slope
            target, r = torch.cat([moved, target[count:]]), torch.cat([r[rows], t[count:]])
        average = _average(net, point.xt, t, batch.cond, r if count else None)
        return self._loss(average - target, count, t)

    def _between(self, rows: int, generator: torch.Generator) -> int:
        """How many of the rows here have ``r > t``: those that are among the first of the whole batch."""
        if not isinstance(generator, RowGenerator):
            return round(self.share * rows)
        here = generator.positions
        return len(range(here.start, round(self.share * generator.total), here.step))

    def _target(self, net: AverageVelocity, x: Tensor, t: Tensor, v: Tensor, cond: Any) -> Tensor:
        """The conditional velocity, guided where there is a condition and the time lies in the interval."""
        if cond is None or (self.omega == 1 and self.kappa == 0):
            return v
        with torch.no_grad():
            free, bound = _average(net, x, t, null_like(cond)), _average(net, x, t, cond)
        guided = self.omega * v + (1 - self.omega - self.kappa) * free + self.kappa * bound
        inside = is_present(cond) & (t >= self.interval[0]) & (t < self.interval[1])
        return torch.where(_column(inside, x), guided, v)

    def _slope(self, net: AverageVelocity, x: Tensor, t: Tensor, r: Tensor, v: Tensor, cond: Any) -> Tensor:
        """Derivative of the average velocity along the flow, in forward mode and without a gradient."""
        with torch.no_grad():
            tangent = _average(net, x, t, cond) if self.improved else v
        return derivative_along(lambda x, t: _average(net, x, t, cond, r), (x, t), (tangent, torch.ones_like(t)))

    def _loss(self, error: Tensor, count: int, t: Tensor) -> Loss:
        square = error.square().flatten(1)
        per_sample = square.mean(1)
        weight = (square.detach().sum(1) + self.offset).pow(-self.power) if self.power else None
        raw = per_sample.detach()
        between = raw[:count].mean() if count else raw.new_zeros(())
        logs = {"error": raw.mean(), "error_between": between, "share": raw.new_tensor(count / len(raw))}
        weighted = per_sample if weight is None else weight * per_sample
        return Loss(weighted.mean(), weighted.detach(), logs, t, {"error_between": count})


@checked
def self_consistency(
    net: AverageVelocity,
    x: Float[Tensor, "B *D"],
    t: Float[Tensor, " B"],
    s: Float[Tensor, " B"],
    r: Float[Tensor, " B"],
    cond: Any = None,
) -> tuple[Tensor, Tensor]:
    r"""How well two jumps agree with one: :math:`(r-t)\, U(x_t, t, r) = (s-t)\, U(x_t, t, s) + (r-s)\, U(x_s, s, r)`.

    Args:
        net: The average velocity.
        x: States at ``t``, shape ``(B, *D)``.
        t: First times, shape ``(B,)``.
        s: Times between, shape ``(B,)``.
        r: Last times, shape ``(B,)``.
        cond: Condition.

    Returns:
        Per row, the squared norm of the difference of both sides, and that of the left side; shape ``(B,)``.

    Raises:
        ValueError: If there is not one time for each row, or the net returns another shape than that of ``x``.

    Source:
        Guo et al. 2025, "SplitMeanFlow"; the identity is the additivity of the integral.

    Example:
        >>> def constant(x, t, cond=None, r=None): return torch.ones_like(x)
        >>> t, s, r = torch.zeros(1), torch.full((1,), 0.5), torch.ones(1)
        >>> self_consistency(constant, torch.zeros(1, 2), t, s, r)
        (tensor([0.]), tensor([2.]))
    """
    for name, times in (("t", t), ("s", s), ("r", r)):
        if len(times) != len(x):
            raise ValueError(f"{name} must have shape ({len(x)},), got {tuple(times.shape)}")
    whole = _column(r - t, x) * _average(net, x, t, cond, r)
    first = _column(s - t, x) * _average(net, x, t, cond, s)
    second = _column(r - s, x) * _average(net, x + first, s, cond, r)
    return (whole - first - second).square().flatten(1).sum(1), whole.square().flatten(1).sum(1)


def _average(net: AverageVelocity, x: Tensor, t: Tensor, cond: Any, r: Tensor | None = None) -> Tensor:
    """The net's average velocity, or without ``r`` its velocity, of the shape that it must have."""
    v = net(x, t, cond) if r is None else net(x, t, cond, r)
    require_tensor("what the net returns", v)
    if v.shape != x.shape:
        raise ValueError(f"the net must return shape {tuple(x.shape)}, got {tuple(v.shape)}")
    return v


def _column(values: Tensor, x: Tensor) -> Tensor:
    """One value for each row, to be combined with ``x``."""
    return values.reshape(-1, *([1] * (x.ndim - 1)))
