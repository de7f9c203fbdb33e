"""Examples brought along in a file, to generate from; imports no torch."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from fluvial.data.numpy_files import load_arrays

KEYS = ("support", "x", "features")


def read_examples(path: Path) -> tuple[Float[np.ndarray, "m d"], str]:
    """The rows of a ``.npz`` (key ``support``, ``x`` or ``features``, or its only array) or of a ``.npy``, and the key.

    Args:
        path: The file.

    Returns:
        Rows of shape (m, d), float32, those of more dimensions flattened; and the key that they had.

    Raises:
        ValueError: If the file is absent, damaged, empty, holds no rows of finite real numbers, or one row twice.
    """
    if path.suffix.lower() not in (".npz", ".npy"):
        raise ValueError(f"--support must be a .npz or .npy file, got {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"--support {str(path)!r} {'is no file' if path.exists() else 'does not exist'}")
    arrays = load_arrays(path)
    names = [name for name in KEYS if name in arrays] or (list(arrays) if len(arrays) == 1 else [])
    if not names:
        got = ", ".join(map(repr, sorted(arrays))) or "none"
        raise ValueError(f"{path} must have the key 'support', 'x' or 'features', or one array alone, got {got}")
    rows = arrays[names[0]]
    if rows.dtype.kind not in "fiu":
        raise ValueError(f"{path}: examples must be real numbers, got dtype {rows.dtype}")
    if rows.ndim < 2 or rows.size == 0:
        raise ValueError(f"{path}: examples must have shape (m, d), neither of them 0, got {rows.shape}")
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    bad = ~np.isfinite(flat).all(1)
    if bad.any():
        raise ValueError(f"{path}: {int(bad.sum())} of {len(flat)} examples hold NaN or infinite values")
    if np.abs(flat).max() > np.finfo(np.float32).max:
        raise ValueError(f"{path}: examples must be within the range of float32, got {np.abs(flat).max():.3g}")
    found = flat.astype(np.float32)
    repeated = len(found) - len(np.unique(found, axis=0))
    if repeated:
        raise ValueError(f"{path}: {repeated} of {len(found)} examples repeat another one: give each once")
    return found, names[0]
