"""One process at a time trains in a run folder; imports no torch.

The lock is the operating system's, on an open descriptor: it ends with the process however that ends, whatever
other processes that one has started, and the file that stays behind means nothing. Where there are no such locks,
none is taken.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fluvial.training.folders import LOCK_FILE, make_run_folder

# Descriptors that hold a lock in this process.
_held: set[int] = set()


def _let_go() -> None:
    # A forked child, a data worker for one, shares the lock: it would hold it beyond its parent's end.
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run folder, made if need be, for this process.

    Raises:
        ValueError: If another process holds it, or it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run, run_lock(Path(run)), run_lock(Path(run)):
        ...     pass
        Traceback (most recent call last):
        ValueError: another process is training in ...
    """
    make_run_folder(run)
    try:
        # Not inherited by programs that this process starts, which would hold the lock beyond its end.
        descriptor = os.open(run / LOCK_FILE, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        raise ValueError(f"{run / LOCK_FILE} cannot be written: {error.strerror}") from error
    _held.add(descriptor)
    try:
        _lock(descriptor, run)
        yield
    finally:
        if descriptor in _held:  # a child has let go of it, and the number may be another file's by now
            _held.discard(descriptor)
            os.close(descriptor)


def _lock(descriptor: int, run: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"another process is training in {run}; wait for it, or give another --out") from error
    except OSError:
        return  # a file system without locks
