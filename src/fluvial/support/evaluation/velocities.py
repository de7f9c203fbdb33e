r"""How far a model's velocity is from the true one, at points of the path, by time.

Where the true velocity :math:`u` of a task is known the error is :math:`E\|v(x_t, t) - u(x_t, t)\|^2`. Where it is not,
it can only be measured against the conditional velocity, and then holds the irreducible part
:math:`E\,\mathrm{Var}[u_t | x_t]` too, which no model is free of: differences between models are then those of their
errors, while ratios are not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.paths import GaussianPath
from fluvial.support.evaluation.targets import Drawn
from fluvial.support.kernel.attention import KernelAttention
from fluvial.times import Uniform

TRUE, CONDITIONAL = "true velocity", "conditional velocity"
BINS = 10
"""Equal parts of [0, 1] in which errors are shown by time."""


@dataclass(frozen=True)
class VelocityErrors:
    """Mean squared errors of velocities at points of the path, with times uniform in [0, 1).

    Args:
        against: ``"true velocity"``, or ``"conditional velocity"``: the error then holds an irreducible part as well,
            the same for all models.
        learned: The model's, for each task, shape (T,), float64: mean over points of the squared norm.
        plug_in: That of the support's exact field, shape (T,).
        edges: Ends of the parts of [0, 1].
        learned_by_time: The model's in each part, over all tasks; NaN in a part that no point fell into.
        plug_in_by_time: The plug-in's.

    Example:
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> VelocityErrors("true velocity", one, 2 * one, (0.0, 1.0), (1.0,), (2.0,)).against
        'true velocity'
    """

    against: str
    learned: Float[Tensor, "T"]
    plug_in: Float[Tensor, "T"]
    edges: tuple[float, ...]
    learned_by_time: tuple[float, ...]
    plug_in_by_time: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``json.dump``."""
        return {
            "against": self.against,
            "irreducible_part_included": self.against != TRUE,
            "learned": self.learned.tolist(),
            "plug_in": self.plug_in.tolist(),
            "edges": list(self.edges),
            # a part of time without a point has no mean
            "learned_by_time": [None if math.isnan(value) else value for value in self.learned_by_time],
            "plug_in_by_time": [None if math.isnan(value) else value for value in self.plug_in_by_time],
        }


@dataclass(frozen=True)
class ErrorBlock:
    """Squared errors of some tasks' points.

    Args:
        conditional: The model's and the plug-in's against the conditional velocity, shape (2, B, n), float64.
        true: Those against the true one; None where it is not known.
        part: The part of time in which each point is, shape (B, n).
    """

    conditional: Float[Tensor, "2 B n"]
    true: Float[Tensor, "2 B n"] | None
    part: Int[Tensor, "B n"]


def velocity_errors(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor], drawn: Drawn, path: GaussianPath, generator: torch.Generator
) -> ErrorBlock:
    """Squared errors at one point of the path for each target.

    Args:
        velocity: The model, ``velocity(x (B, n, d), t (B, n), support (B, m, d))``.
        drawn: The tasks.
        path: The path.
        generator: Where noise and times come from.
    """
    x1, support, truth = drawn.targets, drawn.support, drawn.truth
    t = Uniform()(x1.shape[0] * x1.shape[1], generator=generator, dtype=x1.dtype)
    x0 = torch.randn(x1.shape, generator=generator, dtype=x1.dtype)
    found = path.sample(x0.flatten(0, 1), x1.flatten(0, 1), t)
    xt, ut, t = found.xt.view_as(x1), found.ut.view_as(x1), t.view(x1.shape[:2])
    both = torch.stack([velocity(xt, t, support), KernelAttention(path)(xt, t, support)]).double()
    known = truth.velocity(xt, t, path).double() if truth is not None and truth.has_velocity else None
    return ErrorBlock(
        conditional=(both - ut.double()).square().sum(-1),
        true=None if known is None else (both - known).square().sum(-1),
        part=(t * BINS).long().clamp_max(BINS - 1),
    )


def joined_errors(blocks: Sequence[ErrorBlock]) -> VelocityErrors:
    """Errors of all tasks from those of some each; against the true velocity if it is known for all."""
    known = [block.true for block in blocks if block.true is not None]
    against = TRUE if len(known) == len(blocks) else CONDITIONAL
    learned, plug_in = torch.cat(known if against == TRUE else [block.conditional for block in blocks], dim=1)
    part = torch.cat([block.part for block in blocks])

    def by_time(errors: Tensor) -> tuple[float, ...]:
        return tuple(float(errors[part == k].mean()) for k in range(BINS))

    edges = tuple(k / BINS for k in range(BINS + 1))
    return VelocityErrors(against, learned.mean(1), plug_in.mean(1), edges, by_time(learned), by_time(plug_in))
