"""Files that cannot be read: whether the file is at fault, which is damage, or who may read it and the disk."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Reading fails with these where the file itself is at fault: gone, another kind of thing, or on a bad sector.
_DAMAGE = frozenset({errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EIO, errno.EINVAL})


def size_of(file: Path) -> int:
    """Size of an ordinary file: a pipe or a device in its place would be read for ever."""
    found = file.stat()
    if not file.is_file():
        raise ValueError(f"{file} is not a file")
    return found.st_size


def read_whole(file: Path, *, largest: int) -> bytes:
    """Content of a file of at most ``largest`` bytes.

    Raises:
        ValueError: If it is missing, larger, or damaged.
        OSError: If it may not be read, or its disk has gone.
    """
    with damage_named(file):
        if (size := size_of(file)) > largest:
            raise ValueError(f"{file} is damaged: it has {size} bytes, expected at most {largest}")
        return file.read_bytes()


@contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Turns errors of a file that is at fault into ValueError; others, of permissions or of the disk, pass."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{file} is missing") from error
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
