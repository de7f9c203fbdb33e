"""What a run writes while it trains: ``metrics.jsonl`` always, TensorBoard events when asked."""

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fluvial.training.toml import write_text

METRICS_FILE = "metrics.jsonl"


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Lines of ``run/metrics.jsonl`` in order; a last line cut short by a crash is left out.

    Each has ``step`` (updates made), ``loss`` and ``grad_norm`` (means since the line before), ``lr`` (of the
    last update) and ``examples_per_second``.

    Raises:
        ValueError: If a line other than the last does not hold such numbers.
    """
    file = run / METRICS_FILE
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    rows: list[dict[str, float]] = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise ValueError(f"{file} is damaged at line {number}: {line[:40]!r}")
    return rows


def _parse(line: str) -> dict[str, float] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(row, dict) and type(row.get("step")) is int and "loss" in row
    return row if known and all(_is_number(value) for value in row.values()) else None


def _is_number(value: Any) -> bool:
    # Python reads whole numbers of any size, which no float holds.
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


class MetricsLog:
    """Appends figures to a run's metrics, from a given step on; what was written beyond it is cut.

    Args:
        run: The run folder.
        step: Updates already made.
        tensorboard: Also write TensorBoard events to ``run/tensorboard``.

    Raises:
        ValueError: If TensorBoard is asked for and not installed.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool) -> None:
        kept = [row for row in read_metrics(run) if row["step"] <= step]
        write_text(run / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in kept))
        # Unbuffered: readers see a line at once, and nothing is left to be written on closing.
        self._stream = open(run / METRICS_FILE, "ab", buffering=0)  # noqa: SIM115 (closed by __exit__)
        self._events = _tensorboard_writer(run / "tensorboard", step) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line, visible to readers at once.

        Raises:
            OSError: If the disk refuses it, or has gone; the lines before it are as they were.
        """
        try:
            self._append((json.dumps({"step": step, **values}) + "\n").encode())
            if self._events is not None:
                for name, value in values.items():
                    self._events.add_scalar(f"train/{name}", value, step)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(error.errno, f"not written ({reason})", self._stream.name) from error

    def _append(self, line: bytes) -> None:
        file = os.fstat(self._stream.fileno())
        # A file that was removed, or whose disk has gone, takes lines that nobody will read.
        if not os.path.samestat(file, os.stat(self._stream.name)):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        rest = memoryview(line)
        try:
            while rest:  # a disk that is nearly full takes a part of it
                rest = rest[self._stream.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._stream.fileno(), file.st_size)
            raise

    def sync(self) -> None:
        """Wait until the lines are on the disk, so that a power cut loses none of which a checkpoint was made.

        Raises:
            OSError: If the disk refuses it.
        """
        try:
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise OSError(error.errno, f"not written ({error.strerror})", self._stream.name) from error

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if self._events is not None:
            self._events.close()


def check_tensorboard() -> None:
    """Check that TensorBoard can be imported.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401 (only to learn whether it is there)
    except ImportError as error:
        raise ValueError("tensorboard=True needs the extra 'track': pip install 'fluvial[track]'") from error


def _tensorboard_writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
