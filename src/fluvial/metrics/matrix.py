"""Samples as rows of a matrix: what every metric accepts, checks and walks through in bounded tiles."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Samples = Float[Tensor, "_ ..."] | Float[np.ndarray, "_ ..."]
"""Rows of any shape and any floating type, as a tensor or an array; metrics flatten each row."""

TILE_BYTES = 64 * 2**20
"""Bound on the memory of one tile of a product or of a kernel matrix, in bytes."""


def as_matrix(value: Samples, argument: str, *, minimum: int = 1) -> Float[Tensor, "n d"]:
    """Flattened rows of ``value``, in their own precision and on their own device.

    Args:
        value: Shape (n, ...), floating.
        argument: Its name, for the error.
        minimum: Fewest rows allowed.

    Returns:
        Shape (n, d), detached.

    Raises:
        TypeError: If ``value`` is no floating tensor or array.
        ValueError: If it has too few rows, no features, or values that are not finite.

    Example:
        >>> as_matrix(np.zeros((5, 1, 8, 8)), "a").shape
        torch.Size([5, 64])
    """
    tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    if tensor.layout != torch.strided or tensor.is_meta:
        raise ValueError(f"{argument} must be a dense tensor with values, got {tensor.layout} on {tensor.device}")
    if not tensor.is_floating_point():
        raise TypeError(f"{argument} must hold floating point numbers, got {tensor.dtype}")
    if tensor.ndim == 0 or len(tensor) < minimum:
        rows = len(tensor) if tensor.ndim else 0
        raise ValueError(f"{argument} must have at least {minimum} row{'s' * (minimum > 1)}, got {rows}")
    if tensor.numel() == 0:
        raise ValueError(f"{argument} must have at least one feature, got shape {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor.reshape(len(tensor), -1))).any(1).sum())
        raise ValueError(f"{argument} must be finite, got NaN or infinity in {bad} of {len(tensor)} rows")
    if tensor.device.type == "mps":  # has no float64
        tensor = tensor.cpu()
    return tensor.reshape(len(tensor), -1)


def as_pair(
    a: Samples, b: Samples, names: tuple[str, str], *, minimum: int = 1
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Both sets of rows as matrices with the same number of features, on the first one's device.

    Args:
        a: Shape (n, ...).
        b: Shape (m, ...).
        names: The arguments' names, for the errors.
        minimum: Fewest rows allowed in each.

    Raises:
        ValueError: If the numbers of features differ, or as for :func:`as_matrix`.

    Example:
        >>> a, b = as_pair(torch.zeros(3, 2), np.zeros((4, 2)), ("a", "b"))
        >>> a.shape, b.shape
        (torch.Size([3, 2]), torch.Size([4, 2]))
    """
    first, second = as_matrix(a, names[0], minimum=minimum), as_matrix(b, names[1], minimum=minimum)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same number of features, "
            f"got {first.shape[1]} and {second.shape[1]}"
        )
    return first, second.to(first.device)


def tiles(rows: int, columns: int, limit: int) -> Iterator[slice]:
    """Consecutive slices of ``range(rows)``; a float64 tile with ``columns`` columns fits in ``limit`` bytes.

    Example:
        >>> list(tiles(5, 10, limit=160))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, limit // (8 * columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
