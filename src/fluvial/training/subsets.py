"""Nets trained on the first data of one permutation, each with a chosen number of updates, and resumable."""

import dataclasses
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from fluvial.data import Dataset
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.training.build import NetSpec, build_net, net_spec
from fluvial.training.changes import check_unchanged
from fluvial.training.checkpoints import save_checkpoint, step_folder
from fluvial.training.config import TrainConfig
from fluvial.training.guard import WATCH_EVERY
from fluvial.training.interrupts import Interrupted, deferred_signals
from fluvial.training.recovery import recover_newest
from fluvial.training.source import check_same_data
from fluvial.training.state import TrainState

_SUBSET = 4  # third counter of the stream of the permutation; 1 to 3 are those of training


def nested_subset(train: Dataset, count: int, seed: int) -> Dataset:
    """The first ``count`` data of a permutation that the seed alone decides: smaller subsets lie within larger ones.

    Args:
        train: Training data.
        count: Size of the subset, from 2 to ``len(train)``.
        seed: Seed of the permutation.

    Raises:
        ValueError: If ``count`` is out of range.

    Example:
        >>> data = fv.Dataset(torch.arange(10.0))
        >>> small, large = (nested_subset(data, count, seed=0).x[:, 0].tolist() for count in (3, 6))
        >>> small == large[:3], len(set(large))
        (True, 6)
    """
    if not 2 <= count <= len(train):
        raise ValueError(f"sizes must be from 2 to the {len(train)} training data, got {count}")
    order = torch.randperm(len(train), generator=generator(seed, 0, 0, _SUBSET))
    return train.subset(order[:count].numpy())


def matrix_entries(spec: NetSpec) -> int:
    """Entries of all matrices of a net: the multiplications of one forward pass on one datum.

    Example:
        >>> from fluvial.presets import NetOptions
        >>> narrow, wide = (NetSpec((2,), NetOptions("mlp", width=width, depth=1)) for width in (8, 16))
        >>> matrix_entries(narrow) < matrix_entries(wide)
        True
    """
    return sum(layer.weight.numel() for layer in build_net(spec, 0).modules() if isinstance(layer, nn.Linear))


def updates_of_equal_compute(train: Dataset, config: TrainConfig, widths: tuple[int, ...]) -> dict[int, int]:
    """Updates for each width that cost as many multiplications as ``config.steps`` updates of the widest net.

    Args:
        train: Training data, whose shape the nets have.
        config: Depth, batch size and the widest net's updates.
        widths: The widths.

    Example:
        >>> data, config = fv.Dataset(torch.zeros(4, 2)), TrainConfig(depth=2, steps=100)
        >>> updates = updates_of_equal_compute(data, config, (64, 128))
        >>> updates[128], 200 < updates[64] < 400
        (100, True)
    """
    cost = {width: matrix_entries(net_spec(dataclasses.replace(config, width=width), train)) for width in widths}
    return {width: round(config.steps * max(cost.values()) / cost[width]) for width in widths}


def train_net(
    config: TrainConfig,
    train: Dataset,
    folder: Path,
    *,
    accelerator: Accelerator,
    progress: ProgressCallback | None = None,
) -> TrainState:
    """Train one net on data that no spec names, such as a subset, with the trainer's own updates.

    The state is saved in ``folder/checkpoints`` every ``config.checkpoint_every`` updates, at the end, and when a
    signal arrives; a later call continues bit for bit.

    Args:
        config: How to train; its ``data`` is not read.
        train: Training data.
        folder: Where the state is saved; made if need be.
        accelerator: Where to train.
        progress: Called every ``config.log_every`` updates with the mean loss since the call before.

    Returns:
        The state after the last update; ``ema.net`` is the averaged net, in evaluation mode.

    Raises:
        ValueError: If the folder holds another training, or the loss is no longer finite.
        OSError: If the disk refuses a file.
        Interrupted: If SIGINT or SIGTERM arrived; the state is in a checkpoint.
    """
    state = TrainState(config, train, net_spec(config, train), accelerator)
    checkpoint = recover_newest(folder)
    newest = None if checkpoint is None else checkpoint.folder
    if checkpoint is not None and newest is not None:
        check_same_data(checkpoint.state.get("data_hash"), train, newest)
        check_unchanged(config, checkpoint.state.get("config"), newest)
        state.restore(checkpoint)
    with deferred_signals() as caught:
        while True:
            done = state.step == config.steps
            due = done or caught.signum is not None or state.step % config.checkpoint_every == 0 < state.step
            if due and (newest is None or newest.name != step_folder(state.step)):
                newest = _save(state, config, train, folder)
            if caught.signum is not None:
                raise Interrupted(caught.signum, state.step, newest or folder)
            if done:
                return state
            state.update()
            if state.step == config.steps or state.step % WATCH_EVERY == 0:
                state.require_finite()
            if progress is not None and (state.step == config.steps or state.step % config.log_every == 0):
                loss = state.take_means().loss
                progress(Progress("train", state.step, config.steps, {"loss": loss}))


def _save(state: TrainState, config: TrainConfig, train: Dataset, folder: Path) -> Path:
    state.require_finite()
    values = {"config": dataclasses.asdict(config), "data_hash": train.content_hash, **state.values()}
    return save_checkpoint(folder, state.step, state.tensors(), values, keep=1)
