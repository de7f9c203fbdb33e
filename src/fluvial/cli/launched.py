"""A command that a launcher has started in several processes: which of them speaks, and who tells of an error.

The first process speaks for all. An error that all of them have is told by it alone: the others wait for the launcher,
which ends them when the first has failed. What only one of them has is told by that one, with its rank. Imports no
torch.
"""

import atexit
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from fluvial.cli.errors import one_line
from fluvial.launchers import is_launched, launched_rank
from fluvial.signals import handling

DIVIDED = ("train", "sample", "features")
"""Commands that several processes share."""
PATIENCE = 10.0
"""Seconds that a process gives the launcher to end it, before it tells of an error that may be its own alone."""
_EXCHANGE_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError")
_EXCHANGES = ("gloo", "nccl")
_ENDED = ("closed by peer", "reset by peer", "broken pipe", "remote process", "timed out", "timeout")


def check_divided(command: str) -> None:
    """Refuse a command that several processes would each do as a whole.

    Raises:
        ValueError: If there are several.
    """
    if is_launched() and command not in DIVIDED:
        shared = ", ".join(DIVIDED[:-1]) + f" and {DIVIDED[-1]}"
        raise ValueError(
            f"fluvial {command} runs in one process, and was launched in {os.environ['WORLD_SIZE']}: only {shared} are "
            "divided among processes"
        )


@contextlib.contextmanager
def first_speaks() -> Iterator[None]:
    """Inside, what the other processes write on stdout and stderr goes nowhere."""
    if launched_rank() == 0:
        yield
        return
    quiet = contextlib.redirect_stdout, contextlib.redirect_stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere, quiet[0](nowhere), quiet[1](nowhere):
        yield


def say(text: str) -> None:
    """A line on stderr, from the first process alone."""
    if launched_rank() == 0:
        print(text, file=sys.stderr)


def lost_process(error: BaseException, arguments: Sequence[str]) -> str:
    """A line on an exchange with other processes that failed, most often since one has ended; else empty.

    Example:
        >>> lost_process(RuntimeError("[pair.cc:534] Connection closed by peer"), ["sample"])
        'another process of this job has ended (Connection closed by peer); start the command again'
        >>> lost_process(RuntimeError("NCCL error: Duplicate GPU detected"), ["sample"])
        'the processes of this job cannot exchange tensors (NCCL error: Duplicate GPU detected)'
        >>> lost_process(RuntimeError("shapes differ"), ["train"])
        ''
    """
    text = one_line(error)
    ended = any(sign in text.lower() for sign in _ENDED)
    exchange = type(error).__name__ in _EXCHANGE_ERRORS or any(name in text.lower() for name in _EXCHANGES)
    if not isinstance(error, RuntimeError) or not (exchange or "by peer" in text):
        return ""
    said = re.sub(r"^\[\S+\]\s*", "", text).split(". ")[0][:200]
    if not ended:
        return f"the processes of this job cannot exchange tensors ({said})"
    resume = "fluvial train --resume RUN goes on from the last checkpoint"
    again = resume if list(arguments[:1]) == ["train"] else "start the command again"
    return f"another process of this job has ended ({said}); {again}"


def tell_error(line: str, lost: bool = False) -> None:
    """An error on stderr, once for all processes that have it.

    Args:
        line: The error in one line.
        lost: Whether it is that another process has ended. Then the second process tells it in any case, since the
            first may be the one that has ended.
    """
    rank = launched_rank()
    if rank and _ended_by_launcher() and not (lost and rank == 1):
        return
    print(f"fluvial: error: {f'rank {rank}: ' if rank else ''}{line}", file=sys.stderr, flush=True)


def end_launched(status: int) -> None:
    """End this process if it is one of several, without waiting for threads.

    Those that served the exchange with the others are torn down in an order that now and then aborts the process:
    "terminate called without an active exception", and a signal in place of the status.
    """
    if is_launched():
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _ended_by_launcher() -> bool:
    """Whether SIGTERM arrives within ``PATIENCE`` seconds."""
    if threading.current_thread() is not threading.main_thread():
        return False
    arrived: list[int] = []
    with handling(lambda signum, frame: arrived.append(signum), signal.SIGTERM):
        end = time.monotonic() + PATIENCE
        while not arrived and time.monotonic() < end:
            time.sleep(0.02)
    return bool(arrived)
