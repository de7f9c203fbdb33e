"""What the head of a file, or the names in a folder, show of data that cannot be read. Imports no torch.

Commands look before they start: an error that a glance can find comes at once, in the words of those who read the data.
"""

import csv
import itertools
from pathlib import Path

from fluvial.data.csv_text import check_header
from fluvial.data.quoting import one_line
from fluvial.data.specs import Spec, parse_spec


def check_look(spec: str) -> Spec:
    """Takes a spec apart, and refuses data whose head shows that they cannot be read; what it cannot show is left.

    Args:
        spec: As for :func:`fluvial.data.load_dataset`.

    Raises:
        ValueError: As above, or as ``parse_spec`` does.
        TypeError: If ``spec`` is no string.

    Example:
        >>> check_look("moons").kind
        'toy'
    """
    parsed = parse_spec(spec)
    if parsed.path is None:
        return parsed
    if parsed.kind == "array":
        _look_at_arrays(parsed.path)
    elif parsed.kind == "table" and parsed.path.suffix.lower() == ".csv":
        _look_at_table(parsed.path)
    elif parsed.kind == "folder":
        from fluvial.data.pictures import holds_pictures, no_pictures

        if not holds_pictures(parsed.path):
            raise ValueError(no_pictures(parsed.path))
    return parsed


def check_keys(keys: set[str], path: Path) -> None:
    """Refuse an archive of arrays with other keys than those of a data set.

    Raises:
        ValueError: As above.
    """
    if keys - {"x", "y"} or "x" not in keys:
        raise ValueError(f"{path} must have the key 'x' and may have 'y', got {', '.join(map(repr, sorted(keys)))}")


def check_numbers(shape: tuple[int, ...], dtype: object, kind: str) -> None:
    """Refuse an array that holds no data, or no real numbers.

    Args:
        shape: Its shape.
        dtype: Its type, for the message.
        kind: NumPy's letter for the type.

    Raises:
        ValueError: As above.
    """
    if kind not in "fiub":
        raise ValueError(f"values must be real numbers, got dtype {dtype}")
    if not shape or 0 in shape:
        raise ValueError(f"there are no data: the values have shape {shape}")


def _look_at_arrays(path: Path) -> None:
    from fluvial.data.numpy_files import array_heads

    heads = array_heads(path)
    check_keys(set(heads), path)
    head = heads["x"]
    try:
        check_numbers(head.shape, head.dtype, head.dtype.kind)
    except ValueError as error:
        raise ValueError(f"data set {path.name!r}: {error}") from None


def _look_at_table(path: Path) -> None:
    """The header and whether rows follow; a header that is not read so far is left to those who read the whole."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(itertools.islice((row for row in csv.reader(file, strict=True) if row), 2))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no comma-separated text in UTF-8 ({one_line(error)})") from None
    if not rows:
        raise ValueError(f"{path} is empty; expected a header and rows")
    check_header(tuple(name.strip() for name in rows[0]), path)
    if len(rows) == 1:
        raise ValueError(f"{path} has a header but no rows")
