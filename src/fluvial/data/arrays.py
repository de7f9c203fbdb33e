"""NumPy files: ``.npy`` with one array, ``.npz`` with ``x`` and, for labels, ``y``.

What the numbers are taken for, images or points, is stated at ``Dataset``. Files are never unpickled.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.data.dataset import Dataset


def read_array(path: Path) -> Dataset:
    """Reads a ``.npy`` or ``.npz`` file, shape (N, ...), as a data set named after it; not yet split.

    Args:
        path: A ``.npy`` file, or a ``.npz`` file with the key ``x`` and, if there are labels, ``y``, and no
            other.

    Raises:
        ValueError: If the file is damaged or not of its kind, holds Python objects, has other keys, or if
            ``Dataset`` refuses the values.
    """
    loaded = _load(path)
    if set(loaded) - {"x", "y"} or "x" not in loaded:
        raise ValueError(f"{path} must have the key 'x' and may have 'y', got {', '.join(map(repr, sorted(loaded)))}")
    return Dataset(loaded["x"], loaded.get("y"), name=path.name)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"x": loaded}
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        if "Object arrays" in str(error):
            raise ValueError(f"{path} holds Python objects, which are not read; save an array of numbers") from None
        # NumPy takes any other file for a pickle and advises to trust it, which is not what to do.
        reason = "it does not begin like one" if "pickle" in str(error) else str(error)
        raise ValueError(f"{path} is damaged or no {path.suffix} file ({reason})") from None
