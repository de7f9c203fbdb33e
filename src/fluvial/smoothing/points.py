"""Where the points of a support lie: in memory or in a file, as floats or as pixels.

Pixels (uint8) stand for ``u / 127.5 - 1``. They are computed with as ``u - 128``, which int8 and bfloat16 hold
exactly, and the map ``(u - 128 + origin) * unit`` with ``origin = 1/2`` and ``unit = 1 / 127.5`` is folded into the
query and the result, so that no float copy of the data is ever made.

Files are read, not mapped: pages of a mapping count as the process's memory, and one that is cut short on disk kills
the process instead of raising an error.
"""

import mmap
import os
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

PIXEL_UNIT = 1 / 127.5
PIXEL_ORIGIN = 0.5
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "uint8": torch.uint8}


@runtime_checkable
class Points(Protocol):
    """``N`` points of ``d`` coordinates as they are stored."""

    shape: tuple[int, int]
    dtype: torch.dtype

    def buffer(self, rows: int) -> Tensor | None:
        """Room for that many points, for ``read`` to use again and again; None where it needs none."""
        ...

    def read(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Points ``start`` to ``stop`` as stored, shape ``(n, d)``, in ``out`` where that is given and needed."""
        ...

    def gather(self, index: Tensor) -> Tensor:
        """Some points as stored, shape ``(len(index), d)``."""
        ...


class TensorPoints:
    """Points in memory.

    Args:
        tensor: Shape ``(N, d)``; float32, float64 or uint8.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.shape = (tensor.shape[0], tensor.shape[1])
        self.dtype = tensor.dtype

    def buffer(self, rows: int) -> Tensor | None:
        return None

    def read(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        return self.tensor[start:stop]

    def gather(self, index: Tensor) -> Tensor:
        return self.tensor.index_select(0, index)


class FilePoints:
    """Points in a file, read block by block.

    Args:
        array: A memory map of shape ``(N, *D)``, row by row (C order), float32, float64 or uint8.

    Raises:
        ValueError: If the map is not contiguous, or has no file.
    """

    def __init__(self, array: np.memmap) -> None:
        if not array.flags.c_contiguous:
            raise ValueError("support must be a memory map in C order without gaps between its points")
        if array.filename is None:
            raise ValueError("support is a memory map without a file: pass a tensor")
        self.filename = os.fspath(array.filename)
        self.shape = (array.shape[0], int(np.prod(array.shape[1:])))
        self.dtype = _DTYPES[array.dtype.name]
        self._offset = _offset_in_file(array)
        self._row_bytes = self.shape[1] * array.dtype.itemsize
        self._numpy_dtype = array.dtype
        self._file = open(self.filename, "rb", buffering=0)  # noqa: SIM115 (open as long as the support)

    def buffer(self, rows: int) -> Tensor | None:
        return torch.empty(rows, self.shape[1], dtype=self.dtype)

    def read(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        block = torch.empty(stop - start, self.shape[1], dtype=self.dtype) if out is None else out[: stop - start]
        self._fill(block.numpy(), start)
        return block

    def gather(self, index: Tensor) -> Tensor:
        rows = np.empty((len(index), self.shape[1]), dtype=self._numpy_dtype)
        for row, point in enumerate(index.tolist()):
            self._fill(rows[row : row + 1], point)
        return torch.from_numpy(rows)

    def _fill(self, block: np.ndarray, start: int) -> None:
        view, position = memoryview(block.data).cast("B"), self._offset + start * self._row_bytes
        while len(view):
            count = os.preadv(self._file.fileno(), [view], position)
            if count == 0:
                whole = max(0, os.fstat(self._file.fileno()).st_size - self._offset) // self._row_bytes
                raise ValueError(
                    f"support: {self.filename} ends at point {whole} of {self.shape[0]}: it was cut short while in use"
                )
            view, position = view[count:], position + count


def _offset_in_file(array: np.memmap) -> int:
    """Where the first element of a map, which may be a slice of another, lies in the file."""
    whole = np.frombuffer(getattr(array, "_mmap"), dtype=np.uint8)  # noqa: B009 (numpy's types hide it)
    inside = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    base = array
    while isinstance(base.base, np.memmap):
        base = base.base
    return int(base.offset - base.offset % mmap.ALLOCATIONGRANULARITY + inside)


def as_integers(pixels: Tensor, out: Tensor | None = None) -> Tensor:
    """Pixels less 128, as int8: flipping the highest bit is that subtraction."""
    flipped = None if out is None else out[: len(pixels)].view(torch.uint8)
    return torch.bitwise_xor(pixels, 128, out=flipped).view(torch.int8)


def as_values(block: Tensor, dtype: torch.dtype, out: Tensor | None = None, integers: Tensor | None = None) -> Tensor:
    """Stored points as numbers to compute with: pixels less 128, floats as they are.

    Args:
        block: As stored, shape ``(n, d)``.
        dtype: Type of the result.
        out: Buffer of that type with at least ``n`` rows, used where a conversion is needed.
        integers: Buffer of int8 with at least ``n`` rows, used for pixels.
    """
    if block.dtype == torch.uint8:
        block = as_integers(block, integers)
    if block.dtype == dtype:
        return block
    return block.to(dtype) if out is None else out[: len(block)].copy_(block)
