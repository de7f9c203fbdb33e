"""Stores over Parquet files: their pictures, decoded when they are asked for, and their numbers, standardised."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from numpy.typing import NDArray

from fluvial.data.parquet_columns import PictureColumns
from fluvial.data.parquet_files import ParquetFiles
from fluvial.data.pictures import in_threads, look_at_bytes, read_picture
from fluvial.data.standardization import Standardization
from fluvial.data.tables import import_pyarrow

_LOOKED_AT = 64  # pictures that decide between grey and colour


class ParquetPictures:
    """Pictures of a column as uint8 rows (C, H, W); the row groups are the chunks.

    Grey or colour is decided by the majority of the first 64 pictures, the shape by the first.

    Args:
        files: The files.
        columns: Where the pictures lie.
        size: Side in pixels to which each picture's central square is resized; None keeps sizes.

    Raises:
        ValueError: If the first pictures cannot be read.
    """

    largest = 255.0
    dtype = np.dtype(np.uint8)

    def __init__(self, files: ParquetFiles, columns: PictureColumns, size: int | None) -> None:
        files.choose([columns.leaf])
        files.check_memory()
        self._files, self._size = files, size
        self._field = columns.leaf.rpartition(".")[2] if "." in columns.leaf else None
        self.chunks: tuple[int, ...] | None = files.chunks
        first = range(min(_LOOKED_AT, files.chunks[0]))
        looks = [look_at_bytes(*self._cell(0, place)) for place in first]
        self._grey = 2 * sum(look.grey for look in looks) > len(looks)
        self.shape: tuple[int, ...] = ()
        self.shape = self._pixels((0, 0)).shape

    def __len__(self) -> int:
        return len(self._files)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The pictures of these positions.

        Raises:
            ValueError: If one is damaged, has another shape or an alpha channel, or a file has changed.
        """
        values = np.empty((len(indices), *self.shape), np.uint8)
        for number, wanted, places in self._files.located(indices):
            self._files.chunk(number)  # before the threads, which must not read it twice
            cells = [(number, place) for place in places.tolist()]
            for target, pixels in zip(wanted.tolist(), in_threads(self._pixels, cells), strict=True):
                values[target] = pixels
        return values

    def marks(self, indices: NDArray[np.int64]) -> Iterator[bytes] | None:
        """SHA-256 of each picture's bytes, row group by row group; of remote files, where the pictures lie."""
        form = f"{self._size} {self._grey}".encode()
        return chain([form], self._files.place_marks(indices) or self._digests(indices))

    def _digests(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        for start in range(0, len(indices), 65_536):
            part = indices[start : start + 65_536]
            digests: list[bytes] = [b""] * len(part)
            for number, wanted, places in self._files.located(part):
                for target, place in zip(wanted.tolist(), places.tolist(), strict=True):
                    digests[target] = hashlib.sha256(self._cell(number, place)[0]).digest()
            yield from digests

    def _cell(self, number: int, place: int) -> tuple[bytes, str]:
        """Bytes of one picture, and its name in messages."""
        cell = self._files.chunk(number).column(0)[place].as_py()
        found = cell.get(self._field) if self._field is not None and isinstance(cell, dict) else cell
        name = self._files.row_name(number, place)
        if not isinstance(found, bytes):
            raise ValueError(f"{name} holds no picture: its bytes are missing")
        return found, name

    def _pixels(self, cell: tuple[int, int]) -> UInt8[np.ndarray, "C H W"]:
        data, name = self._cell(*cell)
        # An alpha channel is refused, not painted over.
        pixels = read_picture(BytesIO(data), name, size=self._size, crop=None, grey=self._grey, look=True)
        if self.shape and pixels.shape != self.shape:
            raise ValueError(
                f"{name} has shape {pixels.shape} and the first picture {self.shape}: give --size S (size=S) to "
                "centre-crop and resize them all"
            )
        return pixels


class ParquetNumbers:
    """Numeric columns as float32 rows, standardised; the row groups are the chunks.

    Args:
        files: The files, :meth:`ParquetFiles.choose` done.
        units: Columns, means and deviations.
        largest: Largest absolute standardised value.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, files: ParquetFiles, units: Standardization, largest: float) -> None:
        self._files, self._units, self.largest = files, units, largest
        self.chunks: tuple[int, ...] | None = files.chunks
        self.shape: tuple[int, ...] = (len(units.columns),)

    def __len__(self) -> int:
        return len(self._files)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these positions."""
        values = np.empty((len(indices), *self.shape), np.float32)
        for number, wanted, places in self._files.located(indices):
            values[wanted] = self._units.forward(chunk_numbers(self._files, number)[places])
        return values

    def marks(self, indices: NDArray[np.int64]) -> Iterator[bytes] | None:
        """None: the values tell the rows apart; of remote files, where the rows lie does."""
        return self._files.place_marks(indices)


def chunk_numbers(files: ParquetFiles, number: int) -> Float64[np.ndarray, "n D"]:
    """The chosen columns of one row group in their own units; nulls are NaN."""
    pa, _ = import_pyarrow("reading Parquet")
    table = files.chunk(number)
    columns = [column.cast(pa.float64(), safe=False).to_numpy() for column in table.columns]
    return np.stack(columns, axis=1)
