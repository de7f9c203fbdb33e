"""Sums over all pairs of rows, walked through in bounded tiles, and the checks of batches of sets."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.metrics.matrix import as_matrix, tiles

PAIR_BYTES = 4 * 2**20
"""Bound on the memory of one tile of distances, in bytes; one that stays in the cache is faster than a large one."""

Sets = Float[Tensor, "_ ..."] | Float[np.ndarray, "_ ..."]
"""One set of points for each of ``B`` tasks, shape (B, n, d), of any floating type, as a tensor or an array."""


def as_sets(value: Sets, argument: str, *, minimum: int = 1) -> Float[Tensor, "B n d"]:
    """A batch of sets of points, checked.

    Args:
        value: Shape (B, n, d), floating.
        argument: Its name, for the error.
        minimum: Fewest points allowed in a set.

    Returns:
        Shape (B, n, d), detached.

    Raises:
        TypeError: If ``value`` is no floating tensor or array.
        ValueError: If it has another number of axes, too few points, or values that are not finite.

    Example:
        >>> as_sets(np.zeros((3, 5, 2)), "a").shape
        torch.Size([3, 5, 2])
    """
    tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    if tensor.ndim != 3:
        raise ValueError(f"{argument} must have shape (B, n, d), got {tuple(tensor.shape)}")
    if tensor.shape[1] < minimum:
        points = f"{minimum} point{'s' * (minimum > 1)}"
        raise ValueError(f"{argument} must have at least {points} in each set, got {tensor.shape[1]}")
    return as_matrix(tensor, argument).reshape(tensor.shape)


def as_set_pairs(
    a: Sets, b: Sets, names: tuple[str, str], *, minimum: int = 1
) -> tuple[Float[Tensor, "B n d"], Float[Tensor, "B k d"]]:
    """Two batches of sets for the same tasks, checked, on the first one's device.

    Raises:
        ValueError: If the numbers of tasks or the dimensions differ, or as for :func:`as_sets`.

    Example:
        >>> as_set_pairs(torch.zeros(3, 5, 2), torch.zeros(3, 4, 1), ("a", "b"))
        Traceback (most recent call last):
        ValueError: a and b must be of the same dimension, got 2 and 1
    """
    first, second = as_sets(a, names[0], minimum=minimum), as_sets(b, names[1], minimum=minimum)
    both = f"{names[0]} and {names[1]}"
    if len(first) != len(second):
        raise ValueError(f"{both} must hold the same number of sets, got {len(first)} and {len(second)}")
    if first.shape[2] != second.shape[2]:
        raise ValueError(f"{both} must be of the same dimension, got {first.shape[2]} and {second.shape[2]}")
    return first, second.to(first.device)


def mean_over_pairs(
    a: Float[Tensor, "n d"], b: Float[Tensor, "k d"] | None, function: Callable[[Tensor], Tensor]
) -> Float[Tensor, ""]:
    """Mean of a function of the squared distance over all pairs of rows, in float64.

    Args:
        a: Shape (n, d), float64.
        b: Shape (k, d), float64; None for the pairs of different rows of ``a``, which are n (n - 1).
        function: Maps squared distances, of any shape, to values; it may write into them.

    Example:
        >>> mean_over_pairs(torch.tensor([[0.0], [3.0]], dtype=torch.float64), None, torch.sqrt)
        tensor(3., dtype=torch.float64)
    """
    others = a if b is None else b
    lengths = others.square().sum(1)
    total = a.new_zeros(())
    for tile in tiles(len(a), len(others), PAIR_BYTES):
        rows = a[tile]
        squares = torch.addmm(lengths, rows, others.mT, alpha=-2).add_(rows.square().sum(1)[:, None]).clamp_min_(0)
        values = function(squares)
        if b is None:
            values.diagonal(tile.start).zero_()
        total += values.sum()
    return total / (len(a) * (len(others) - (b is None)))
