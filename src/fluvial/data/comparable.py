"""Samples and held-out data in the units of the training data that they are compared with."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fluvial.data.dataset import Dataset
from fluvial.data.folder import read_folder
from fluvial.data.load import load_dataset
from fluvial.data.numpy_files import load_arrays
from fluvial.data.quoting import quoted_names
from fluvial.data.specs import parse_spec

_TABLES = (".csv", ".parquet")
_ARRAYS = (".npy", ".npz")


def check_samples_file(path: Path) -> None:
    """Raises ValueError unless a path is a folder or a file of samples that can be read."""
    if not path.exists():
        raise ValueError(f"samples {str(path)!r} do not exist")
    if not path.is_dir() and path.suffix.lower() not in (*_ARRAYS, *_TABLES):
        expected = ", ".join((*_ARRAYS, *_TABLES))
        raise ValueError(f"samples must be a folder of images or a file that ends in {expected}, got {str(path)!r}")


def read_samples(path: Path, train: Dataset, *, size: int | None = None) -> Tensor:
    """Samples of any model, in the units that ``train`` is held in.

    Args:
        path: A folder of images; a ``.npz`` with the key ``x`` (as ``fluvial sample`` writes it) or a ``.npy``, of
            uint8 images, of floats in [-1, 1], or of a table's rows in its own units; a ``.csv`` or ``.parquet``.
        train: The training data.
        size: Side in pixels to which pictures of a folder are resized.

    Returns:
        Shape (n, *train.shape), float32.

    Raises:
        ValueError: If they cannot be read, or differ from the training data in shape, columns or range.
    """
    check_samples_file(path)
    try:
        if path.is_dir():
            data = read_folder(path, size)
        elif path.suffix.lower() in _TABLES:
            data = load_dataset(str(path), held_out=0)
        else:
            data = _array(path, train)
    except OSError as error:
        raise ValueError(f"samples {str(path)!r} cannot be read: {error}") from None
    return in_units_of(train, data, f"samples {str(path)!r}").x


def _array(path: Path, train: Dataset) -> Dataset:
    arrays = load_arrays(path)
    if "x" not in arrays:
        raise ValueError(f"{path} must have samples under the key 'x', got {quoted_names(sorted(arrays))}")
    x = arrays["x"]
    if x.dtype == np.uint8:
        return Dataset(x, name=path.name, levels=train.levels if train.levels and x.max() < train.levels else None)
    if train.table is not None and x.ndim == 2 and x.shape[1:] == train.shape:
        return Dataset(train.table.forward(x), name=path.name, table=train.table)
    return Dataset(x, name=path.name, kind="image" if train.kind == "image" else "points")


def read_held_out(spec: str, train: Dataset, *, size: int | None = None, seed: int = 0) -> Dataset:
    """All data of a spec, in the units that ``train`` is held in.

    Raises:
        ValueError: If they cannot be read, or differ from the training data in shape or columns.
    """
    pictures = parse_spec(spec).kind in ("folder", "celeba")
    data = load_dataset(spec, seed=seed, held_out=0, size=size if pictures else None)
    return in_units_of(train, data.train, f"held-out data {spec!r}")


def in_units_of(train: Dataset, data: Dataset, what: str) -> Dataset:
    """``data`` as they are, or, of tables, standardised as ``train`` is.

    Args:
        train: Decides the units.
        data: What is to be compared with it.
        what: What they are, for the error.

    Raises:
        ValueError: If shapes, columns or kinds differ.

    Example:
        >>> train = fv.Dataset(torch.zeros(3, 2))
        >>> in_units_of(train, fv.Dataset(torch.zeros(4, 5)), "samples")
        Traceback (most recent call last):
        ValueError: samples must have data of shape (2,) as the training data have, got (5,)
    """
    if train.table is not None and data.table is not None and data.table.columns != train.table.columns:
        mine, theirs = ", ".join(train.table.columns), ", ".join(data.table.columns)
        raise ValueError(f"{what} must have the columns of the training data ({mine}), got {theirs}")
    if data.shape != train.shape:
        raise ValueError(f"{what} must have data of shape {train.shape} as the training data have, got {data.shape}")
    if train.table is None or data.table is None or data.table == train.table:
        return data
    rows = train.table.forward(data.inverse(data.x.double()))
    return Dataset(torch.from_numpy(rows), name=data.name, table=train.table)
