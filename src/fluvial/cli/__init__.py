"""The command line, ``fluvial COMMAND``.

Errors are one line on stderr and status 2; after signal n the status is 128 + n. The commands are imported
inside of ``main``, so that a signal that arrives meanwhile is handled as well.
"""

import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fluvial.cli.launched import end_launched, first_speaks, lost_process, say, tell_error
from fluvial.signals import handling

__all__ = ["main"]


class Terminated(BaseException):
    """SIGTERM arrived outside of the training loop, which has its own way to stop."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments after ``fluvial``; None reads them from the process.

    Returns:
        Exit status: 0 success, 2 an error that was explained in one line, 128 + n after signal n.

    Example:
        >>> main(["--version"])
        fluvial 0.1.0
        0
    """
    _open_closed_streams()
    status = _run(list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        end_launched(status)
    return status


def _run(arguments: list[str]) -> int:
    try:
        with _terminable(), first_speaks(), _plain_warnings():
            return _execute(arguments)
    except KeyboardInterrupt:
        say("fluvial: interrupted")
        return 128 + signal.SIGINT
    except Terminated:
        say("fluvial: terminated")
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        # The reader has gone; without this, Python complains once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, TypeError, OSError, ImportError, MemoryError, RuntimeError) as error:
        lost = lost_process(error, arguments)
        line = lost or _explained(error, arguments)
        if not line or os.environ.get("FLUVIAL_DEBUG", "0") not in ("", "0"):
            raise
        tell_error(line, lost=bool(lost))
        return 2


def _execute(arguments: list[str]) -> int:
    from fluvial.cli.commands import execute

    status = execute(arguments)
    sys.stdout.flush()
    return status


def _explained(error: Exception, arguments: Sequence[str]) -> str:
    """One line for an error that is the user's to mend; empty for one that only a traceback explains."""
    from fluvial.cli.errors import one_line, out_of_memory

    line = out_of_memory(error, arguments)
    return line if line or isinstance(error, RuntimeError) else one_line(error)


def _open_closed_streams() -> None:
    # The shell's >&- leaves None here, which print() accepts and flush() does not.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Inside, fluvial's own warnings are one line on stderr each, told every time; others stay as they are."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
            if category.__module__.partition(".")[0] == "fluvial":
                print(f"fluvial: warning: {message}", file=sys.stderr)
            else:
                usual(message, category, *where, **options)

        warnings.showwarning = show
        # The text begins with the number of an update or the name of a file, and is told once for each place.
        warnings.filterwarnings("always", module=r"fluvial\.|jaxtyping")
        yield


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM raises ``Terminated``, so that what is half written is removed; later ones are ignored."""

    def stop(signum: int, _frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_IGN)
        raise Terminated

    with handling(stop, signal.SIGTERM):
        yield
