"""What a run folder held when a training was launched in it, and what that training has done since."""

import os
from pathlib import Path
from types import TracebackType

from fluvial.training.checkpoints import list_checkpoints
from fluvial.training.logs import METRICS_FILE, read_metrics


class Launch:
    """Tells what a training writes from what earlier ones have left behind; made before the training begins.

    What is there is held open until ``close``, so that no new file or folder can get its inode.

    Args:
        run: The run folder; it need not exist.
    """

    def __init__(self, run: Path) -> None:
        self._run, found = run, list_checkpoints(run)
        self.checkpoint = int(found[-1].name.removeprefix("step-")) if found else None
        """Step of the newest checkpoint that there is to continue from, if any."""
        left = [file for file in (*self._half_written(), run / METRICS_FILE) if file.exists()]
        self._held = [os.open(file, os.O_RDONLY) for file in left]
        self._old = {os.fstat(descriptor).st_ino for descriptor in self._held}

    def __enter__(self) -> "Launch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._held:
            os.close(descriptor)

    def writes(self) -> bool:
        """Whether a checkpoint of this launch is half-written."""
        return any(self._is_new(folder) for folder in self._half_written())

    def logged(self) -> int:
        """Step of the last update that this launch has logged; 0 before its first."""
        # The first thing that a training does with its log is to replace it, cut to the checkpoint's step.
        if not self._is_new(self._run / METRICS_FILE):
            return 0
        rows = read_metrics(self._run)
        last = int(rows[-1]["step"]) if rows else 0
        return last if last > (self.checkpoint or 0) else 0

    def _half_written(self) -> list[Path]:
        return list((self._run / "checkpoints").glob(".partial-step-*"))

    def _is_new(self, file: Path) -> bool:
        try:
            return file.stat().st_ino not in self._old
        except FileNotFoundError:
            return False
