"""Files of NumPy arrays, read without unpickling anything and without belief in their headers. Imports no torch.

What a header promises is held against the length of the file, or of the archive's member, before memory is taken.
"""

import math
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader, BytesIO
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fluvial.data.memory import check_fits
from fluvial.data.quoting import one_line, quoted

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_KINDS = "biufcSUmM"  # numbers, truth values, texts and times; the others hold objects or records
_LONGEST_HEAD = 12 + 10_000  # NumPy's own limit for what it parses
_EXPANSION = 1032  # the most bytes that one byte of deflate can stand for
_BLOCK = 2**20
_END = struct.Struct("<10sHII2x")  # of an archive without a comment: number of members, size and place of their list
_LARGE = 0xFFFFFFFF  # the place is told elsewhere, as it takes more than 32 bits
_HEAD_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_ERRORS = (
    *(OSError, EOFError, ValueError, MemoryError, OverflowError, RuntimeError),  # NotImplementedError is a RuntimeError
    *(zipfile.BadZipFile, zlib.error, KeyError, IndexError),
)

T = TypeVar("T")


class _Objects(ValueError):
    """An array of Python objects, which only unpickling would read."""


@dataclass(frozen=True)
class ArrayHead:
    """What the header of an array tells, once its length has proved possible.

    Args:
        shape: Shape.
        dtype: Type of the elements, of a fixed size above 0.
        fortran: Whether the first axis changes fastest.
        offset: Where the elements begin, in bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a ``.npz`` file by their keys; the one array of a ``.npy`` file under the key ``x``.

    Raises:
        ValueError: If the file is damaged or not of its kind, holds Python objects or records, or more than fits into
            memory; no memory is taken before sizes have been checked.
    """
    heads = array_heads(path)
    check_fits(sum(head.size for head in heads.values()), str(path), "give a smaller part of it")
    return _guarded(path, lambda file: _read(file, heads))


def array_heads(path: Path) -> dict[str, ArrayHead]:
    """What the arrays of a ``.npz`` or ``.npy`` file are, by the keys of :func:`load_arrays`, without their elements.

    Raises:
        ValueError: If the file is damaged or not of its kind, or holds Python objects or records.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(file, np.zeros((2, 3)))
        >>> array_heads(file)["x"].shape
        (2, 3)
    """
    return _guarded(path, _heads)


def _guarded(path: Path, read: Callable[[BufferedReader], T]) -> T:
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("it is no regular file")
            return read(file)
    except _Objects:
        raise ValueError(f"{path} holds Python objects, which are not read; save an array of numbers") from None
    except _ERRORS as error:
        raise ValueError(f"{path} is damaged or no {path.suffix} file ({one_line(error)})") from None


def _is_archive(file: BufferedReader) -> bool:
    start = file.read(4)
    file.seek(0)
    return start in _ZIP


def _heads(file: BufferedReader) -> dict[str, ArrayHead]:
    length = os.fstat(file.fileno()).st_size
    if not _is_archive(file):
        return {"x": _head(file, length)}
    count = _count_of_members(file, length)
    with zipfile.ZipFile(file) as archive:
        heads, members = {}, _members(archive, length)
        if len(members) != count:
            raise ValueError(f"its end tells of {count} arrays, there are {len(members)}")
        for key, info in members.items():
            with cast(BufferedIOBase, archive.open(info)) as member:
                heads[key] = _head(member, info.file_size)
        return heads


def _count_of_members(file: BufferedReader, length: int) -> int:
    """How many members the end of an archive tells of; Python's reader takes fewer, or other places, without a word."""
    file.seek(max(0, length - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or end[:4] != b"PK\x05\x06":
        raise ValueError("it has no end")
    _, count, size, offset = _END.unpack(end)
    if offset != _LARGE and offset + size + _END.size != length:
        raise ValueError("its directory is not where its end says")
    return int(count)


def _members(archive: zipfile.ZipFile, length: int) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an archive by their keys; names are keys alone, and nothing is ever unpacked to a path."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename
        if not name.endswith(".npy"):
            raise ValueError(f"its member {quoted(name)} is no array")
        if name.removesuffix(".npy") in found:
            raise ValueError(f"it has two members {quoted(name)}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise ValueError(f"its member {quoted(name)} is packed in another way than NumPy packs")
        if info.file_size > _EXPANSION * info.compress_size:
            raise ValueError(f"its member {quoted(name)} cannot hold the {info.file_size:,} bytes that it promises")
        found[name.removesuffix(".npy")] = info
    # Members that share their bytes are how a small archive holds an endless amount.
    if sum(info.compress_size for info in found.values()) > length:
        raise ValueError("its members overlap")
    return found


def _head(file: BufferedIOBase, length: int) -> ArrayHead:
    """Reads the header of an array that fills ``length`` bytes."""
    start = BytesIO(file.read(_LONGEST_HEAD))
    if start.getvalue()[:6] != b"\x93NUMPY":
        raise ValueError("it does not begin like one")
    shape, fortran, dtype = _parsed(start)
    if dtype.hasobject:
        raise _Objects
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise ValueError(f"it holds elements of type {quoted(dtype)}, expected numbers or texts")
    if not all(0 <= n < 2**63 for n in shape):
        raise ValueError(f"its shape is {quoted(shape)}")
    head = ArrayHead(shape, dtype, fortran, start.tell())
    if head.size != length - head.offset:
        raise ValueError(f"its header promises {head.size:,} bytes, there are {length - head.offset:,}")
    return head


def _parsed(start: BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(start)
    if version not in _HEAD_READERS:
        raise ValueError(f"its format has the version {version}, expected 1.0 or 2.0")
    try:
        with warnings.catch_warnings():  # of literals that Python once allowed, and of files of Python 2
            warnings.simplefilter("ignore")
            shape, fortran, dtype = _HEAD_READERS[version](start)
    except Exception:  # NumPy evaluates a literal and makes a type of it: either has many errors, some of many lines
        raise ValueError("its header cannot be read") from None
    return tuple(shape), fortran, dtype


def _read(file: BufferedReader, heads: dict[str, ArrayHead]) -> dict[str, NDArray[Any]]:
    if not _is_archive(file):
        return {key: _elements(file, head) for key, head in heads.items()}
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        for key, head in heads.items():
            with cast(BufferedIOBase, archive.open(f"{key}.npy")) as member:
                arrays[key] = _elements(member, head)
    return arrays


def _elements(file: BufferedIOBase, head: ArrayHead) -> NDArray[Any]:
    file.seek(head.offset)
    raw = np.empty(head.size, np.uint8)
    rest = memoryview(raw.data)
    while len(rest):
        block = file.read(min(len(rest), _BLOCK))
        if not block:
            raise ValueError("it ends early")
        rest[: len(block)] = block
        rest = rest[len(block) :]
    if file.read(1):  # at its end, an archive's member proves its checksum
        raise ValueError("it goes on after its last element")
    _check_elements(raw, head.dtype)
    array: NDArray[Any] = raw.view(head.dtype).reshape(head.shape, order="F" if head.fortran else "C")
    return array


def _check_elements(raw: NDArray[np.uint8], dtype: np.dtype[Any]) -> None:
    """Refuses bytes that are no truth values and no characters, which NumPy takes and Python stumbles over."""
    if dtype.kind == "b" and raw.size and raw.max() > 1:
        raise ValueError("it holds truth values that are neither true nor false")
    if dtype.kind == "U":
        codes = raw.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if bool(((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any()):
            raise ValueError("it holds texts with numbers that stand for no character")
