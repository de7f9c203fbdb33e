"""What tells that a file has changed since it was opened: its size and its time of change."""

import os

Stamp = tuple[int, int]


def stamp_of(file: str | os.PathLike[str] | int) -> Stamp:
    """Size in bytes and time of change in nanoseconds of a file, given by its path or its descriptor.

    Raises:
        OSError: If there is no such file, or its disk has gone.

    Example:
        >>> stamp_of(os.devnull) == stamp_of(os.devnull)
        True
    """
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns
