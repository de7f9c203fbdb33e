"""CIFAR-10: 50,000 training and 10,000 test images, 32x32 colour, in its binary version or as Parquet files.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from fluvial.data.dataset import Dataset
from fluvial.data.pictures import decode_picture, in_threads
from fluvial.data.tables import import_pyarrow

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CONVERSION = (
    "b = pickle.load(open(f, 'rb'), encoding='bytes'); np.c_[np.uint8(b[b'labels']), b[b'data']].tofile(f + '.bin')"
)
"""Python that turns a pickled batch f into a binary one, for who trusts it; never run by this library."""

_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_RECORD = 1 + 3 * 32 * 32

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
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, _RECORD) for path in paths])
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _parquet(folder: Path, part: str) -> Part:
    pa, parquet = import_pyarrow("reading CIFAR-10 from Parquet")
    paths = sorted(folder.glob(f"{part}-*.parquet"))
    if not paths:
        raise ValueError(f"cifar10: {folder / part}-*.parquet is missing")
    try:
        tables = [parquet.read_table(path) for path in paths]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cifar10: {folder / part}-*.parquet cannot be read ({error})") from None
    parts = [_decoded(table, path) for table, path in zip(tables, paths, strict=True)]
    images, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
    return images, labels


def _decoded(table: Any, path: Path) -> Part:
    column = next((name for name in ("img", "image") if name in table.column_names), None)
    if column is None or "label" not in table.column_names:
        names = ", ".join(map(repr, table.column_names))
        raise ValueError(f"cifar10: {path} must have the columns 'img' (or 'image') and 'label', got {names}")
    cells = table.column(column).to_pylist()
    if not cells or not all(isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes) for cell in cells):
        raise ValueError(f"cifar10: {path} must have pictures as {{'bytes': PNG}} in each row of {column!r}")
    named = [(cell["bytes"], f"{path}, row {row}") for row, cell in enumerate(cells, start=1)]
    images = list(in_threads(lambda item: decode_picture(*item), named))
    if any(image.shape != (3, 32, 32) for image in images):
        raise ValueError(f"cifar10: {path} holds images that are not 32x32")
    return np.stack(images), np.asarray(table.column("label").to_pylist())
