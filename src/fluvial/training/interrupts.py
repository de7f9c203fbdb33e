"""Signals that wait until the training loop has saved; imports no torch."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fluvial.signals import handling


class Interrupted(Exception):
    """Training was stopped by a signal, after a checkpoint was written.

    Args:
        signum: The signal's number; a command exits with 128 + signum.
        step: Updates made.
        checkpoint: The checkpoint folder to resume from.
    """

    def __init__(self, signum: int, step: int, checkpoint: Path) -> None:
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} at step {step}; the state is in {checkpoint}")
        self.signum, self.step, self.checkpoint = signum, step, checkpoint


class CaughtSignal:
    """The first signal that arrived, if any: ``signum`` is None until then."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        # Later signals add nothing: launchers often deliver the same one twice, and the save must end.
        if self.signum is None:
            self.signum = signum


@contextmanager
def deferred_signals() -> Iterator[CaughtSignal]:
    """Hold back SIGINT, SIGTERM and, unless it is ignored, SIGHUP; the body looks at ``signum`` when it can stop.
    Previous handlers come back.

    Outside the main thread Python allows no handlers, and none are set.

    Example:
        >>> with deferred_signals() as caught:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     print(caught.signum == signal.SIGTERM)
        True
    """
    caught, signals = CaughtSignal(), [signal.SIGINT, signal.SIGTERM]
    # A terminal that was closed sends it; nohup has it ignored, and so it stays.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    with handling(caught._handle, *signals):
        yield caught
