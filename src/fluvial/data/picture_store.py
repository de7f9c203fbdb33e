"""A folder of pictures as a store: each batch is decoded when it is asked for, by several threads."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from fluvial.data.pictures import in_threads, read_picture
from fluvial.data.stamps import Stamp, stamp_of

_READ_BYTES = 2**20


class PictureStore:
    """Pictures of a folder as uint8 rows (C, H, W).

    Args:
        folder: The folder.
        names: Paths of the pictures relative to it, with forward slashes.
        size: Side in pixels to which each picture's central square is resized; None keeps sizes, which are then all
            the same.
        grey: Whether all become grey; else all become RGB.

    Attributes:
        shape: Shape of a row, that of the first picture.

    Raises:
        ValueError: If the first picture cannot be read.
        OSError: If there is no file of one of the names.
    """

    chunks: tuple[int, ...] | None = None
    largest = 255.0
    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, names: Sequence[str], *, size: int | None, grey: bool) -> None:
        self._folder, self._size, self._grey = folder.absolute(), size, grey
        self._names = tuple(names)
        self._stamps = np.array([self._stamp(name) for name in self._names], np.int64)
        self.shape: tuple[int, ...] = ()
        self.shape = self._pixels(0).shape

    def __len__(self) -> int:
        return len(self._names)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The pictures of these positions.

        Raises:
            ValueError: If a picture has gone, is damaged, or has changed since the store was made; it is named.
        """
        values = np.empty((len(indices), *self.shape), np.uint8)
        for place, pixels in enumerate(in_threads(self._pixels, indices.tolist())):
            values[place] = pixels
        return values

    def marks(self, indices: NDArray[np.int64]) -> Iterator[bytes] | None:
        """Name and SHA-256 of each picture's file."""
        return in_threads(self._mark, indices.tolist())

    def _pixels(self, index: int) -> UInt8[np.ndarray, "C H W"]:
        path = self._checked(index)
        pixels = read_picture(path, path, size=self._size, crop=None, grey=self._grey)
        if self.shape and pixels.shape != self.shape:
            raise ValueError(f"{path} must have shape {self.shape} as the first picture has, got {pixels.shape}")
        return pixels

    def _mark(self, index: int) -> bytes:
        path = self._checked(index)
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while part := file.read(_READ_BYTES):
                    digest.update(part)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        return self._names[index].encode("utf-8", "surrogateescape") + b"\0" + digest.digest()

    def _checked(self, index: int) -> Path:
        """The picture's path, once it is known to be the file that it was."""
        name = self._names[index]
        try:
            now = self._stamp(name)
        except OSError as error:
            raise ValueError(f"{self._folder / name} cannot be read: {error.strerror}") from None
        if now != tuple(self._stamps[index].tolist()):
            raise ValueError(f"{self._folder / name} has changed: pictures must stay as they are while in use")
        return self._folder / name

    def _stamp(self, name: str) -> Stamp:
        return stamp_of(os.path.join(self._folder, name))
