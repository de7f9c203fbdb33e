"""Handlers of signals that are there for a while; imports no torch."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers


@contextmanager
def handling(handler: Handler, *signums: int) -> Iterator[None]:
    """Inside, signals go to a handler; afterwards the ones from before are back.

    Outside the main thread Python allows no handlers, and none are set.

    Example:
        >>> with handling(lambda signum, frame: print(signum == signal.SIGTERM), signal.SIGTERM):
        ...     signal.raise_signal(signal.SIGTERM)
        True
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, before in previous.items():
            # None stands for a handler that was not set from Python, which cannot be put back.
            signal.signal(signum, signal.SIG_DFL if before is None else before)
