"""What a data set accepts: how values, grey levels, kinds and indices are checked and stored."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fluvial.checks import require_dense
from fluvial.data.images import channels_first
from fluvial.data.looks import check_numbers
from fluvial.data.standardization import Standardization
from fluvial.data.stores import Store

Indices = Tensor | NDArray[Any] | Sequence[int]
Kind = Literal["image", "points", "table"]


def stored_values(values: Tensor | NDArray[Any]) -> NDArray[Any]:
    """Read-only array of uint8 images (N, C, H, W) or of finite float32 values (N, *D), D not empty."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if not isinstance(values, np.ndarray):
        raise TypeError(f"values must be a tensor or an array, got {type(values).__name__}")
    check_numbers(values.shape, values.dtype, values.dtype.kind)
    if values.dtype == np.uint8:
        stored = channels_first(values)
    else:
        stored = float_rows(values)
        _check_finite(stored)
    if stored.flags.writeable or not stored.flags.c_contiguous:  # what others can write to is copied
        stored = np.array(stored, order="C")
        stored.flags.writeable = False
    return stored


def float_rows(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers as float32 of shape (N, *D), D not empty; what is too large for it becomes infinite.

    Example:
        >>> float_rows(np.array([1, 2])).tolist()
        [[1.0], [2.0]]
    """
    with np.errstate(over="ignore"):
        stored = values.astype(np.float32, copy=False)
    return stored[:, None] if stored.ndim == 1 else stored


def _check_finite(values: NDArray[Any]) -> None:
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise ValueError(f"{len(bad)} of {len(values)} rows hold NaN or infinite values, the first is row {bad[0]}")


def checked_levels(store: Store, levels: int | None) -> int | None:
    """Number of grey levels, 256 by default, of uint8 values; None for continuous ones."""
    if store.dtype != np.uint8:
        if levels is not None:
            raise ValueError(f"levels={levels} is for uint8 values, got {store.dtype}")
        return None
    levels = 256 if levels is None else levels
    if not 2 <= levels <= 256:
        raise ValueError(f"levels must be in 2..256, got {levels}")
    if store.largest >= levels:
        raise ValueError(f"uint8 values must be below levels={levels}, got {store.largest:g}")
    return levels


def kind_of(store: Store, kind: str | None, table: Standardization | None) -> Kind:
    """What the values are: what the caller says if they can be that, else a guess from shape and range."""
    shape = (len(store), *store.shape)
    if table is not None:
        if shape[1:] != (len(table.columns),) or store.dtype == np.uint8 or kind is not None:
            raise ValueError(f"a table's values must be numbers of shape (N, {len(table.columns)}), got {shape}")
        return "table"
    could_be_image = len(shape) == 4 and shape[1] in (1, 3)
    if kind not in (None, "image", "points"):
        raise ValueError(f"kind must be 'image' or 'points', got {kind!r}")
    if kind == "image" and not could_be_image:
        raise ValueError(f"images must have shape (N, 1 or 3, H, W), got {shape}")
    if kind == "points" and store.dtype == np.uint8:
        raise ValueError("uint8 values are images; convert them to float32 to have points")
    if kind == "points" or not could_be_image:
        return "points"
    inside = store.dtype == np.uint8 or store.largest <= 1
    return "image" if kind == "image" or inside else "points"


def checked_indices(indices: Indices, count: int, name: str = "indices") -> NDArray[np.int64]:
    """Indices in [0, count) as an int64 array; an empty list is one, a mask is not."""
    if isinstance(indices, Tensor):
        require_dense(name, indices)
        indices = indices.detach().cpu()
        indices = indices.float() if indices.dtype == torch.bfloat16 else indices
    array = indices.numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be whole numbers of shape (n,), got {array.dtype} of shape {array.shape}")
    if array.size and not 0 <= array.min() <= array.max() < count:
        raise ValueError(f"{name} must be in [0, {count}), got {array.min()}..{array.max()}")
    return array.astype(np.int64)
