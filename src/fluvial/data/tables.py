"""Tables: the numeric columns of a CSV or Parquet file, each brought to mean 0 and standard deviation 1.

A column is numeric if each of its cells is a number and text if none is. Text is left out and listed in
``dataset.table.dropped``; a column that mixes both is an error. Means and deviations are those of the
training data, so that nothing of the held-out rows enters the model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from fluvial.data.csv_text import read_cells
from fluvial.data.dataset import Dataset
from fluvial.data.splits import split_indices
from fluvial.data.standardization import Standardization

_NO_VALUE = {"", "na", "n/a", "nan", "null", "none"}


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
    _check_header(header, path)
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
    pa, parquet = import_pyarrow(f"reading {path.name}")
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({error})") from None
    _check_header(tuple(table.column_names), path)
    kinds = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal
    columns: dict[str, NDArray[Any] | None] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        numeric = any(is_kind(column.type) for is_kind in kinds)
        columns[name] = column.cast(pa.float64(), safe=False).to_numpy() if numeric else None
    return _table(columns, table.num_rows, path)


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


def _check_header(header: tuple[str, ...], path: Path) -> None:
    if all(_number(name) is not None for name in header):
        raise ValueError(f"{path} has no header: its first line holds numbers, expected the names of the columns")
    if len(header) == 1 and (found := [c for c in ";\t|" if c in header[0]]):
        raise ValueError(f"{path} is separated by {found[0]!r}, expected commas")
    if "" in header:
        raise ValueError(f"{path}: column {header.index('') + 1} has no name; name it, or remove it if it is an index")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has columns of the same name: {', '.join(map(repr, twice))}")


def _number(cell: str) -> float | None:
    """The number that a cell holds, NaN for a missing one, None for text."""
    if cell.strip().lower() in _NO_VALUE:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def _numbers(cells: list[str], name: str, path: Path) -> NDArray[Any] | None:
    """The column's numbers, NaN where one is missing, or None for a column of text."""
    numbers = [_number(cell) for cell in cells]
    text = [row for row, number in enumerate(numbers, start=1) if number is None]
    missing = sum(cell.strip().lower() in _NO_VALUE for cell in cells)
    if text and len(text) + missing == len(cells):
        return None
    if text:
        raise ValueError(
            f"{path}: column {name!r} mixes numbers and text (row {text[0]}: {cells[text[0] - 1]!r}); "
            "make it numeric or remove it"
        )
    return np.array(numbers, dtype=np.float64)


def _table(columns: dict[str, NDArray[Any] | None], rows: int, path: Path) -> RawTable:
    if rows == 0:
        raise ValueError(f"{path} has a header but no rows")
    numeric = {name: column for name, column in columns.items() if column is not None}
    if not numeric:
        raise ValueError(f"{path} has no numeric column among {', '.join(map(repr, columns))}")
    dropped = tuple(name for name in columns if name not in numeric)
    return RawTable(tuple(numeric), np.stack(list(numeric.values()), axis=1), dropped)


def _check_cells(raw: RawTable, path: Path) -> None:
    bad = ~np.isfinite(raw.values)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        column = raw.columns[int(bad[rows[0]].argmax())]
        raise ValueError(
            f"{path}: {len(rows)} of {len(bad)} rows hold missing, NaN or infinite values, the first is row "
            f"{rows[0] + 1} in column {column!r}"
        )
