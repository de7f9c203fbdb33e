"""Where commands may write, and how: refused early, assembled aside, renamed into place.

A failure never damages what was already written: a file or folder is made beside its final name first.
"""

import contextlib
import errno
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

SAMPLE_NAME = re.compile(r"\d{6,}\.png")


def check_writable(path: Path) -> None:
    """Raises ValueError unless ``path`` could be created, by a file that is made and removed in its nearest parent."""
    parent = path.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise ValueError(f"cannot write {str(path)!r}: {str(parent)!r} is a file, not a folder")
    try:
        # Only an attempt tells: the administrator passes every test of permissions, on a read-only disk as well.
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error.strerror} in {str(parent)!r}") from error


def check_output(path: Path, overwrite: bool, *, folder: bool = False) -> None:
    """Raises ValueError unless ``path`` may be written as a file or a folder.

    A folder is only replaced by a folder, and only if it holds nothing but samples.

    Raises:
        OSError: If links lead from ``path`` to one another in a circle.
    """
    check_writable(path)
    resolved(path)
    if path.is_dir():
        names = [child.name for child in path.iterdir()]
        foreign = [name for name in names if not SAMPLE_NAME.fullmatch(name)]
        if foreign or not folder:
            what = f"it holds {foreign[0]!r}" if foreign else "it is a folder"
            raise ValueError(f"--out {str(path)!r} cannot be replaced by samples: {what}; choose another name")
        if not names:
            return
    if path.exists() and not overwrite:
        raise ValueError(f"--out {str(path)!r} already exists: choose another name or give --overwrite")


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path of the same name and suffix to write a file or folder to; the end of the block renames it to ``path``.

    After an error, what was written is removed and ``path`` is as it was. A link stays, and what it leads to is
    replaced.

    Raises:
        OSError: If the disk refuses it; ``path`` is named.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with written_aside(folder / "a.txt") as aside:
        ...     _ = aside.write_text("whole")
        >>> (folder / "a.txt").read_text()
        'whole'
    """
    target = resolved(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=target.parent) as workshop:
            aside = Path(workshop) / path.name
            yield aside
            if target.is_dir():
                target.rename(Path(workshop) / "replaced")
            aside.replace(target)
    except OSError as error:
        raise OSError(error.errno, f"not written ({error.strerror or error})", str(path)) from error


def resolved(path: Path) -> Path:
    """Where a path leads to, links followed.

    Raises:
        OSError: If links lead to one another in a circle; ``path`` is named.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a").symlink_to("b")
        >>> (folder / "b").symlink_to("a")
        >>> resolved(folder / "a")
        Traceback (most recent call last):
        OSError: [Errno 40] its links lead to one another: ...
    """
    try:
        return path.resolve()
    except RuntimeError:  # OSError from Python 3.13 on
        raise OSError(errno.ELOOP, "its links lead to one another", str(path)) from None


def size_on_disk(folder: Path) -> int:
    """Bytes in all files below ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
