"""What a training tells while it runs: lines of metrics, progress, and samples drawn on the way.

Of several processes the first one tells; the others take part where a value or a net is divided among all.
"""

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fluvial.data import Dataset
from fluvial.progress import Progress, ProgressCallback
from fluvial.training.build import build_path
from fluvial.training.config import TrainConfig
from fluvial.training.consistency import inconsistency
from fluvial.training.logs import MetricsLog
from fluvial.training.previews import write_preview
from fluvial.training.state import TrainState


class Reporter:
    """Tells of a training, as a context that closes its files.

    Args:
        config: The run's config.
        run: The run folder.
        state: What is trained.
        train: Its data.
        progress: Called with each line of metrics.
    """

    def __init__(
        self, config: TrainConfig, run: Path, state: TrainState, train: Dataset, progress: ProgressCallback | None
    ) -> None:
        self._config, self._run, self._state, self._train = config, run, state, train
        self._progress, self._clock, self._files = progress, _Clock(state.step), ExitStack()
        self._log: MetricsLog | None = None

    def __enter__(self) -> "Reporter":
        if self._state.ranks.first:
            self._log = self._files.enter_context(MetricsLog(self._run, self._state.step, self._config.tensorboard))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def report(self, lr: float) -> None:
        """Means over the updates since the last report, as a line of metrics and as progress.

        Args:
            lr: Learning rate of the last update.

        Raises:
            OSError: If the disk refuses the line.
        """
        means, rate = self._state.take_means(), self._clock.rate(self._state.step)
        if self._log is None or not means.updates:
            return
        values = {"loss": means.loss, "grad_norm": means.grad_norm, **means.logs, **self._consistency(), "lr": lr}
        skipped = {"skipped": means.skipped} if means.skipped else {}
        speed = {"examples_per_second": round(rate * self._config.batch_size, 1)}
        self._log.write(self._state.step, {**values, **speed, **skipped})
        if self._progress is not None:
            what = f"train {self._config.objective}"
            told = {"loss": means.loss, "rate": rate}
            self._progress(Progress(what, self._state.step, self._config.steps, told))

    def preview(self) -> None:
        """Samples of the averaged net; one that is divided among processes needs all of them to draw."""
        first = self._state.ranks.first
        if first or self._config.shard:
            write_preview(self._run, self._state.ema.net, self._train, self._state.step, self._config.seed, write=first)

    def sync(self) -> None:
        """Have the lines written so far on the disk, as a checkpoint will be."""
        if self._log is not None:
            self._log.sync()

    def _consistency(self) -> dict[str, float]:
        if self._config.objective != "meanflow":
            return {}
        path, state = build_path(self._config), self._state
        return {
            "inconsistency": inconsistency(state.ema.net, path, self._train, seed=self._config.seed, step=state.step)
        }


class _Clock:
    """Steps per second between calls of ``rate``."""

    def __init__(self, step: int) -> None:
        self._step, self._time = step, time.perf_counter()

    def rate(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return rate
