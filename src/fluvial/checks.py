"""Checks of arguments that every part needs, each with one clear line."""

from typing import Any

import torch
from torch import Tensor


def require_tensor(name: str, value: Any) -> None:
    """Refuse what is no tensor.

    Raises:
        TypeError: If ``value`` is no tensor; the message names it.

    Example:
        >>> require_tensor("x", [1.0])
        Traceback (most recent call last):
        TypeError: x must be a tensor, got list
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")


def require_shape(x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse points whose rows have another shape.

    Raises:
        ValueError: If ``x`` has not the shape ``(B, *shape)``.

    Example:
        >>> require_shape(torch.zeros(5, 2), (3,))
        Traceback (most recent call last):
        ValueError: x must have shape (B, 3), got (5, 2)
    """
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"x must have shape (B, {', '.join(map(str, shape))}), got {tuple(x.shape)}")


def as_times(t: Tensor | float, x: Tensor, name: str = "t") -> Tensor:
    """Times of the rows of ``x`` as a floating tensor, a scalar or ``(B,)``, from a number or a tensor; errors name it.

    Raises:
        TypeError: If ``t`` is neither a number nor a tensor.
        ValueError: If it is a tensor of integers, or of another shape.

    Example:
        >>> as_times(0.5, torch.zeros(3, 2))
        tensor(0.5000)
    """
    if isinstance(t, int | float):
        return torch.tensor(float(t), dtype=x.dtype, device=x.device)
    require_tensor(name, t)
    if not t.is_floating_point():
        raise ValueError(f"{name} must be floating, got {t.dtype}")
    if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
        raise ValueError(f"{name} must be a scalar or have shape ({len(x)},), got {tuple(t.shape)}")
    return t
