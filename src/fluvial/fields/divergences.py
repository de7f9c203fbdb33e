r"""Velocity and divergence of any field at once: in full, in random directions, or by a formula of its own.

The divergence is the trace of the Jacobian, :math:`\nabla \cdot v = \sum_k \partial v_k / \partial x_k`. Rows of a
batch are taken to be independent of one another, as everywhere in flow matching, so that one backward pass of a sum
over the batch serves all rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.fields.base import Field

Divergence = Callable[[Field, Tensor, Tensor, Any], tuple[Tensor, Tensor]]
"""Velocity ``(B, *D)`` and divergences ``(B, P)`` of a field at points, times ``(B,)`` and a condition."""


def exact_divergence(field: Field, x: Tensor, t: Tensor, cond: Any = None) -> tuple[Tensor, Float[Tensor, "B 1"]]:
    """Velocity and the whole trace of its Jacobian, by as many backward passes as a datum has numbers.

    With gradients enabled the result is differentiable once more; without, no graph is kept.

    Args:
        field: The field.
        x: Points, shape ``(B, *D)``.
        t: Times, shape ``(B,)``.
        cond: Condition; None is not passed.

    Returns:
        Velocity ``(B, *D)`` and divergence ``(B, 1)``.

    Raises:
        ValueError: If the velocity has no derivative in ``x``.

    Example:
        >>> field = lambda x, t: torch.stack([x[:, 0] ** 2, 3 * x[:, 1]], 1)
        >>> with torch.no_grad():
        ...     exact_divergence(field, torch.tensor([[2.0, 5.0]]), torch.zeros(1))[1]
        tensor([[7.]])
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        at, v = _tracked(field, x, t, cond)
        columns = v.flatten(1).unbind(1)
        trace, constant = torch.zeros_like(columns[0]), True
        for k, column in enumerate(columns):
            row = pullback(column.sum(), at, keep=keep, again=keep or k + 1 < len(columns))
            if row is not None:
                trace, constant = trace + row.flatten(1)[:, k], False
    if constant:
        require_constant(lambda y: _velocity(field, y, t, cond), x, v)
    found = trace[:, None]
    return (v, found) if keep else (v.detach(), found.detach())


def random_divergence(directions: Sequence[Tensor]) -> Divergence:
    r"""Velocity and Hutchinson's estimates :math:`\epsilon^\top J \epsilon` of the trace, one for each direction.

    Source: Grathwohl et al. 2019, "FFJORD: Free-Form Continuous Dynamics for Scalable Reversible Generative Models",
    section 3.1.

    Args:
        directions: ``P`` tensors of the shape of the points, with uncorrelated entries of variance 1.

    Example:
        >>> field = lambda x, t: torch.stack([x[:, 0] ** 2, 3 * x[:, 1]], 1)
        >>> estimate = random_divergence([torch.tensor([[1.0, -1.0]])])
        >>> with torch.no_grad():
        ...     estimate(field, torch.tensor([[2.0, 5.0]]), torch.zeros(1), None)[1]
        tensor([[7.]])
    """

    def estimate(field: Field, x: Tensor, t: Tensor, cond: Any = None) -> tuple[Tensor, Tensor]:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            at, v = _tracked(field, x, t, cond)
            parts, constant = [], True
            for k, direction in enumerate(directions):
                along = pullback((v * direction).sum(), at, keep=keep, again=keep or k + 1 < len(directions))
                constant = constant and along is None
                parts.append((torch.zeros_like(v) if along is None else along * direction).flatten(1).sum(1))
        if constant:
            require_constant(lambda y: _velocity(field, y, t, cond), x, v)
        found = torch.stack(parts, 1)
        return (v, found) if keep else (v.detach(), found.detach())

    return estimate


def own_divergence(field: Field, x: Tensor, t: Tensor, cond: Any = None) -> tuple[Tensor, Float[Tensor, "B 1"]]:
    """Velocity and the divergence that the field knows in closed form; arguments as for :func:`exact_divergence`.

    Raises:
        ValueError: If it knows none.

    Example:
        >>> field = fv.ExactField(torch.zeros(1, 3), fv.CondOT(sigma_min=0.5))
        >>> own_divergence(field, torch.ones(1, 3), torch.zeros(1))[1]
        tensor([[-1.5000]])
    """
    known = getattr(field, "divergence", None)
    if known is None:
        raise ValueError(f"divergence 'field' needs a field with a divergence of its own, got {type(field).__name__}")
    return _velocity(field, x, t, cond), known(x, t, cond)[:, None]


def _velocity(field: Field, x: Tensor, t: Tensor, cond: Any) -> Tensor:
    v = field(x, t) if cond is None else field(x, t, cond)
    if not isinstance(v, Tensor) or v.shape != x.shape:
        given = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
        raise ValueError(f"field must return a tensor of the shape of x, {tuple(x.shape)}, got {given}")
    return v


def _tracked(field: Field, x: Tensor, t: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
    """Points that derivatives are taken in, and the velocity there."""
    at = x if x.requires_grad else x.detach().requires_grad_()
    return at, _velocity(field, at, t, cond)


def pullback(value: Tensor, at: Tensor, *, keep: bool, again: bool) -> Tensor | None:
    """Gradient of a scalar; None where autograd sees no way to the points."""
    if not value.requires_grad:
        return None
    found: Tensor | None
    (found,) = torch.autograd.grad(value, at, create_graph=keep, retain_graph=again, allow_unused=True)
    return found


def require_constant(velocity: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> None:
    """Refuse a velocity that autograd sees as constant and that moves with its points."""
    with torch.no_grad():
        moved = velocity(x + 0.01 * (1 + x.abs()))
    if not torch.equal(moved, v):
        raise ValueError(
            "field: its velocity depends on x and autograd does not see how, so that it has no divergence; compute it "
            "with torch, without no_grad, inference_mode or detach"
        )
