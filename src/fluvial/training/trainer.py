"""The training loop: a config and a folder in, a run that can be continued bit for bit out.

Every draw is a function of the seed and the step, and so are the data order and the learning rate; a
checkpoint therefore needs the weights, their average, the optimiser's moments and the step, nothing else.
"""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from fluvial.data import Dataset
from fluvial.progress import Progress, ProgressCallback
from fluvial.training.build import build_path, net_spec, read_net_spec
from fluvial.training.changes import check_unchanged
from fluvial.training.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    remove_partial_checkpoints,
    save_checkpoint,
    step_folder,
)
from fluvial.training.conditions import caption_vectors
from fluvial.training.config import TrainConfig, read_config, read_run_table, write_config
from fluvial.training.consistency import inconsistency
from fluvial.training.folders import check_run_folder, prepare_run_folder
from fluvial.training.interrupts import CaughtSignal, Interrupted, deferred_signals
from fluvial.training.lock import run_lock
from fluvial.training.logs import MetricsLog, check_tensorboard, read_metrics
from fluvial.training.previews import write_preview
from fluvial.training.source import absolute_data, check_same_data, describe_data, load_source
from fluvial.training.state import TrainState


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Args:
        run: Its folder.
        step: Updates made.
        checkpoint: Folder of the last checkpoint.
        loss: Mean loss of the last line of metrics; NaN if a finished run has lost them.
        net: The averaged net, in evaluation mode.
    """

    run: Path
    step: int
    checkpoint: Path
    loss: float
    net: nn.Module


class Trainer:
    """Trains one net as a config says, in a run folder.

    Args:
        config: What to train.
        run: The run folder.
        accelerator: Where to train; a new one with the config's precision by default.
        progress: Called every ``log_every`` updates with the mean loss and the updates per second.

    Raises:
        TypeError: If a field of the config has the wrong type.
        ValueError: If a field of the config has a value that cannot be trained with.

    Example:
        >>> import tempfile
        >>> from fluvial.training import TrainConfig, Trainer
        >>> config = TrainConfig(data="moons", width=8, depth=1, steps=4, batch_size=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Trainer(config, Path(folder) / "run").fit().checkpoint.name
        'step-00000004'
    """

    def __init__(
        self,
        config: TrainConfig,
        run: Path | str,
        *,
        accelerator: Accelerator | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        config.validate()
        # A run works from any directory, not only from the one that it was started in.
        captions = str(Path(config.captions).expanduser().absolute()) if config.captions else ""
        self.config = dataclasses.replace(
            config, data=absolute_data(config.data), captions=captions, encoder=_absolute_encoder(config.encoder)
        )
        self.run = Path(run)
        self.config.check_values()
        self._accelerator, self._progress = accelerator, progress

    def fit(self, resume: bool = False, *, overwrite: bool = False) -> TrainResult:
        """Train to the last step.

        Args:
            resume: Continue the run in the folder from its newest checkpoint, or from the start if it has
                none.
            overwrite: Remove the run that is in the folder, once the new one is known to be possible.

        Raises:
            ValueError: If the folder, the data or the config do not allow it, or the loss is no longer
                finite.
            OSError: If the disk refuses a file.
            Interrupted: If SIGINT or SIGTERM arrived; the state is in a checkpoint.
        """
        if resume:
            check_unchanged(self.config, dataclasses.asdict(read_config(self.run)), self.run)
        else:
            check_run_folder(self.run, overwrite, self.config.data)
        if self.config.tensorboard:
            check_tensorboard()
        train = self._load_data()
        vectors = caption_vectors(self.config, train)
        spec = net_spec(self.config, train, None if vectors is None else vectors.shape[1])
        state = TrainState(self.config, train, spec, self._make_accelerator(), vectors)
        with run_lock(self.run):
            if resume:
                self._restore(state, train)
            else:
                prepare_run_folder(self.run, overwrite, self.config.data)
            write_config(self.config, self.run, data_hash=train.content_hash)
            with deferred_signals() as caught, MetricsLog(self.run, state.step, self.config.tensorboard) as log:
                self._loop(state, train, log, caught)
            checkpoint = self._save(state, train)
            rows = read_metrics(self.run)
        loss = rows[-1]["loss"] if rows else math.nan
        return TrainResult(self.run, state.step, checkpoint, loss, state.ema.net)

    def _loop(self, state: TrainState, train: Dataset, log: MetricsLog, caught: CaughtSignal) -> None:
        config, clock = self.config, _Clock(state.step)
        while state.step < config.steps:
            self._stop_if_asked(caught, state, train)
            lr = state.lr()
            state.update()
            last = state.step == config.steps
            if last or state.step % config.log_every == 0:
                self._report(state, train, log, lr, clock.rate(state.step))
            if last or state.step % config.checkpoint_every == 0:
                self._save(state, train)
            if config.sample_every and state.step % config.sample_every == 0:
                write_preview(self.run, state.ema.net, train, state.step, config.seed)
        self._stop_if_asked(caught, state, train)

    def _stop_if_asked(self, caught: CaughtSignal, state: TrainState, train: Dataset) -> None:
        if caught.signum is not None:
            raise Interrupted(caught.signum, state.step, self._save(state, train))

    def _report(self, state: TrainState, train: Dataset, log: MetricsLog, lr: float, rate: float) -> None:
        means = state.take_means()
        examples = rate * self.config.batch_size
        log.write(
            state.step,
            {
                "loss": means.loss,
                "grad_norm": means.grad_norm,
                **means.logs,
                **self._consistency(state, train),
                "lr": lr,
                "examples_per_second": round(examples, 1),
            },
        )
        if self._progress is not None:
            values = {"loss": means.loss, "rate": rate}
            self._progress(Progress(f"train {self.config.objective}", state.step, self.config.steps, values))

    def _consistency(self, state: TrainState, train: Dataset) -> dict[str, float]:
        if self.config.objective != "meanflow":
            return {}
        path = build_path(self.config)
        found = inconsistency(state.ema.net, path, train, seed=self.config.seed, step=state.step)
        return {"inconsistency": found}

    def _save(self, state: TrainState, train: Dataset) -> Path:
        latest = latest_checkpoint(self.run)
        if latest is not None and latest.name == step_folder(state.step):
            return latest
        state.means()  # a diverged net must not push a good checkpoint out
        values = {
            "config": dataclasses.asdict(self.config),
            "data_hash": train.content_hash,
            "data": describe_data(train),
            **state.values(),
        }
        return save_checkpoint(self.run, state.step, state.tensors(), values, keep=self.config.keep)

    def _load_data(self) -> Dataset:
        train = load_source(self.config).train
        if len(train) < 2:
            raise ValueError(f"training needs at least 2 data, and {self.config.data} has {len(train)} after the split")
        return train

    def _make_accelerator(self) -> Accelerator:
        precision = self.config.precision
        try:
            accelerator = self._accelerator or Accelerator(mixed_precision=precision)
        except ValueError as error:  # Accelerate keeps the first precision of a process
            raise ValueError(f"precision {precision!r} cannot be used in this process: {error}") from error
        if accelerator.mixed_precision != precision:
            raise ValueError(
                f"precision must be the accelerator's mixed_precision {accelerator.mixed_precision!r}, "
                f"got {precision!r}"
            )
        if precision == "fp16" and accelerator.device.type == "cpu":
            raise ValueError("precision 'fp16' needs a GPU; use 'bf16' or 'no' on the CPU")
        if accelerator.num_processes > 1:
            raise ValueError(f"training runs in one process, and was launched in {accelerator.num_processes}")
        return accelerator

    def _restore(self, state: TrainState, train: Dataset) -> None:
        check_same_data(read_run_table(self.run).get("data_hash"), train, self.run)
        remove_partial_checkpoints(self.run)
        folder = latest_checkpoint(self.run)
        if folder is None:
            return
        checkpoint = load_checkpoint(folder)
        check_same_data(checkpoint.state.get("data_hash"), train, folder)
        check_unchanged(self.config, checkpoint.state.get("config"), folder)
        spec = read_net_spec(checkpoint.state.get("net"), folder)
        if spec != state.spec:
            raise ValueError(f"the net has changed: {folder} holds {spec}, the config and data now make {state.spec}")
        state.restore(checkpoint)


def _absolute_encoder(encoder: str) -> str:
    from fluvial.data.text import ENCODER, HUB

    return encoder if encoder == ENCODER or encoder.startswith(HUB) else str(Path(encoder).expanduser().absolute())


class _Clock:
    """Steps per second between calls of ``rate``."""

    def __init__(self, step: int) -> None:
        self._step, self._time = step, time.perf_counter()

    def rate(self, step: int) -> float:
        now = time.perf_counter()
        rate = (step - self._step) / max(now - self._time, 1e-9)
        self._step, self._time = step, now
        return rate
