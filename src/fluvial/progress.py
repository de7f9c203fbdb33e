"""What a long computation reports while it runs.

Library functions take ``progress: ProgressCallback | None`` and call it; they never print. The command line renders it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One report from a running task.

    Args:
        task: What is running, in a few words, such as ``"train cfm"``.
        step: Units finished so far.
        total: Units in all.
        values: Named figures to show beside the bar, such as ``{"loss": 0.31}``.
        part: Which part of the task is under way, where it has parts.

    Example:
        >>> Progress("train cfm", 3, 10).fraction
        0.3
    """

    task: str
    step: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)
    part: str = ""

    @property
    def fraction(self) -> float:
        """Share of the work that is done, in [0, 1]."""
        return self.step / self.total if self.total else 1.0


ProgressCallback = Callable[[Progress], None]


def batch_progress(
    progress: ProgressCallback | None, task: str, start: int, count: int, total: int
) -> ProgressCallback | None:
    """Turns the steps that one batch reports into data of all.

    Args:
        progress: Called instead; None for none.
        task: Name of the whole.
        start: Data before the batch.
        count: Data in the batch.
        total: Data in all.

    Example:
        >>> batch_progress(print, "sample", 10, 10, 30)(Progress("solve", 1, 2))
        Progress(task='sample', step=15, total=30, values={}, part='')
    """
    if progress is None:
        return None
    return lambda report: progress(Progress(task, int(start + count * min(report.fraction, 1.0)), total))
