"""Small text files: flat TOML tables of scalars, read and written, and files that are replaced in one step."""

import contextlib
import difflib
import errno
import json
import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fluvial.data.json_text import read_text
from fluvial.data.quoting import one_line

LARGEST = 2**16
"""Largest file that is read, in bytes: of a long one with many dots in its keys, the time grows as the square."""

Scalar = str | bool | int | float | None


def dump_toml(values: Mapping[str, Scalar]) -> str:
    r"""TOML text of a flat table; None is left out, as TOML has no null.

    Example:
        >>> print(dump_toml({"name": "a\n", "on": True, "lr": 1e-5, "size": None}), end="")
        name = "a\n"
        on = true
        lr = 1e-05
    """
    return "".join(f"{key} = {_dump_scalar(value)}\n" for key, value in values.items() if value is not None)


def _dump_scalar(value: str | bool | int | float) -> str:
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL; pairs of surrogate escapes, which TOML lacks, are avoided.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def read_toml(file: Path) -> dict[str, Any]:
    """All keys of a run's ``config.toml``.

    Raises:
        ValueError: If the folder or the file is missing or unreadable.
    """
    run = file.parent
    try:
        is_folder = run.is_dir()
    except OSError as error:
        raise ValueError(f"{one_line(run)} is not a run folder: {error.strerror or error}") from None
    if not is_folder:
        raise ValueError(f"{one_line(run)} is not a run folder: there is no such folder")
    try:
        return tomllib.loads(read_text(file, LARGEST))
    except FileNotFoundError as error:
        raise ValueError(f"{run} is not a run folder: it has no {file.name}") from error
    except RecursionError:
        raise ValueError(f"{file} cannot be read: it is nested too deeply") from None
    except (OSError, ValueError) as error:  # ValueError also of a number of too many digits
        raise ValueError(f"{file} cannot be read: {one_line(error)}") from error


def check_keys(values: Mapping[str, Any], known: Collection[str], file: Path) -> None:
    """Refuse keys that are none of the known ones.

    Raises:
        ValueError: If there is one; the nearest known key is named.
    """
    for key in sorted(values.keys() - set(known)):
        close = difflib.get_close_matches(key, list(known), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{file} has an unknown key {key!r}{hint}")


def write_text(file: Path, text: str) -> None:
    """Replace a file's text in one step: a reader, or a crash, sees the old text or the new one.

    Raises:
        OSError: If it cannot be written (a full disk); the old text is as it was.
    """
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Replace a file's content in one step, as :func:`write_text` does.

    Raises:
        OSError: If it cannot be written; the old content is as it was.
    """
    partial = file.with_name(f".partial-{file.name}")
    try:
        write_synced(partial, content)
        os.replace(partial, file)
        sync_folder(file.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the disk that refused the file may refuse this as well
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"not written ({error.strerror})", str(file)) from error


def write_synced(file: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk, not only in the machine's memory."""
    with open(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder, renames among them, are on the disk."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and renames are journalled
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)
