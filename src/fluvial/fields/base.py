"""What a velocity field is, and what it can declare beyond having a velocity.

A field is any callable ``field(x, t, cond=None) -> v`` with ``x`` and ``v`` of shape ``(B, *D)`` and ``t`` of shape
``(B,)``: a network, the exact field of a data set, a mixture of both, a plain function. Solvers ask for the
capabilities below instead of testing types, and fields that wrap others forward them; ``trajectory`` alone belongs to
one field, since a field made of others takes no other's course.
"""

import inspect
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Walk:
    """What a solver is about to do.

    Args:
        method: Name of the fixed-step method.
        evaluations: How many evaluations it takes.
        end_only: Whether only the states at ``t = 1`` are wanted, and are landed on where sigma = 0.
    """

    method: str
    evaluations: int
    end_only: bool


@runtime_checkable
class Course(Protocol):
    """A field as it is met along one trajectory, in coordinates of its own.

    A Runge-Kutta method is a linear combination of states and velocities, so that it may walk in any coordinates of
    which the states are a linear function: the scheme stays the caller's, and so does its result.

    Attributes:
        start: Coordinates of the first states, shape ``(B, *)``.
    """

    start: Tensor

    def __call__(self, coordinates: Tensor, t: Tensor, /) -> Tensor:
        """Velocity of the coordinates at times ``t``, ``(B,)``, all equal."""
        ...

    def states(self, coordinates: Tensor, /) -> Tensor:
        """The states ``(B, *D)`` that coordinates stand for."""
        ...


@runtime_checkable
class Field(Protocol):
    """Anything with a velocity: ``field(x, t, cond)`` with ``x`` ``(B, *D)`` and ``t`` ``(B,)``."""

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None, /) -> Tensor: ...


def singular_at_end(field: Field) -> bool:
    """Whether the velocity has no value at ``t = 1``, as the exact field's where sigma = 0.

    Such a field carries its ``path``, with which a solver lands on the posterior mean instead.
    """
    return bool(getattr(field, "singular_at_end", False))


def breakpoints(field: Field) -> tuple[float, ...]:
    """Times at which the velocity jumps; a solver puts nodes of its grid there."""
    return tuple(getattr(field, "breakpoints", ()))


def knows_averages(field: Field) -> bool:
    """Whether the field takes a second time and returns average velocities: ``field(x, t, cond, r)``."""
    declared = getattr(field, "gap", None)
    if declared is not None:
        return bool(declared)
    try:
        return "r" in inspect.signature(field).parameters
    except (TypeError, ValueError):
        return False


def trajectory(field: Field, x0: Tensor, cond: Any, walk: Walk) -> Course | None:
    """A cheaper way to walk from ``x0`` under ``cond``, if the field has one."""
    offered = getattr(field, "trajectory", None)
    course: Course | None = None if offered is None else offered(x0, cond, walk)
    return course
