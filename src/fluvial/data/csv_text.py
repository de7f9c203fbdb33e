"""Comma-separated text, as every reader of it opens it. Imports no torch."""

import csv
import os
import stat
from collections import Counter
from pathlib import Path

from fluvial.data.memory import check_fits
from fluvial.data.quoting import one_line, quoted_names

NO_VALUE = {"", "na", "n/a", "nan", "null", "none"}
"""What a cell without a value holds, in small letters."""
_GROWTH = 32
"""Bytes of memory that a byte of text takes as cells of two characters each, ten to a row (measured: 31)."""


def read_cells(path: Path) -> list[list[str]]:
    """Lines of a comma-separated file in UTF-8, with or without a byte order mark; empty lines are left out.

    Raises:
        ValueError: If the file is not such text, has no line, or does not fit into memory; the file is named.
    """
    try:
        # A pipe would be waited for, and a device such as /dev/zero never ends.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path} is no file")
        with path.open(newline="", encoding="utf-8-sig") as file:
            check_fits(_GROWTH * os.fstat(file.fileno()).st_size, str(path), "give a smaller part of it")
            rows = [row for row in csv.reader(file, strict=True) if row]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no comma-separated text in UTF-8 ({one_line(error)})") from None
    if not rows:
        raise ValueError(f"{path} is empty; expected a header and rows")
    return rows


def check_header(header: tuple[str, ...], path: Path) -> None:
    """Refuse a first line that holds numbers, one name twice, none for a column, or another separator.

    Raises:
        ValueError: As above.
    """
    if all(number_of(name) is not None for name in header):
        raise ValueError(f"{path} has no header: its first line holds numbers, expected the names of the columns")
    if len(header) == 1 and (found := [c for c in ";\t|" if c in header[0]]):
        raise ValueError(f"{path} is separated by {found[0]!r}, expected commas")
    if "" in header:
        raise ValueError(f"{path}: column {header.index('') + 1} has no name; name it, or remove it if it is an index")
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise ValueError(f"{path} has columns of the same name: {quoted_names(twice)}")


def number_of(cell: str) -> float | None:
    """The number that a cell holds, NaN for a missing one, None for text."""
    if cell.strip().lower() in NO_VALUE:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None
