"""What the measurements of a field share: checks of their data, the choice of rows to look at, where curves cross."""

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.paths import CondOT, GaussianPath


def check_rows(name: str, values: Tensor, *, minimum: int = 1) -> None:
    """Refuses what is no set of finite floating rows.

    Args:
        name: The argument's name, for the error.
        values: Data, shape (N, *D).
        minimum: Fewest rows allowed.

    Raises:
        TypeError: If they are no tensor of floating point numbers.
        ValueError: If there are too few, they hold no numbers, or one that is not finite.

    Example:
        >>> check_rows("train", torch.zeros(0, 2))
        Traceback (most recent call last):
        ValueError: train must have at least 1 row, got 0
    """
    require_tensor(name, values)
    if not values.is_floating_point():
        pixels = ": make images of pixels by fv.data.from_uint8" if values.dtype == torch.uint8 else ""
        raise TypeError(f"{name} must hold floating point numbers, got {values.dtype}{pixels}")
    count = len(values) if values.ndim else 0
    if count < minimum:
        raise ValueError(f"{name} must have at least {minimum} row{'s' * (minimum > 1)}, got {count}")
    if values.numel() == 0 or values.ndim < 2:
        raise ValueError(f"{name} must have shape (N, *D) with at least one number a row, got {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values.reshape(count, -1))).any(1).sum())
        raise ValueError(f"{name} must be finite, got NaN or infinity in {bad} of {count} rows")


def check_same_rows(train: Tensor, held_out: Tensor) -> None:
    """Refuses held-out data of another shape than the training data's.

    Raises:
        ValueError: If a row of one has another shape than a row of the other.

    Example:
        >>> check_same_rows(torch.zeros(5, 2), torch.zeros(5, 3))
        Traceback (most recent call last):
        ValueError: train and held_out must have rows of the same shape, got (2,) and (3,)
    """
    if train.shape[1:] != held_out.shape[1:]:
        shapes = tuple(train.shape[1:]), tuple(held_out.shape[1:])
        raise ValueError(f"train and held_out must have rows of the same shape, got {shapes[0]} and {shapes[1]}")


def check_count(name: str, value: int, minimum: int) -> None:
    """Refuses what is no integer of at least ``minimum``.

    Raises:
        ValueError: Then; the message names the argument.

    Example:
        >>> check_count("pairs", 1, 2)
        Traceback (most recent call last):
        ValueError: pairs must be an integer of at least 2, got 1
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")


def checked_path(path: GaussianPath | None) -> GaussianPath:
    """The path, :class:`~fluvial.paths.CondOT` if there is none.

    Raises:
        TypeError: If it is something else.

    Example:
        >>> checked_path(None)
        CondOT(sigma_min=0.0)
    """
    if path is not None and not isinstance(path, GaussianPath):
        raise TypeError(f"path must be a GaussianPath such as fv.CondOT(), got {type(path).__name__}")
    return CondOT() if path is None else path


def check_same_path(name: str, field: Any, path: GaussianPath) -> None:
    """Refuses a field that declares another path than ``path``; most fields declare none.

    Raises:
        ValueError: Then; the message names both paths.

    Example:
        >>> check_same_path("exact", fv.ExactField(torch.zeros(1, 2)), fv.Cosine())
        Traceback (most recent call last):
        ValueError: exact must be a field of the path Cosine(), got one of CondOT(sigma_min=0.0)
    """
    own = getattr(field, "path", None)
    if isinstance(own, GaussianPath) and own is not path and repr(own) != repr(path):
        raise ValueError(f"{name} must be a field of the path {path!r}, got one of {own!r}")


def checked_times(times: Sequence[float] | None, steps: int) -> list[float]:
    """Increasing times in [0, 1) as numbers; if there are none, ``steps`` of equal distance from 0 on.

    Raises:
        ValueError: If they do not increase or leave [0, 1).

    Example:
        >>> checked_times(None, 4), checked_times([0.5], 4)
        ([0.0, 0.25, 0.5, 0.75], [0.5])
    """
    if times is None:
        return [step / steps for step in range(steps)]
    grid = [float(time) for time in times]
    rising = all(a < b for a, b in pairwise(grid))
    if not (grid and rising and grid[0] >= 0 and grid[-1] < 1):
        raise ValueError(f"times must be increasing numbers in [0, 1), at least one, got {grid}")
    return grid


def choose_rows(rows: int, count: int, random: torch.Generator) -> Int[Tensor, " count"]:
    """``count`` of ``rows`` rows in random order, every row equally often, give or take one.

    Example:
        >>> chosen = choose_rows(3, 6, torch.Generator().manual_seed(0))
        >>> chosen.sort().values
        tensor([0, 0, 1, 1, 2, 2])
    """
    rounds = -(-count // rows)
    return torch.cat([torch.randperm(rows, generator=random) for _ in range(rounds)])[:count]


def crossing(grid: Sequence[float], values: Sequence[float], level: float) -> float | None:
    """Time from which ``values`` stay at ``level`` or above, linear between the nodes; None if they end below it.

    Example:
        >>> crossing([0.0, 0.5, 1.0], [0.0, 0.2, 0.6], 0.4), crossing([0.0, 1.0], [1.0, 1.0], 0.4)
        (0.75, 0.0)
    """
    below = [k for k, value in enumerate(values) if value < level]
    if not below:
        return grid[0]
    last = below[-1]
    if last == len(grid) - 1:
        return None
    share = (level - values[last]) / (values[last + 1] - values[last])
    return grid[last] + share * (grid[last + 1] - grid[last])
