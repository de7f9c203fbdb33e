"""CIFAR-10: 50,000 training and 10,000 test images, 32x32 colour, in its binary version or as Parquet files.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

import warnings
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from fluvial.data.dataset import Dataset
from fluvial.data.memory import check_fits
from fluvial.data.pictures import decode_picture, in_threads
from fluvial.data.quoting import quoted_names
from fluvial.data.tables import import_pyarrow, open_parquet, read_columns

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CONVERSION = (
    "b = pickle.load(open(f, 'rb'), encoding='bytes'); np.c_[np.uint8(b[b'labels']), b[b'data']].tofile(f + '.bin')"
)
"""Python that turns a pickled batch f into a binary one, for who trusts it; never run by this library."""

_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_RECORD = 1 + 3 * 32 * 32
_LARGEST_PICTURE = 2**20

Part = tuple[UInt8[np.ndarray, "_ C H W"], NDArray[Any]]


def read_cifar10(folder: Path) -> Dataset:
    """Reads the binary version or Parquet files; ``.train`` is the training set, ``.held_out`` the test set.

    Args:
        folder: Holds ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, or
            ``train-*.parquet`` and ``test-*.parquet`` with the columns ``img`` or ``image`` (``{"bytes":
            PNG}``) and ``label``; itself, or in a subfolder ``cifar-10-batches-bin``, ``plain_text`` or
            ``data``.

    Raises:
        ValueError: If files are absent, damaged or pickled.
    """
    holders = [folder, *(folder / name for name in ("cifar-10-batches-bin", "plain_text", "data"))]
    for holder in holders:
        if any(holder.glob("*_batch*.bin")):
            return _joined(_binary(holder, _TRAIN), _binary(holder, ("test_batch",)))
        if any(holder.glob("train-*.parquet")):
            return _joined(_parquet(holder, "train"), _parquet(holder, "test"))
    _refuse_pickles([*holders, folder / "cifar-10-batches-py"])
    raise ValueError(
        f"cifar10: {str(folder)!r} holds neither data_batch_1.bin nor train-*.parquet: unpack the binary "
        "version (cifar-10-binary.tar.gz, from the CIFAR-10 page) there"
    )


def _refuse_pickles(holders: list[Path]) -> None:
    for holder in holders:
        pickled = [name for name in (*_TRAIN, "test_batch", "cifar-10-python.tar.gz") if (holder / name).is_file()]
        if pickled:
            raise ValueError(
                f"cifar10: {holder / pickled[0]} is pickled, and reading a pickle can run any code: get the "
                "binary version (cifar-10-binary.tar.gz), or convert each batch f, if you trust it, with: "
                f"{CONVERSION}"
            )


def _joined(train: Part, test: Part) -> Dataset:
    images, labels = (np.concatenate(both) for both in zip(train, test, strict=True))
    whole = Dataset(images, labels, name="cifar10", class_names=CLASS_NAMES)
    return whole.with_split(np.arange(len(train[0])), np.arange(len(train[0]), len(whole)))


def _binary(folder: Path, names: tuple[str, ...]) -> Part:
    paths = [folder / f"{name}.bin" for name in names]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"cifar10: {path} is missing")
        size = path.stat().st_size
        if size == 0 or size % _RECORD:
            raise ValueError(f"cifar10: {path} is truncated or damaged: {size} bytes are no multiple of {_RECORD}")
    total = sum(path.stat().st_size for path in paths)
    check_fits(3 * total, f"cifar10: {folder}", "give a smaller part of it")
    batches = [_records(path) for path in paths]
    records = np.concatenate(batches)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _records(path: Path) -> UInt8[np.ndarray, "_ _"]:
    records = np.fromfile(path, np.uint8).reshape(-1, _RECORD)
    _check_labels(records[:, 0], path)
    return records


def _check_labels(labels: NDArray[Any], path: Path) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASS_NAMES)))
    if len(wrong):
        raise ValueError(
            f"cifar10: {path} is damaged: labels must be in 0..{len(CLASS_NAMES) - 1}, "
            f"row {wrong[0] + 1} has {labels[wrong[0]]}"
        )


def _parquet(folder: Path, part: str) -> Part:
    paths = sorted(folder.glob(f"{part}-*.parquet"))
    if not paths:
        raise ValueError(f"cifar10: {folder / part}-*.parquet is missing")
    parts = [_decoded(path) for path in paths]
    images, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
    return images, labels


def _decoded(path: Path) -> Part:
    with open_parquet(path) as file:
        column = _picture_column(file.schema_arrow, path)
        # A picture of this size is no larger as a PNG, and the rows are what the metadata promise.
        check_fits(4 * _RECORD * file.metadata.num_rows, f"cifar10: {path}", "give a smaller part of it")
        table = read_columns(file, [column, "label"], path)
    cells, labels = table.column(column).to_pylist(), table.column("label").to_pylist()
    if not cells or not all(isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes) for cell in cells):
        raise ValueError(f"cifar10: {path} must have pictures as {{'bytes': PNG}} in each row of {column!r}")
    if not all(type(label) is int for label in labels):
        raise ValueError(f"cifar10: {path} must have a whole number in each row of 'label'")
    numbers = np.asarray(labels)
    _check_labels(numbers, path)
    named = [(cell["bytes"], f"{path}, row {row}") for row, cell in enumerate(cells, start=1)]
    return np.stack(list(in_threads(lambda item: _picture(*item), named))), numbers


def _picture_column(schema: Any, path: Path) -> str:
    pa, _ = import_pyarrow(f"reading {path.name}")
    columns = Counter(schema.names)
    column = next((name for name in ("img", "image") if columns[name] == 1), None)
    if column is None or columns["label"] != 1:
        names = quoted_names(schema.names)
        raise ValueError(f"cifar10: {path} must have the columns 'img' (or 'image') and 'label', got {names}")
    if not pa.types.is_struct(schema.field(column).type) or not pa.types.is_integer(schema.field("label").type):
        raise ValueError(
            f"cifar10: {path} must have pictures as {{'bytes': PNG}} in each row of {column!r}, "
            "and whole numbers in 'label'"
        )
    return column


def _picture(data: bytes, name: str) -> UInt8[np.ndarray, "_ _ _"]:
    # Before it is decoded: a picture of a few bytes may stand for a gigabyte of pixels.
    if len(data) > _LARGEST_PICTURE or _size(data, name) != (32, 32):
        raise ValueError(f"cifar10: {name} holds images that are not 32x32")
    return decode_picture(data, name)


def _size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height that a picture's head tells."""
    from PIL import Image
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=("PNG", "JPEG", "BMP", "WEBP")) as image:
                return image.size
    except (OSError, SyntaxError, ValueError, DecompressionBombError) as error:
        raise ValueError(f"{name} is damaged or no image ({error})") from None
