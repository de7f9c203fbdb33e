"""Shows progress on stderr: a live bar on a terminal, a plain line now and then elsewhere, nothing on other ranks."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fluvial.launchers import launched_rank
from fluvial.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

QUIET_SECONDS = 10.0


class Renderer:
    """A context manager that is called with every report; this one shows nothing, for all processes but the first."""

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, report: Progress) -> None:
        return None


def renderer() -> Renderer:
    """The renderer that suits stderr and this process's rank."""
    if launched_rank():
        return Renderer()
    return Bars() if sys.stderr.isatty() else Lines()


def console() -> "Console":
    """A console on stdout; off a terminal it is wide enough not to fold tables."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=120)


def json_text(values: Any) -> str:
    """JSON with null for numbers that are not finite, which the format does not know.

    Example:
        >>> json_text({"loss": float("nan"), "step": 3})
        '{\\n  "loss": null,\\n  "step": 3\\n}'
    """
    return json.dumps(_finite(values), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_value(value: float) -> str:
    """A figure in few characters: ``0.3141``, ``1.2e-05``.

    Example:
        >>> format_value(0.31415), format_value(0.000012), format_value(1500)
        ('0.3141', '1.2e-05', '1500')
    """
    return f"{value:.4g}"


def format_seconds(seconds: float) -> str:
    """A duration as ``m:ss`` or ``h:mm:ss``.

    Example:
        >>> format_seconds(75), format_seconds(3725)
        ('1:15', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rate(report: Progress, steps: int, seconds: float) -> float:
    """Steps per second: the task's own figure if it reports one, else the mean since its first report."""
    return report.values.get("rate", steps / seconds if seconds > 0 else 0.0)


def _values(report: Progress) -> str:
    values = [f"{name} {format_value(value)}" for name, value in report.values.items() if name != "rate"]
    return "  ".join([report.part, *values] if report.part else values)


class Lines(Renderer):
    """One plain line per tenth of a task, at most one a second, and at least one in ten seconds; the last step always.

    Args:
        clock: Seconds from a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._task = ""
        self._first = (0, 0.0)
        self._tenth = 0
        self._last = 0.0

    def __call__(self, report: Progress) -> None:
        now = self._clock()
        if report.task != self._task:
            self._task, self._first, self._tenth, self._last = report.task, (report.step, now), 0, now
        tenth = int(10 * report.fraction)
        finished = report.step >= report.total
        due = now - self._last >= (1.0 if tenth > self._tenth else QUIET_SECONDS)
        if due or finished:
            self._tenth, self._last = tenth, now
            with contextlib.suppress(BrokenPipeError):  # whoever read it has gone; the work goes on
                print(self._line(report, now), file=sys.stderr, flush=True)

    def _line(self, report: Progress, now: float) -> str:
        steps, seconds = report.step - self._first[0], now - self._first[1]
        parts = [report.task, f"{report.step}/{report.total}", _values(report)]
        rate = _rate(report, steps, seconds)
        if rate > 0:
            left = (report.total - report.step) / rate
            parts.append(f"{format_value(rate)}/s")
            parts.append(f"{format_seconds(left)} left" if left > 0 else f"took {format_seconds(seconds)}")
        return "  ".join(part for part in parts if part)


class Bars(Renderer):
    """Live bars, one per task: step of total, figures such as the loss, rate, and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TextColumn("{task.fields[rate]}", style="dim"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, tuple[TaskID, int, float]] = {}

    def __enter__(self) -> "Renderer":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, report: Progress) -> None:
        now = time.monotonic()
        if report.task not in self._tasks:
            bar = self._bars.add_task(report.task, total=report.total, completed=report.step, values="", rate="")
            self._tasks[report.task] = (bar, report.step, now)
        number, first, start = self._tasks[report.task]
        steps, seconds = report.step - first, now - start
        rate = f"{format_value(_rate(report, steps, seconds))}/s"
        self._bars.update(number, completed=report.step, values=_values(report), rate=rate)
