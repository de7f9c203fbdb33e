"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28x28 grey, in four IDX files.

Source: Xiao et al. 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms".
"""

import gzip
import zlib
from io import BufferedIOBase
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fluvial.data.dataset import Dataset
from fluvial.data.memory import check_fits

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_UINT8 = 8
_EXPANSION = 1032  # the most bytes that one byte of deflate can stand for
_BLOCK = 2**20


def read_fashion_mnist(folder: Path) -> Dataset:
    """Reads the four IDX files, gzip or plain; ``.train`` is the training set, ``.held_out`` the test set.

    Args:
        folder: Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
            ``t10k-labels-idx1-ubyte``, each with or without ``.gz``.

    Raises:
        ValueError: If a file is absent, damaged or of another format, or images and labels do not match.
    """
    parts = [(_read(folder, f"{part}-images-idx3", 3), _read(folder, f"{part}-labels-idx1", 1)) for part in _PARTS]
    for part, (images, labels) in zip(_PARTS, parts, strict=True):
        if len(images) != len(labels):
            raise ValueError(f"{folder}: {part} has {len(images)} images but {len(labels)} labels")
        if not images.size:
            raise ValueError(f"{folder}: {part} holds images of shape {images.shape}, expected some that are not empty")
        if labels.max() >= len(CLASS_NAMES):
            raise ValueError(f"{folder}: {part} has labels up to {labels.max()}, expected 0..{len(CLASS_NAMES) - 1}")
    (train_images, train_labels), (test_images, test_labels) = parts
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(f"{folder}: images are {train_images.shape[1:]} in train and {test_images.shape[1:]} in t10k")
    whole = Dataset(
        np.concatenate([train_images, test_images]),
        np.concatenate([train_labels, test_labels]),
        name="fashion-mnist",
        class_names=CLASS_NAMES,
    )
    return whole.with_split(np.arange(len(train_images)), np.arange(len(train_images), len(whole)))


_PARTS = ("train", "t10k")


def _read(folder: Path, stem: str, axes: int) -> UInt8[np.ndarray, "..."]:
    for path in (folder / f"{stem}-ubyte.gz", folder / f"{stem}-ubyte"):
        if path.is_file():
            return read_idx(path, axes)
    raise ValueError(f"fashion-mnist: {str(folder)!r} lacks {stem}-ubyte(.gz): run `make data`, or give another path")


def read_idx(path: Path, axes: int) -> UInt8[np.ndarray, "..."]:
    """Reads an IDX file of uint8 with that many axes; nothing is allocated before header and length agree.

    Raises:
        ValueError: If the magic number, the length or the compression is wrong.
    """
    zipped = path.suffix == ".gz"
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            return _parse(file, axes, path.stat().st_size * (_EXPANSION if zipped else 1), path)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it and run `make data` again") from None


def _parse(file: BufferedIOBase, axes: int, most: int, path: Path) -> UInt8[np.ndarray, "..."]:
    magic = file.read(4)
    if magic != bytes([0, 0, _UINT8, axes]):
        raise ValueError(f"{path} is no IDX file of uint8 with {axes} axes: it begins with {magic.hex() or 'nothing'}")
    header = file.read(4 * axes)
    if len(header) < 4 * axes:
        raise ValueError(f"{path} is truncated: it ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
    size = prod(shape)
    if size <= most:
        check_fits(2 * size, str(path), "give a smaller part of it")
    data = _up_to(size + 1, file) if size <= most else bytearray()
    if len(data) != size:
        there = "more" if len(data) > size else "fewer"
        raise ValueError(f"{path} is truncated or damaged: its header promises {size} bytes, there are {there}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _up_to(size: int, file: BufferedIOBase) -> bytearray:
    """At most ``size`` bytes, for which memory is taken as they come: a read of ``size`` would take it all at once."""
    data = bytearray()
    while len(data) < size and (block := file.read(min(size - len(data), _BLOCK))):
        data += block
    return data
