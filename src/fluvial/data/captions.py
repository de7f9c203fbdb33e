"""Captions of a folder's pictures: a CSV file with the columns ``file`` and ``caption``. Imports no torch.

``file`` is the picture's path relative to the folder, with forward slashes; each picture has exactly one caption.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fluvial.data.csv_text import read_cells
from fluvial.data.pictures import picture_names
from fluvial.data.quoting import LONGEST, quoted

COLUMNS = ("file", "caption")
_COMPARED = 10_000  # names among which a near one is looked for


def read_captions(path: Path, folder: Path) -> tuple[str, ...]:
    """Captions of the pictures of ``folder:PATH``, in the order of the data set that is read from it.

    Args:
        path: A comma-separated file in UTF-8 with the header ``file,caption`` (in either order).
        folder: The folder of pictures.

    Returns:
        One caption for each picture, not empty.

    Raises:
        ValueError: If there is no such file, the header is another, a picture has no caption, an empty one or two, or
            a caption's picture is not there: how many, and the first of them.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a.png", "b.png"):
        ...     Image.new("L", (2, 2)).save(folder / name)
        >>> _ = (folder / "captions.csv").write_text("file,caption\\nb.png,a bee\\na.png,an ant\\n")
        >>> read_captions(folder / "captions.csv", folder)
        ('an ant', 'a bee')
    """
    if not path.is_file():
        raise ValueError(f"captions {str(path)!r} {'is no file' if path.exists() else 'does not exist'}")
    header, *rows = read_cells(path)
    order = _order(tuple(name.strip() for name in header), path)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(COLUMNS):
            raise ValueError(f"{path}: row {number} has {len(row)} cells, expected 2; put commas in quotes")
    files = [PurePosixPath(row[order[0]].strip()).as_posix() for row in rows]
    captions = [row[order[1]].strip() for row in rows]
    names = picture_names(folder)
    _check_files(files, names, path, folder)
    empty = [number for number, caption in enumerate(captions, start=1) if not caption]
    if empty:
        raise ValueError(f"{path}: {len(empty)} of {len(rows)} captions are empty, the first is in row {empty[0]}")
    found = dict(zip(files, captions, strict=True))
    return tuple(found[name] for name in names)


def _order(header: tuple[str, ...], path: Path) -> tuple[int, int]:
    """Where the two columns stand."""
    expected = "expected the header file,caption"
    for name in header:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name.lower()[:LONGEST], COLUMNS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{path} has an unknown column {quoted(name)}{hint}; {expected}")
    if sorted(header) != sorted(COLUMNS):
        raise ValueError(f"{path} has the header {','.join(header)[:LONGEST]}; {expected}")
    return header.index("file"), header.index("caption")


def _check_files(files: Sequence[str], names: Sequence[str], path: Path, folder: Path) -> None:
    twice = [name for name, count in Counter(files).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: {len(twice)} files have more than one caption, the first is {quoted(twice[0])}")
    known = set(names)
    absent = [name for name in files if name not in known]
    if absent:
        near = difflib.get_close_matches(absent[0][:LONGEST], names[:_COMPARED], n=1)
        hint = f" (did you mean {quoted(near[0])}?)" if near else ""
        raise ValueError(
            f"{path}: {len(absent)} of {len(files)} files are no images in {str(folder)!r}, "
            f"the first is {quoted(absent[0])}{hint}; paths are relative to that folder"
        )
    captioned = set(files)
    bare = [name for name in names if name not in captioned]
    if bare:
        raise ValueError(f"{path}: {len(bare)} of {len(names)} images have no caption, the first is {quoted(bare[0])}")
