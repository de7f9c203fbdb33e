"""Writing small text files: flat TOML tables of scalars, and files that are replaced in one step."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

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


def write_text(file: Path, text: str) -> None:
    """Replace a file's text in one step: a reader, or a crash, sees the old text or the new one.

    Raises:
        OSError: If it cannot be written (a full disk); the old text is as it was.
    """
    partial = file.with_name(f".partial-{file.name}")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"not written ({error.strerror})", str(file)) from error
