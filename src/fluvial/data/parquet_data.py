"""Data sets of Parquet files, in memory or streamed: pictures with labels, or the numeric columns of a table."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from fluvial.data.dataset import Dataset
from fluvial.data.memory import check_fits, should_stream
from fluvial.data.parquet_columns import Features, PictureColumns, picture_columns
from fluvial.data.parquet_files import ParquetFiles, ParquetSource
from fluvial.data.parquet_stores import ParquetNumbers, ParquetPictures, chunk_numbers
from fluvial.data.splits import split_indices
from fluvial.data.standardization import Standardization
from fluvial.data.stores import in_memory
from fluvial.data.tables import import_pyarrow, load_table


def parquet_paths(path: Path) -> list[Path]:
    """The Parquet files that a path names: itself, or those of a folder and its subfolders, by their path.

    Raises:
        ValueError: If a folder holds none.
    """
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*.parquet") if not any(x.startswith(".") for x in p.relative_to(path).parts))
    if not found:
        raise ValueError(f"folder {str(path)!r} holds no files that end in .parquet")
    return found


def read_parquet_data(
    sources: Sequence[ParquetSource],
    *,
    name: str,
    held_out: float | int,
    seed: int,
    size: int | None = None,
    stream: bool | None = None,
    features: Features | None = None,
    table: Path | None = None,
) -> Dataset:
    """Reads and splits Parquet files of one schema.

    A column of pictures (bytes of png or jpg files, alone or as ``{"bytes": ..., "path": ...}``, as Hugging Face
    `datasets` writes them) makes images, with the labels of a column of classes or named label; else the numeric
    columns make a table, standardised by the training rows.

    Args:
        sources: The files.
        name: Name of the data set.
        held_out: Share in [0, 1) as a float, or number of rows as an int.
        seed: Non-negative integer that decides the split.
        size: Side in pixels to which pictures are cropped and resized.
        stream: Whether row groups are read when they are asked for; None decides by what all would take in memory.
        features: What `datasets` knows about the columns.
        table: The file, where there is one alone and it is local: what reads tables reads its numbers.

    Raises:
        ValueError: If the files are damaged or do not fit together, or ``Dataset`` refuses their content.
    """
    files = ParquetFiles(sources)
    columns = picture_columns(files.schema, files.name, features)
    if columns is not None:
        return _pictures(files, columns, name, size, stream).split(held_out, seed)
    if size is not None:
        raise ValueError(f"size={size} is for pictures, and {files.name} has no column of them")
    cells = 8 * len(files) * len(files.schema.names)
    if table is not None and not should_stream(cells, stream):
        return load_table(table, held_out, seed)
    return _numbers(files, name, held_out, seed, should_stream(cells, stream))


def _pictures(
    files: ParquetFiles, columns: PictureColumns, name: str, size: int | None, stream: bool | None
) -> Dataset:
    labels = None if columns.label is None else files.column(columns.label)
    if labels is not None and None in labels:
        raise ValueError(f"{files.name}: row {labels.index(None) + 1} has no label in column {columns.label!r}")
    store = ParquetPictures(files, columns, size)
    needed = len(store) * prod(store.shape)
    if should_stream(needed, stream):
        return Dataset(store, labels, name=name, class_names=columns.class_names)
    check_fits(needed, f"{len(store)} pictures of shape {store.shape}", "stream them (stream=True)")
    return Dataset(in_memory(store), labels, name=name, class_names=columns.class_names)


def _numbers(files: ParquetFiles, name: str, held_out: float | int, seed: int, stream: bool) -> Dataset:
    types = import_pyarrow(f"reading {files.name}")[0].types
    kinds = types.is_integer, types.is_floating, types.is_decimal
    columns = tuple(field.name for field in files.schema if any(is_kind(field.type) for is_kind in kinds))
    dropped = tuple(column for column in files.schema.names if column not in columns)
    if not columns or len(set(files.schema.names)) < len(files.schema.names):
        raise ValueError(f"{files.name} must have numeric columns of different names, got {files.schema.names}")
    files.choose(list(columns))
    train, kept = split_indices(len(files), None, held_out, seed)
    if stream:
        files.check_memory()
        units, largest = _streamed_units(files, columns, dropped, train)
        return Dataset(ParquetNumbers(files, units, largest), name=name, table=units).with_split(train, kept)
    values = np.concatenate([_checked_numbers(files, columns, number) for number in range(len(files.chunks))])
    try:
        units = Standardization.fit(columns, values[train], dropped)
    except ValueError as error:
        raise ValueError(f"{files.name}: {error}") from None
    return Dataset(units.forward(values), name=name, table=units).with_split(train, kept)


def _checked_numbers(files: ParquetFiles, columns: tuple[str, ...], number: int) -> Float64[np.ndarray, "n D"]:
    values = chunk_numbers(files, number)
    bad = ~np.isfinite(values)
    if bad.any():
        place = int(bad.any(axis=1).argmax())
        column = columns[int(bad[place].argmax())]
        raise ValueError(f"{files.row_name(number, place)} has a missing, NaN or infinite value in column {column!r}")
    return values


def _streamed_units(
    files: ParquetFiles, columns: tuple[str, ...], dropped: tuple[str, ...], train: NDArray[np.int64]
) -> tuple[Standardization, float]:
    """Means and deviations of the training rows in two passes, and the largest standardised value of all rows."""
    chosen = np.zeros(len(files), np.bool_)
    chosen[train] = True
    parts = np.split(chosen, np.cumsum(files.chunks)[:-1])
    total, least, most = np.zeros(len(columns)), np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    low, high = least.copy(), most.copy()  # those of the training rows alone
    for number, part in enumerate(parts):
        values = _checked_numbers(files, columns, number)
        least, most = np.minimum(least, values.min(0)), np.maximum(most, values.max(0))
        seen = values[part]
        total += seen.sum(0)
        low, high = np.minimum(low, seen.min(0, initial=np.inf)), np.maximum(high, seen.max(0, initial=-np.inf))
    constant = [column for column, one, other in zip(columns, low, high, strict=True) if one == other]
    if constant:
        names = ", ".join(map(repr, constant))
        raise ValueError(f"{files.name}: cannot standardise columns that are constant in the training data: {names}")
    mean, squares = total / len(train), np.zeros(len(columns))
    for number, part in enumerate(parts):
        squares += np.square(chunk_numbers(files, number)[part] - mean).sum(0)
    std = np.sqrt(squares / len(train))
    if not (np.isfinite(std).all() and std.all()):
        raise ValueError(f"{files.name}: cannot standardise columns whose deviation is not a float64 number")
    largest = float((np.maximum(most - mean, mean - least) / std).max())
    return Standardization(columns, tuple(mean.tolist()), tuple(std.tolist()), dropped), largest
