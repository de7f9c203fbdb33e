"""NumPy files: ``.npy`` with one array, ``.npz`` with ``x`` and, for labels, ``y``.

What the numbers are taken for, images or points, is stated at ``Dataset``. Files are never unpickled.
"""

from pathlib import Path

from fluvial.data.dataset import Dataset
from fluvial.data.numpy_files import load_arrays


def read_array(path: Path) -> Dataset:
    """Reads a ``.npy`` or ``.npz`` file, shape (N, ...), as a data set named after it; not yet split.

    Args:
        path: A ``.npy`` file, or a ``.npz`` file with the key ``x`` and, if there are labels, ``y``, and no
            other.

    Raises:
        ValueError: If the file is damaged or not of its kind, holds Python objects, has other keys, or if
            ``Dataset`` refuses the values.
    """
    loaded = load_arrays(path)
    if set(loaded) - {"x", "y"} or "x" not in loaded:
        raise ValueError(f"{path} must have the key 'x' and may have 'y', got {', '.join(map(repr, sorted(loaded)))}")
    return Dataset(loaded["x"], loaded.get("y"), name=path.name)
