"""What a training does about updates that were skipped: it says so, and stops, goes on, or goes back."""

import warnings
from collections.abc import Callable
from pathlib import Path

from fluvial.training.checkpoints import Checkpoint
from fluvial.training.config import TrainConfig
from fluvial.training.guard import WATCH_EVERY, Skipped, SkippedUpdate
from fluvial.training.state import TrainState

PATIENCE = 50
"""Updates skipped in a row, or as half of all or more, after which going on is of no use."""


class Watch:
    """Looks at the guard of a training in progress.

    Args:
        config: The run's config.
        state: What is trained.
        save: Saves the state; returns the checkpoint's folder.
        last: The checkpoint that a rollback goes to; None before the first, which goes to the initial weights.

    Raises:
        ValueError: From :meth:`look`, where the training is not to go on.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainState,
        save: Callable[[], Path],
        last: Callable[[], Checkpoint | None],
    ) -> None:
        self._config, self._state, self._save, self._last = config, state, save, last

    def look(self) -> None:
        """Tell of the updates that were skipped since the last look, and do what the config says."""
        guard, step = self._state.guard, self._state.step
        found = guard.look()
        for skipped in found:
            if self._state.ranks.first:
                skipped.warn()
        broken = [skipped for skipped in found if not skipped.finite]
        if broken and self._config.on_nan == "stop":
            raise self._stop(broken[0], "")
        guard.broken = guard.broken and self._config.on_nan == "rollback"
        # The rest at fixed steps, so that an interrupt, which looks as well, changes nothing.
        if step % WATCH_EVERY == 0:
            if found and guard.in_a_row >= PATIENCE:
                raise self._stop(found[-1], f"the last {guard.in_a_row} updates were all skipped: ")
            if found and guard.skipped >= max(PATIENCE, step / 2):
                raise self._stop(found[-1], f"{guard.skipped} of {step} updates were skipped: ")
            if guard.broken:
                self._roll_back()

    def _roll_back(self) -> None:
        checkpoint, ranks = self._last(), self._state.ranks
        self._state.roll_back(checkpoint)
        ranks.wait()  # the next checkpoint may remove this one, which all must have read
        if ranks.first:
            where = "the start" if checkpoint is None else f"step {checkpoint.step}"
            warnings.warn(SkippedUpdate(f"the weights are those of {where} again; steps and draws go on"), stacklevel=2)

    def _stop(self, skipped: Skipped, why: str) -> ValueError:
        saved = self._save()
        return ValueError(
            f"training diverged: {why}{skipped}; the state without it is in {saved}: look whether the data are on a "
            f"scale that can be squared, try a smaller lr than {self._config.lr}, or go on with --resume "
            f"{saved.parents[1]}"
        )
