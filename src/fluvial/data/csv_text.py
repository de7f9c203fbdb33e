"""Comma-separated text, as every reader of it opens it. Imports no torch."""

import csv
from pathlib import Path


def read_cells(path: Path) -> list[list[str]]:
    """Lines of a comma-separated file in UTF-8, with or without a byte order mark; empty lines are left out.

    Raises:
        ValueError: If the file is not such text, or has no line; the file is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no comma-separated text in UTF-8 ({error})") from None
    if not rows:
        raise ValueError(f"{path} is empty; expected a header and rows")
    return rows
