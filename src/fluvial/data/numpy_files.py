"""Files of NumPy arrays, read without unpickling anything. Imports no torch."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a ``.npz`` file by their keys; the one array of a ``.npy`` file under the key ``x``.

    Raises:
        ValueError: If the file is damaged or not of its kind, or holds Python objects.
    """
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
