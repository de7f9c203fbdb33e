"""Checks of arguments that every part needs, each with one clear line."""

from typing import Any

import torch
from torch import Tensor


def require_tensor(name: str, value: Any) -> None:
    """Refuse what is no tensor.

    Raises:
        TypeError: If ``value`` is no tensor; the message names it.
        ValueError: If it is a sparse one.

    Example:
        >>> require_tensor("x", [1.0])
        Traceback (most recent call last):
        TypeError: x must be a tensor, got list
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got one of layout {value.layout}")


def require_dense(name: str, value: Tensor) -> None:
    """Refuse a tensor whose numbers cannot be read: a sparse one, or one without values.

    Raises:
        ValueError: As above; the message names it.

    Example:
        >>> require_dense("x", torch.zeros(2, device="meta"))
        Traceback (most recent call last):
        ValueError: x must be a dense tensor with values, got one on the meta device
    """
    if value.layout != torch.strided or value.is_meta:
        got = "one on the meta device" if value.is_meta else f"one of layout {value.layout}"
        raise ValueError(f"{name} must be a dense tensor with values, got {got}")


def require_generator(generator: Any) -> None:
    """Refuse what is no source of draws; cheap enough for every step.

    Raises:
        TypeError: If ``generator`` is no ``torch.Generator``.

    Example:
        >>> require_generator(0)
        Traceback (most recent call last):
        TypeError: generator must be a torch.Generator, got int
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")


def require_beside(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Refuse a tensor on another device than the one that it is computed with.

    Raises:
        ValueError: If the devices differ; both arguments are named.

    Example:
        >>> require_beside("t", torch.zeros(3, device="meta"), "x", torch.zeros(3, 2))
        Traceback (most recent call last):
        ValueError: t must be on the device of x, cpu, got meta
    """
    if value.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name}, {other.device}, got {value.device}")


def require_input(x: Tensor, weight: Tensor) -> None:
    """Refuse what a net with such weights cannot take: another type (autocast takes any floating one) or device.

    Raises:
        TypeError: If ``x`` is no tensor.
        ValueError: If it has another type than the weights, or lies on another device.

    Example:
        >>> require_input(torch.zeros(3, dtype=torch.float64), torch.zeros(2))
        Traceback (most recent call last):
        ValueError: x must be torch.float32 like the weights of the net, got torch.float64
    """
    require_tensor("x", x)
    require_beside("x", x, "the net's weights", weight)
    cast = not x.is_meta and torch.is_autocast_enabled(x.device.type) and x.is_floating_point()
    if x.dtype != weight.dtype and not cast:
        raise ValueError(f"x must be {weight.dtype} like the weights of the net, got {x.dtype}")


def row_times(t: Tensor | float, x: Tensor) -> Tensor:
    """Times of the rows of ``x``, shape ``(B,)``, from one for all or one for each.

    Raises:
        TypeError: If ``x`` is no tensor, or ``t`` neither a number nor a tensor.
        ValueError: If their shapes or devices do not fit.

    Example:
        >>> row_times(0.5, torch.zeros(3, 2))
        tensor([0.5000, 0.5000, 0.5000])
    """
    require_tensor("x", x)
    if x.ndim == 0:
        raise ValueError("x must have shape (B, *D), got ()")
    return as_times(t, x).expand(len(x))


def require_seed(seed: int, bits: int = 32) -> None:
    """Refuse a seed that generators of so many bits cannot take.

    Raises:
        ValueError: If it is negative or too large.

    Example:
        >>> require_seed(-1)
        Traceback (most recent call last):
        ValueError: seed must be from 0 to 2^32 - 1, got -1
    """
    if not 0 <= seed < 2**bits:
        raise ValueError(f"seed must be from 0 to 2^{bits} - 1, got {seed}")


def require_shape(x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse points whose rows have another shape.

    Raises:
        TypeError: If ``x`` is no tensor.
        ValueError: If ``x`` has not the shape ``(B, *shape)``.

    Example:
        >>> require_shape(torch.zeros(5, 2), (3,))
        Traceback (most recent call last):
        ValueError: x must have shape (B, 3), got (5, 2)
    """
    require_tensor("x", x)
    if x.ndim == 0 or tuple(x.shape[1:]) != shape:
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
    if t.ndim or t.is_meta:
        require_beside(name, t, "x", x)
    return t
