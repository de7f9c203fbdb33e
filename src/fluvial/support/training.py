"""The meta-training loop: a config and a folder in, a run that can be continued bit for bit out."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fluvial.data.homes import expanded
from fluvial.kinds import checked
from fluvial.nn import SupportNet
from fluvial.progress import Progress, ProgressCallback
from fluvial.support.config import SupportConfig, check_unchanged, read_config, write_config
from fluvial.support.state import MetaState
from fluvial.support.tasks import Family
from fluvial.support.tasks.by_name import family_by_name
from fluvial.training.checkpoints import latest_checkpoint, save_checkpoint, step_folder
from fluvial.training.folders import check_run_folder, prepare_run_folder
from fluvial.training.interrupts import CaughtSignal, Interrupted, deferred_signals
from fluvial.training.lock import run_lock
from fluvial.training.logs import MetricsLog, read_metrics
from fluvial.training.recovery import recover_newest


@dataclass(frozen=True)
class MetaResult:
    """A finished meta-training.

    Args:
        run: Its folder.
        step: Updates made.
        checkpoint: Folder of the last checkpoint.
        loss: Mean loss of the last line of metrics.
        seconds: Time that this call spent.
        net: The averaged net, in evaluation mode.
    """

    run: Path
    step: int
    checkpoint: Path
    loss: float
    seconds: float
    net: SupportNet


@checked
class MetaTrainer:
    """Trains a support-conditioned net as a config says, in a run folder.

    Args:
        config: What to train.
        run: The run folder.
        progress: Called every ``log_every`` updates with the mean loss and the updates per second.

    Raises:
        TypeError: If a field of the config has the wrong type.
        ValueError: If a field of the config has a value that cannot be trained with.

    Example:
        >>> import tempfile
        >>> config = fv.support.SupportConfig(width=8, heads=2, steps=3, batch_size=2, points=8, bank=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fv.support.MetaTrainer(config, Path(folder) / "run").fit().checkpoint.name
        'step-00000003'
    """

    def __init__(self, config: SupportConfig, run: Path | str, *, progress: ProgressCallback | None = None) -> None:
        config.validate()
        # A run works from any directory, not only from the one that it was started in.
        tasks = str(expanded(config.tasks).absolute()) if config.tasks.lower().endswith(".npz") else config.tasks
        self.config, self.run, self._progress = dataclasses.replace(config, tasks=tasks), Path(run), progress

    def fit(self, resume: bool = False, *, overwrite: bool = False) -> MetaResult:
        """Train to the last step.

        Args:
            resume: Continue the run in the folder from its newest intact checkpoint, or from the start if it has
                none.
            overwrite: Remove the run that is in the folder, once the new one is known to be possible.

        Raises:
            ValueError: If the folder or the config do not allow it, or the loss is no longer finite.
            OSError: If the disk refuses a file.
            Interrupted: If SIGINT or SIGTERM arrived; the state is in a checkpoint.

        Warns:
            DamagedCheckpoint: If a newer checkpoint is damaged; it is moved aside.
        """
        start = time.perf_counter()
        if resume:
            check_unchanged(self.config, dataclasses.asdict(read_config(self.run)), self.run)
        else:
            check_run_folder(self.run, overwrite, read=read_config)
        family = family_by_name(self.config.tasks, self.config.dim, m=self.config.m)
        state = MetaState(self.config, family, "cuda" if torch.cuda.is_available() else "cpu")
        with run_lock(self.run):
            if resume:
                self._restore(state, family)
            else:
                prepare_run_folder(self.run, overwrite, read=read_config)
            write_config(self.config, self.run)
            with deferred_signals() as caught, MetricsLog(self.run, state.step, False) as log:
                self._loop(state, family, log, caught)
            checkpoint = self._save(state, family)
            rows = read_metrics(self.run)
        loss, seconds = rows[-1]["loss"], time.perf_counter() - start
        net: Any = state.ema.net
        return MetaResult(self.run, state.step, checkpoint, loss, seconds, net)

    def _loop(self, state: MetaState, family: Family, log: MetricsLog, caught: CaughtSignal) -> None:
        config, clock, told = self.config, time.perf_counter(), state.step
        while state.step < config.steps:
            self._stop_if_asked(caught, state, family)
            lr = state.lr()
            state.update()
            last = state.step == config.steps
            if last or state.step % config.log_every == 0:
                self._report(state, log, lr, (state.step - told) / max(time.perf_counter() - clock, 1e-9))
                clock, told = time.perf_counter(), state.step
            if last or state.step % config.checkpoint_every == 0:
                start = time.perf_counter()
                log.sync()
                self._save(state, family)
                clock += time.perf_counter() - start  # the rate is that of the updates
        self._stop_if_asked(caught, state, family)

    def _stop_if_asked(self, caught: CaughtSignal, state: MetaState, family: Family) -> None:
        if caught.signum is not None:
            raise Interrupted(caught.signum, state.step, self._save(state, family))

    def _report(self, state: MetaState, log: MetricsLog, lr: float, rate: float) -> None:
        means = state.take_means()
        figures = {"loss": means.loss, "grad_norm": means.grad_norm, "lr": lr}
        log.write(state.step, {**figures, "tasks_per_second": round(rate * self.config.batch_size, 1)})
        if self._progress is not None:
            values = {"loss": means.loss, "rate": rate}
            self._progress(Progress("support train", state.step, self.config.steps, values))

    def _save(self, state: MetaState, family: Family) -> Path:
        latest = latest_checkpoint(self.run)
        if latest is not None and latest.name == step_folder(state.step):
            return latest
        state.means()  # a diverged net must not push a good checkpoint out
        values = {
            "config": dataclasses.asdict(self.config),
            "dim": family.dim,
            "data_hash": data_hash(family),
            **state.values(),
        }
        keep = self.config.keep
        return save_checkpoint(self.run, state.step, state.tensors(), values, keep=keep, make_run=False)

    def _restore(self, state: MetaState, family: Family) -> None:
        checkpoint = recover_newest(self.run)
        if checkpoint is None:
            return
        check_unchanged(self.config, checkpoint.state.get("config"), checkpoint.folder)
        check_same_tasks(checkpoint.state.get("data_hash"), family, checkpoint.folder)
        state.restore(checkpoint)


def data_hash(family: Family) -> str | None:
    """Hash of the data that tasks are made of; None for synthetic ones."""
    found: str | None = getattr(family, "content_hash", None)
    return found


def check_same_tasks(recorded: Any, family: Family, where: Path) -> None:
    """Check that tasks are made of the data that a run was trained on.

    Raises:
        ValueError: If they are made of others.
    """
    if recorded != data_hash(family):
        raise ValueError(f"the data of the tasks have changed: {where} was trained on others")
