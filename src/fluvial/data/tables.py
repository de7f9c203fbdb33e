"""Tables: the numeric columns of a CSV or Parquet file, each brought to mean 0 and standard deviation 1.

A column is numeric if each of its cells is a number and text if none is. Text is left out and listed in
``dataset.table.dropped``; a column that mixes both is an error. Means and deviations are those of the
training data, so that nothing of the held-out rows enters the model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from fluvial.data.csv_text import NO_VALUE, check_header, number_of, read_cells
from fluvial.data.dataset import Dataset
from fluvial.data.memory import check_fits
from fluvial.data.quoting import one_line, quoted, quoted_names
from fluvial.data.splits import split_indices
from fluvial.data.standardization import Standardization


@dataclass(frozen=True)
class RawTable:
    """Numeric columns in their own units, shape (N, D), with their names and those of the dropped columns."""

    columns: tuple[str, ...]
    values: Float64[np.ndarray, "N D"]
    dropped: tuple[str, ...]


def load_table(path: Path, held_out: float | int, seed: int) -> Dataset:
    """Reads, splits and standardises a ``.csv`` or ``.parquet`` file; ``inverse`` maps back to the table's
    units.

    Args:
        path: A comma-separated file with a header line, or a Parquet file.
        held_out: Share in [0, 1) as a float, or number of rows as an int.
        seed: Non-negative integer that decides the split.

    Raises:
        ValueError: If the table has no header, no rows or no numeric column, a cell is missing, NaN, infinite
            or out of place, or a column is constant over the training rows.
    """
    raw = read_csv(path) if path.suffix.lower() == ".csv" else read_parquet(path)
    _check_cells(raw, path)
    train, kept = split_indices(len(raw.values), None, held_out, seed)
    try:
        units = Standardization.fit(raw.columns, raw.values[train], raw.dropped)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Dataset(units.forward(raw.values), name=path.name, table=units).with_split(train, kept)


def read_csv(path: Path) -> RawTable:
    """Numeric columns of a comma-separated file in UTF-8; empty cells, NA, NaN, null and none read as NaN.

    Raises:
        ValueError: If the file is not such a table, with the line at fault.
    """
    rows = read_cells(path)
    header = tuple(name.strip() for name in rows[0])
    check_header(header, path)
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} cells, the header has {len(header)}")
    columns = {name: _numbers([row[i] for row in rows[1:]], name, path) for i, name in enumerate(header)}
    return _table(columns, len(rows) - 1, path)


def read_parquet(path: Path) -> RawTable:
    """Columns of whole, floating or decimal numbers of a Parquet file; nulls read as NaN.

    Raises:
        ValueError: If pyarrow (the extra ``tables``) is absent or the file cannot be read.
    """
    pa, _ = import_pyarrow(f"reading {path.name}")
    with open_parquet(path) as file:
        schema = file.schema_arrow
        check_header(tuple(schema.names), path)
        kinds = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal
        numeric = [field.name for field in schema if any(is_kind(field.type) for is_kind in kinds)]
        rows = file.metadata.num_rows
        # As they are stored and as float64; a run of equal values takes next to nothing in the file.
        check_fits(16 * rows * len(numeric), str(path), "give a smaller part of it")
        table = read_columns(file, numeric, path)
    columns: dict[str, NDArray[Any] | None] = dict.fromkeys(schema.names)
    for name in numeric:
        columns[name] = table.column(name).cast(pa.float64(), safe=False).to_numpy()
    return _table(columns, rows, path)


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """An open ``pyarrow.parquet.ParquetFile``, of which nothing but its metadata has been read.

    Raises:
        ValueError: If pyarrow (the extra ``tables``) is absent or the file cannot be read, also within the block.
    """
    pa, parquet = import_pyarrow(f"reading {path.name}")
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows < 0:
                raise ValueError(f"{path} is damaged: it has {file.metadata.num_rows} rows")
            yield file
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({one_line(error)})") from None


def read_columns(file: Any, names: list[str], path: Path) -> Any:
    """The table of some columns, each with as many rows as the file's metadata promise.

    Args:
        file: As :func:`open_parquet` gives it.
        names: Columns that the schema has once.
        path: The file, for messages.

    Raises:
        ValueError: If there are more or fewer rows.
    """
    table = file.read(columns=names)
    if table.num_rows != file.metadata.num_rows or table.column_names != names:
        raise ValueError(
            f"{path} is damaged: it promises {file.metadata.num_rows} rows, {table.num_rows} are in the columns "
            f"{quoted_names(names)}"
        )
    return table


def import_pyarrow(purpose: str) -> tuple[Any, Any]:
    """The modules ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        ValueError: If they are not installed, with the extra that brings them.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{purpose} needs pyarrow: install it with `pip install 'fluvial[tables]'`") from None
    return pyarrow, pyarrow.parquet


def _numbers(cells: list[str], name: str, path: Path) -> NDArray[Any] | None:
    """The column's numbers, NaN where one is missing, or None for a column of text."""
    numbers = [number_of(cell) for cell in cells]
    text = [row for row, number in enumerate(numbers, start=1) if number is None]
    missing = sum(cell.strip().lower() in NO_VALUE for cell in cells)
    if text and len(text) + missing == len(cells):
        return None
    if text:
        raise ValueError(
            f"{path}: column {quoted(name)} mixes numbers and text (row {text[0]}: {quoted(cells[text[0] - 1])}); "
            "make it numeric or remove it"
        )
    return np.array(numbers, dtype=np.float64)


def _table(columns: dict[str, NDArray[Any] | None], rows: int, path: Path) -> RawTable:
    if rows == 0:
        raise ValueError(f"{path} has a header but no rows")
    numeric = {name: column for name, column in columns.items() if column is not None}
    if not numeric:
        raise ValueError(f"{path} has no numeric column among {quoted_names(columns)}")
    dropped = tuple(name for name in columns if name not in numeric)
    return RawTable(tuple(numeric), np.stack(list(numeric.values()), axis=1), dropped)


def _check_cells(raw: RawTable, path: Path) -> None:
    bad = ~np.isfinite(raw.values)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        column = raw.columns[int(bad[rows[0]].argmax())]
        raise ValueError(
            f"{path}: {len(rows)} of {len(bad)} rows hold missing, NaN or infinite values, the first is row "
            f"{rows[0] + 1} in column {quoted(column)}"
        )
