"""A ``.npy`` file as a store: each batch is read by position, so that it may be larger than memory.

The file is read, not mapped: when a mapped file is cut short or its disk goes away, the process is killed by a signal,
while a read ends in an error that names the file; and the pages of a map count as the process's own memory.
"""

import os
import weakref
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.data.images import channels_first
from fluvial.data.numpy_files import ArrayHead, array_heads
from fluvial.data.stamps import stamp_of
from fluvial.data.values import float_rows
from fluvial.progress import Progress, ProgressCallback

_SCAN_BYTES = 8 * 2**20
_READ_BYTES = 2**30  # what one system call is asked for; Linux reads at most 2 GiB


class NpyStore:
    """The rows of a C-ordered ``.npy`` file of real numbers, shape (N, ...).

    Args:
        path: The file.
        progress: Called while the values are checked for NaN and infinity, which reads the file once.

    Attributes:
        shape: Shape of one row as it is handed out, channels first.
        dtype: uint8 of uint8 files, float32 of all others.
        largest: Largest absolute value; 255 for uint8.

    Raises:
        ValueError: If the file is damaged, in Fortran order, holds something else than real numbers, NaN or infinity.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "x.npy", np.arange(6.0).reshape(3, 2))
        ...     NpyStore(Path(folder) / "x.npy").rows(np.array([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    chunks: tuple[int, ...] | None = None

    def __init__(self, path: Path, progress: ProgressCallback | None = None) -> None:
        self._path = path.absolute()  # the run may change its directory
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)
        head = _row_head(path)
        self._stamp = stamp_of(self._fd)
        self._kept, self._start, self._count, self._row_shape = head.dtype, head.offset, head.shape[0], head.shape[1:]
        self.dtype = np.dtype(np.uint8 if self._kept == np.uint8 else np.float32)
        self._row_bytes = prod(self._row_shape) * self._kept.itemsize
        if self._stamp[0] != head.offset + head.size:  # another file by now, or an archive under this name
            raise ValueError(f"{path} is damaged or no .npy file (it has {self._stamp[0]:,} bytes)")
        self.shape: tuple[int, ...] = self._converted(np.empty((0, *self._row_shape), self._kept)).shape[1:]
        self.largest = 255.0 if self.dtype == np.uint8 else self._scan(progress)

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> tuple[type["NpyStore"], tuple[Path]]:
        return NpyStore, (self._path,)  # the descriptor is this object's own

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these positions; neighbours in the file are read together."""
        raw = np.empty((len(indices), *self._row_shape), self._kept)
        view = memoryview(raw.reshape(-1).view(np.uint8).data)
        bounds = [*np.flatnonzero(np.diff(indices, prepend=-2) != 1).tolist(), len(indices)]
        for start, stop in pairwise(bounds):
            part = view[start * self._row_bytes : stop * self._row_bytes]
            self._read(part, self._start + int(indices[start]) * self._row_bytes)
        if stamp_of(self._fd) != self._stamp:
            raise ValueError(f"{self._path} has changed since it was opened: data must stay as they are while in use")
        return self._converted(raw)

    def marks(self, indices: NDArray[np.int64]) -> Iterator[bytes] | None:
        """None: the values tell the rows apart, and the hash is that of the same data in memory."""
        return None

    def _read(self, part: memoryview, offset: int) -> None:
        done = 0
        while done < len(part):
            try:
                count = os.preadv(self._fd, [part[done : done + _READ_BYTES]], offset + done)
            except OSError as error:
                raise OSError(error.errno, f"cannot be read: {error.strerror}", str(self._path)) from None
            if count == 0:
                raise ValueError(
                    f"{self._path} has been cut short since it was opened: it ends before {offset:,} bytes"
                )
            done += count

    def _converted(self, raw: NDArray[Any]) -> NDArray[Any]:
        if self._kept == np.uint8:
            return np.ascontiguousarray(channels_first(raw))
        if self._kept == np.bool_ and raw.size and raw.view(np.uint8).max() > 1:
            raise ValueError(f"{self._path} holds truth values that are neither true nor false")
        return float_rows(raw)

    def _scan(self, progress: ProgressCallback | None) -> float:
        """Largest absolute value, once all are known to be finite."""
        step = max(1, _SCAN_BYTES // max(1, self._row_bytes))
        largest, bad, first = 0.0, 0, -1
        for start in range(0, self._count, step):
            part = self.rows(np.arange(start, min(start + step, self._count)))
            finite = np.isfinite(part).reshape(len(part), -1).all(axis=1)
            if not finite.all():
                first = start + int(finite.argmin()) if first < 0 else first
                bad += len(part) - int(finite.sum())
            else:
                largest = max(largest, float(part.max()), -float(part.min()))
            if progress is not None:
                progress(Progress(f"check {self._path.name}", start + len(part), self._count))
        if bad:
            raise ValueError(f"{bad} of {self._count} rows hold NaN or infinite values, the first is row {first}")
        return largest


def npy_memory(path: Path) -> int:
    """Bytes that the data of a ``.npy`` file take in memory, where all but uint8 become float32.

    Raises:
        ValueError: If the file is damaged or holds something else than an array.
    """
    head = array_heads(path)["x"]
    return head.size if head.dtype == np.uint8 else head.size * 4 // min(4, head.dtype.itemsize)


def _row_head(path: Path) -> ArrayHead:
    """The header of a file whose rows can be read on their own."""
    head = array_heads(path)["x"]
    if head.dtype.kind not in "fiub":
        raise ValueError(f"{path}: values must be real numbers, got dtype {head.dtype}")
    if not head.shape or min(head.shape) < 1:
        raise ValueError(f"{path}: there are no data: the values have shape {head.shape}")
    if head.fortran and len(head.shape) > 1:
        raise ValueError(
            f"{path} is in Fortran order, whose rows lie scattered over the file and cannot be streamed; save "
            "np.ascontiguousarray(x), or load it into memory (stream=False in Python)"
        )
    return head
