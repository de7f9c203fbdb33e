"""JSON files, as every reader of them opens them: of limited size, refused with one error. Imports no torch."""

import json
import os
import stat
from pathlib import Path
from typing import Any

LARGEST = 2**26
"""Largest file that is read, in bytes; what fluvial itself writes is far smaller."""


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Text of a file in UTF-8.

    Args:
        path: The file.
        largest: Bytes that it may have.

    Raises:
        ValueError: If it is no file, larger, or no such text; the file is named.
        OSError: If the system refuses it.
    """
    # A pipe would be waited for, and a device such as /dev/zero never ends.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise ValueError(f"{path} has {size:,} bytes, expected at most {largest:,}")
        try:
            return file.read(largest).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start})") from None


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """The value that a JSON file holds.

    Args:
        path: The file, in UTF-8.
        largest: Bytes that it may have.

    Raises:
        ValueError: If it is no file, larger, or no JSON, or is nested too deeply; the file is named.
        OSError: If the system refuses it.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.json"
        >>> _ = file.write_text('{"seed": 1}')
        >>> read_json(file)
        {'seed': 1}
    """
    text = read_text(path, largest)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error})") from None
    except ValueError:  # Python's limit for the digits of a whole number
        raise ValueError(f"{path} holds a number of too many digits") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
