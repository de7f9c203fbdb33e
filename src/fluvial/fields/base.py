"""What a velocity field is, and what it can declare beyond having a velocity.

A field is any callable ``field(x, t, cond=None) -> v`` with ``x`` and ``v`` of shape ``(B, *D)`` and ``t`` of shape
``(B,)``: a network, the exact field of a data set, a mixture of both, a plain function. Solvers ask for the
capabilities below instead of testing types, and fields that wrap others forward them.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


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
