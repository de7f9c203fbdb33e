"""The hash that tells a data set from every other."""

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.data.stores import Store

_ROWS = 4096
_BYTES = 8 * 2**20


def content_digest(
    about: list[Any], store: Store, rows: NDArray[np.int64], mirrored: NDArray[np.bool_] | None
) -> "hashlib._Hash":
    """SHA-256 of what data are and of their rows in order, read in parts; more can be added to it.

    Args:
        about: What the values mean, as JSON values.
        store: Holds the rows.
        rows: Their positions in the store, shape (n,).
        mirrored: Which of them are read as mirror images, shape (n,); None for none.
    """
    digest = hashlib.sha256(json.dumps(about).encode())
    marks = store.marks(rows)
    if marks is not None:
        for mark in marks:
            digest.update(mark)
        if mirrored is not None:
            digest.update(mirrored.tobytes())
        return digest
    row_bytes = store.dtype.itemsize * int(np.prod(store.shape))
    step = max(1, min(_ROWS, _BYTES // max(1, row_bytes)))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        values = mirror(store.rows(rows[part]), None if mirrored is None else mirrored[part])
        digest.update(np.ascontiguousarray(values).data)
    return digest


def mirror(values: NDArray[Any], mirrored: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Turns the images that are marked left to right, in place.

    Example:
        >>> mirror(np.array([[1, 2], [3, 4]]), np.array([False, True])).tolist()
        [[1, 2], [4, 3]]
    """
    if mirrored is not None:
        values[mirrored] = values[mirrored][..., ::-1]
    return values
