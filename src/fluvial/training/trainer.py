"""The training loop: a config and a folder in, a run that can be continued bit for bit out.

Every draw is a function of the seed and the step, and so are the data order and the learning rate; a
checkpoint therefore needs the weights, their average, the optimiser's moments and the step, nothing else.
"""

import dataclasses
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from fluvial.data import Dataset
from fluvial.data.homes import expanded
from fluvial.data.specs import can_stream, parse_spec
from fluvial.kinds import checked
from fluvial.progress import ProgressCallback
from fluvial.training.build import net_spec, read_net_spec
from fluvial.training.changes import check_unchanged
from fluvial.training.checkpoints import FOLDER as CHECKPOINTS
from fluvial.training.checkpoints import Checkpoint, save_checkpoint, step_folder
from fluvial.training.conditions import caption_vectors
from fluvial.training.config import TrainConfig, read_config, read_run_table, write_config
from fluvial.training.folders import check_run_folder, prepare_run_folder
from fluvial.training.guard import WATCH_EVERY
from fluvial.training.interrupts import CaughtSignal, Interrupted, deferred_signals
from fluvial.training.launch import make_accelerator
from fluvial.training.lock import run_lock
from fluvial.training.logs import check_tensorboard, read_metrics
from fluvial.training.recovery import load_intact, read_newest, recover_newest
from fluvial.training.reporting import Reporter
from fluvial.training.source import absolute_data, check_same_data, describe_data, load_source
from fluvial.training.state import TrainState
from fluvial.training.watch import Watch


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Args:
        run: Its folder.
        step: Updates made.
        checkpoint: Folder of the last checkpoint.
        loss: Mean loss of the last line of metrics; NaN if a finished run has lost them.
        net: The averaged net, in evaluation mode.
        skipped: Updates that were not made, since their loss or gradient was not finite or leapt.
    """

    run: Path
    step: int
    checkpoint: Path
    loss: float
    net: nn.Module
    skipped: int = 0


@checked
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
        captions = str(expanded(config.captions).absolute()) if config.captions else ""
        self.config = dataclasses.replace(
            config, data=absolute_data(config.data), captions=captions, encoder=_absolute_encoder(config.encoder)
        )
        self.run = Path(run)
        self.config.check_values()
        self._accelerator, self._progress = accelerator, progress
        self._saved: int | None = None

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
        recorded = read_config(self.run) if resume else None
        if recorded is not None:
            check_unchanged(self.config, dataclasses.asdict(recorded), self.run)
        else:
            check_run_folder(self.run, overwrite, self.config.data)
        if self.config.tensorboard:
            check_tensorboard()
        train = self._load_data(self.config.stream if recorded is None else recorded.stream)
        vectors = caption_vectors(self.config, train)
        spec = net_spec(self.config, train, None if vectors is None else vectors.shape[1])
        state = TrainState(self.config, train, spec, make_accelerator(self.config, self._accelerator), vectors)
        state.ranks.wait()  # all have looked at the folder before the first one changes it
        with run_lock(self.run) if state.ranks.first else nullcontext():
            self._prepare(state, train, resume, overwrite)
            reporter = Reporter(self.config, self.run, state, train, self._progress)
            with deferred_signals() as caught, reporter:
                self._loop(state, train, reporter, caught)
            checkpoint = self._save(state, train)
            rows = read_metrics(self.run)
        loss = rows[-1]["loss"] if rows else math.nan
        return TrainResult(self.run, state.step, checkpoint, loss, state.averaged_net(), state.guard.skipped)

    def _prepare(self, state: TrainState, train: Dataset, resume: bool, overwrite: bool) -> None:
        """Make the folder, or continue from it; the first process does, and the others read what it left."""
        ranks, checkpoint = state.ranks, None
        if ranks.first:
            if resume:
                check_same_data(read_run_table(self.run).get("data_hash"), train, self.run)
                checkpoint = recover_newest(self.run)
            else:
                prepare_run_folder(self.run, overwrite, self.config.data)
            write_config(self.config, self.run, data_hash=train.content_hash)
        ranks.wait()
        if resume and not ranks.first:
            checkpoint = read_newest(self.run)
        hashes = [train.content_hash, "" if checkpoint is None else checkpoint.hash]
        for what, value in zip(("data", "checkpoint"), hashes, strict=True):
            if not ranks.alike(int(value[:15] or "0", 16)):
                raise ValueError(f"the processes do not see the same {what}: they must share {self.run} and the data")
        self._restore(state, train, checkpoint)

    def _loop(self, state: TrainState, train: Dataset, reporter: Reporter, caught: CaughtSignal) -> None:
        config = self.config

        def save() -> Path:
            reporter.sync()  # of what a checkpoint was made, the metrics are there
            return self._save(state, train)

        watch = Watch(config, state, save, lambda: self._rollback_target(state.step))
        while state.step < config.steps:
            self._stop_if_asked(caught, state, watch, save)
            lr = state.lr()
            state.update()
            last = state.step == config.steps
            reports, saves = (last or state.step % every == 0 for every in (config.log_every, config.checkpoint_every))
            if reports or saves or state.step % WATCH_EVERY == 0:
                watch.look()
            if reports:
                reporter.report(lr)
            if config.sample_every and state.step % config.sample_every == 0:
                reporter.preview()  # before the checkpoint, after which nobody would draw it again
            if saves:
                save()
        self._stop_if_asked(caught, state, watch, save)

    def _stop_if_asked(self, caught: CaughtSignal, state: TrainState, watch: Watch, save: Callable[[], Path]) -> None:
        signum = caught.signum
        if state.ranks.count > 1:  # all stop at the same step, or the others would wait for ever
            if state.step % WATCH_EVERY and state.step < self.config.steps:
                return
            signum = int(state.ranks.largest(torch.tensor(signum or 0))) or None
        if signum is not None:
            watch.look()
            raise Interrupted(signum, state.step, save())

    def _save(self, state: TrainState, train: Dataset) -> Path:
        """Write the state once; all processes gather it, and the first writes it."""
        folder = self.run / CHECKPOINTS / step_folder(state.step)
        if self._saved == state.step:
            return folder
        values = {
            "config": dataclasses.asdict(self.config),
            "data_hash": train.content_hash,
            "data": describe_data(train),
            **state.values(),
        }
        tensors = state.tensors()
        if state.ranks.first:
            # A rollback must find the regular one, however many interrupts made others.
            every = self.config.checkpoint_every if self.config.on_nan == "rollback" else 0
            keep = self.config.keep
            save_checkpoint(self.run, state.step, tensors, values, keep=keep, every=every, make_run=False)
        state.ranks.wait()
        self._saved = state.step
        return folder

    def _rollback_target(self, step: int) -> Checkpoint | None:
        """The last regular checkpoint before a step, as if no interrupt had made others; None before the first."""
        every = self.config.checkpoint_every
        regular = (step - 1) // every * every
        if regular == 0:
            return None
        folder = self.run / CHECKPOINTS / step_folder(regular)
        try:
            return load_intact(folder)
        except ValueError:  # damaged, or another interval made those that are there
            return read_newest(self.run)

    def _load_data(self, stream: bool | None) -> Dataset:
        """The training data; a run that began with them in their files, or in memory, goes on so."""
        if self.config.stream is None:
            self.config = dataclasses.replace(self.config, stream=stream)
        train = load_source(self.config, self._progress).train
        free = parse_spec(self.config.data).kind in ("array", "folder")  # read in any order, one by one
        if stream is not None and train.streamed != stream and not free:
            raise ValueError(
                f"stream cannot change once training has begun: {self.config.data} is visited in another order where "
                f"it stays in its files, and {self.run} was trained with stream = {stream}"
            )
        self.config = dataclasses.replace(self.config, stream=train.streamed if can_stream(self.config.data) else None)
        if len(train) < 2:
            raise ValueError(f"training needs at least 2 data, and {self.config.data} has {len(train)} after the split")
        return train

    def _restore(self, state: TrainState, train: Dataset, checkpoint: Checkpoint | None) -> None:
        self._saved = None
        if checkpoint is None:
            return
        folder = checkpoint.folder
        check_same_data(checkpoint.state.get("data_hash"), train, folder)
        check_unchanged(self.config, checkpoint.state.get("config"), folder)
        spec = read_net_spec(checkpoint.state.get("net"), folder)
        if spec != state.spec:
            raise ValueError(f"the net has changed: {folder} holds {spec}, the config and data now make {state.spec}")
        state.restore(checkpoint)
        self._saved = checkpoint.step


def _absolute_encoder(encoder: str) -> str:
    from fluvial.data.text import ENCODER, HUB

    return encoder if encoder == ENCODER or encoder.startswith(HUB) else str(expanded(encoder).absolute())
