"""NumPy files: ``.npy`` with one array, ``.npz`` with ``x`` and, for labels, ``y``.

What the numbers are taken for, images or points, is stated at ``Dataset``. Files are never unpickled.
"""

from pathlib import Path

from fluvial.data.dataset import Dataset
from fluvial.data.looks import check_keys
from fluvial.data.memory import should_stream
from fluvial.data.npy_store import NpyStore, npy_memory
from fluvial.data.numpy_files import load_arrays
from fluvial.progress import ProgressCallback


def read_array(path: Path, stream: bool | None = None, progress: ProgressCallback | None = None) -> Dataset:
    """Reads a ``.npy`` or ``.npz`` file, shape (N, ...), as a data set named after it; not yet split.

    Args:
        path: A ``.npy`` file, or a ``.npz`` file with the key ``x`` and, if there are labels, ``y``, and no
            other.
        stream: Whether the values of a ``.npy`` file stay there and each batch is read when it is asked for; None
            decides by its size.
        progress: Called while a streamed file is checked for NaN.

    Raises:
        ValueError: If the file is damaged or not of its kind, holds Python objects, has other keys, or if
            ``Dataset`` refuses the values.
    """
    if path.suffix.lower() == ".npy" and should_stream(npy_memory(path), stream):
        try:
            return Dataset(NpyStore(path, progress), name=path.name)
        except ValueError as error:
            named = str(path) in str(error)
            raise ValueError(str(error) if named else f"data set {path.name!r}: {error}") from None
    loaded = load_arrays(path)
    check_keys(set(loaded), path)
    return Dataset(loaded["x"], loaded.get("y"), name=path.name)
