"""From the name of data to the tasks that a diagnosis draws from."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.data.homes import expanded
from fluvial.data.numpy_files import load_arrays
from fluvial.progress import ProgressCallback
from fluvial.support.diagnosis.rows import ClassRows
from fluvial.support.tasks.base import Family
from fluvial.support.tasks.by_name import family_by_name
from fluvial.support.tasks.features import net_features, pixel_features
from fluvial.support.tasks.names import parse_family

MOST_PER_CLASS = 1000
"""Rows of each class of a built-in data set that are looked at, the first ones."""


def read_tasks(name: str, dim: int | None = None, *, m: int = 50, progress: ProgressCallback | None = None) -> Family:
    """The tasks of a name: a synthetic family, or all classes of a data set or file.

    Args:
        name: As for :func:`fluvial.support.tasks.family_by_name`; a ``.npz`` without ``labels`` is one class.
        dim: Dimension of the points. Of a data set, standardised principal components, 16 by default; of a file
            likewise if it is given, else the features are taken as they are.
        m: Support size, for which every class needs enough rows.
        progress: Called while a net takes features.

    Raises:
        ValueError: If the name is unknown, ``dim`` does not fit, or data are not as they must be.

    Example:
        >>> read_tasks("digits", 8).classes
        10
    """
    found = parse_family(name, dim)
    if found.kind in ("synthetic", "mixed"):
        return family_by_name(name, dim)
    source = found.members[0]
    if found.kind == "file":
        return _of_file(expanded(source), dim, m, name)
    if found.extractor is not None:
        data = net_features(source, found.extractor, progress=progress)
    else:
        data = pixel_features(source)
    rows = _first(data.labels, MOST_PER_CLASS)
    return ClassRows(data.features[rows], data.labels[rows], m=m, dim=found.dim, name=name)


def _of_file(path: Path, dim: int | None, m: int, name: str) -> ClassRows:
    arrays = load_arrays(path)
    if "features" not in arrays:
        got = ", ".join(map(repr, sorted(arrays))) or "none"
        raise ValueError(f"{path} must have the key 'features', and 'labels' if there are any, got {got}")
    try:
        return ClassRows(arrays["features"], arrays.get("labels"), m=m, dim=dim, name=name)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _first(labels: NDArray[Any], most: int) -> NDArray[np.int64]:
    """The first rows of each class, in order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:most] for label in np.unique(labels)]))
