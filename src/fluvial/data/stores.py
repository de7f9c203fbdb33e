"""Where the rows of a data set lie: in memory, or in files from which each batch is read when it is asked for.

A store knows nothing of splits and labels; :class:`fluvial.data.Dataset` does. Rows are handed out as they are kept:
uint8 images (n, C, H, W) or float32 numbers (n, *D).
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Store(Protocol):
    """Rows of one shape, read by their position."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or float32."""

    @property
    def largest(self) -> float:
        """Largest absolute value; of uint8 in files 255, the largest that there can be, so that none is read for it."""

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Numbers of the rows that are cheap to read together, in order; None where any row is cheap to read."""

    def __len__(self) -> int: ...

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these positions, in their order, as an array that is the caller's own.

        Raises:
            ValueError: If the file that holds them has changed or is damaged.
            OSError: If it cannot be read.
        """

    def marks(self, indices: NDArray[np.int64]) -> Iterator[bytes] | None:
        """Bytes that tell these rows from others without decoding them; None where the values do that.

        A hash made of such bytes is another than that of the same rows in memory.
        """


class MemoryStore:
    """Rows of an array.

    Args:
        values: uint8 or float32, shape (N, *D).

    Example:
        >>> MemoryStore(np.float32([[1], [2], [3]])).rows(np.array([2, 0]))
        array([[3.],
               [1.]], dtype=float32)
    """

    chunks: tuple[int, ...] | None = None

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self.shape: tuple[int, ...] = values.shape[1:]
        self.dtype = values.dtype

    def __len__(self) -> int:
        return len(self._values)

    @cached_property
    def largest(self) -> float:
        """Largest absolute value."""
        # Not abs(), which would make a second array of the same size.
        return float(max(self._values.max(), -float(self._values.min())))

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these positions."""
        chosen: NDArray[Any] = self._values[indices]
        return chosen

    def marks(self, indices: NDArray[np.int64]) -> Iterator[bytes] | None:
        """None: the values tell the rows apart."""
        return None


def in_memory(store: Store, rows_at_once: int = 1024) -> NDArray[Any]:
    """All rows of a store as one read-only array.

    Args:
        store: The store.
        rows_at_once: Rows read together.

    Example:
        >>> in_memory(MemoryStore(np.float32([[1], [2]]))).tolist()
        [[1.0], [2.0]]
    """
    values = np.empty((len(store), *store.shape), store.dtype)
    for start in range(0, len(store), rows_at_once):
        part = np.arange(start, min(start + rows_at_once, len(store)))
        values[part] = store.rows(part)
    values.flags.writeable = False
    return values
