"""Checks of what an exact field is made of and asked, each with one clear line."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_FLOATS = (torch.float32, torch.float64)


def checked_support(support: Any, labels: Tensor | None, log_prior: Tensor | None) -> "Tensor | np.memmap":
    """The support as a tensor or a memory map of shape ``(N, *D)``.

    Raises:
        TypeError: If it is neither a tensor nor an array.
        ValueError: If it is empty, of another type than float32, float64 or uint8, or labels or prior do not fit it.
            Whether it is finite is found while it is measured.
    """
    if isinstance(support, np.ndarray) and not isinstance(support, np.memmap):
        support = torch.from_numpy(support)
    if not isinstance(support, Tensor | np.memmap):
        raise TypeError(f"support must be a tensor or a memory map, got {type(support).__name__}")
    shape = tuple(support.shape)
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"support must have shape (N, *D) with at least one point, got {shape}")
    dtype = str(support.dtype).removeprefix("torch.")
    if dtype not in ("float32", "float64", "uint8"):
        raise ValueError(f"support must be float32, float64 or uint8 (pixels), got {dtype}")
    _check_labels_and_prior(shape[0], labels, log_prior)
    return support


def _check_labels_and_prior(points: int, labels: Tensor | None, log_prior: Tensor | None) -> None:
    for name, value in (("labels", labels), ("log_prior", log_prior)):
        if value is not None and tuple(value.shape) != (points,):
            raise ValueError(f"{name} must have shape ({points},), got {tuple(value.shape)}")
    for name, value in (("labels", labels), ("log_prior", log_prior)):
        if value is not None and (value.is_complex() or value.dtype == torch.bool):
            raise ValueError(
                f"{name} must hold {'whole' if name == 'labels' else 'floating'} numbers, got {value.dtype}"
            )
    if labels is not None and bool((labels < 0).any()):
        raise ValueError("labels of a support must not be negative")
    if log_prior is not None and not (bool((log_prior < torch.inf).all()) and bool((log_prior > -torch.inf).any())):
        raise ValueError("log_prior must be below infinity and finite somewhere")


def check_effort(tol: float, memory: int) -> None:
    """Refuse tolerances and memories that make no sense.

    Raises:
        ValueError: If ``tol`` is outside [0, 1) or ``memory`` below 1 MiB.
    """
    if not 0 <= tol < 1:
        raise ValueError(f"tol must be in [0, 1), got {tol}")
    if memory < 2**20:
        raise ValueError(f"memory must be at least {2**20} bytes (1 MiB), got {memory}")


def check_point(x: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse points of another shape or type than the field takes.

    Raises:
        ValueError: If ``x`` is not ``(B, *shape)`` or neither float32 nor float64.
    """
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"x must have shape (B, {', '.join(map(str, shape))}) like the support, got {tuple(x.shape)}")
    if x.dtype not in _FLOATS:
        raise ValueError(f"x must be float32 or float64, got {x.dtype}")


def checked_prior(cond: Tensor, rows: int, points: int, everywhere: bool = True) -> Tensor:
    """A log-prior of each row over the points; ``everywhere``, every row must be finite somewhere.

    Raises:
        ValueError: If it has another shape, or a row is nowhere finite or somewhere infinite.
    """
    if tuple(cond.shape) != (rows, points):
        raise ValueError(f"a log-prior must have shape ({rows}, {points}), got {tuple(cond.shape)}")
    top = cond.max(1).values
    if not bool((((top > -torch.inf) | (not everywhere)) & (top < torch.inf)).all()):
        raise ValueError("every row of a log-prior must be below infinity and finite somewhere")
    return cond


def check_labels(cond: Tensor, rows: int, present: Tensor | None) -> None:
    """Refuse labels without any datum.

    Args:
        cond: Labels, -1 for none.
        rows: How many there must be.
        present: Labels that have a datum with a prior above 0; None if the support has no labels.

    Raises:
        ValueError: If the shape is another, or a label has no datum.
    """
    if present is None:
        raise ValueError("cond holds labels but the support has none: pass labels= to ExactField")
    if cond.is_complex() or cond.dtype == torch.bool:
        raise ValueError(f"cond must hold labels or a log-prior, got {cond.dtype}")
    if tuple(cond.shape) != (rows,):
        raise ValueError(f"labels must have shape ({rows},), got {tuple(cond.shape)}")
    missing = cond[(cond >= 0) & ~torch.isin(cond, present)]
    if len(missing):
        raise ValueError(f"label {int(missing[0])} has no point in the support (or none with a prior above 0)")


def present_labels(labels: Tensor | None, log_prior: Tensor | None) -> Tensor | None:
    """Labels that have a datum with a prior above 0; None without labels."""
    if labels is None:
        return None
    present: Tensor = torch.unique(labels if log_prior is None else labels[log_prior > -torch.inf])
    return present
