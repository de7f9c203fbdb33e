"""What Pillow says of damaged pictures, told as one error that names the file; its warnings are not told at all."""

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluvial.data.quoting import one_line

# Pillow's readers were written for whole files; on damaged ones they raise what they come across.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, TypeError, AttributeError,
    NotImplementedError, struct.error, zlib.error,
)  # fmt: skip


class _Quiet:
    """Inside, Pillow warns of nothing: what it doubts is damaged or does not matter. Threads may enter it together."""

    def __init__(self) -> None:
        self._lock, self._inside, self._kept = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        # The filters are those of all threads: the first to enter sets them, and the last to leave sets them back.
        with self._lock:
            if self._inside == 0:
                self._kept = warnings.catch_warnings()
                self._kept.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._kept.__exit__(None, None, None)


QUIET = _Quiet()
"""A context that threads may enter together, in which Pillow warns of nothing."""


@contextmanager
def naming_damage(name: Path | str) -> Iterator[None]:
    """Turns what Pillow raises on a damaged file into one error that names the file."""
    from PIL.Image import DecompressionBombError

    try:
        yield
    except MemoryError:
        raise ValueError(f"{name} is damaged or takes more memory than there is") from None
    except (*_DAMAGE, DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's word, not Pillow's
            raise ValueError(f"{name} cannot be read: {error.strerror}") from None
        raise ValueError(f"{name} is damaged or no image ({one_line(error)})") from None
