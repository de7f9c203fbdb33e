"""What of a config may differ from that of the run it continues or reads; imports no torch."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fluvial.data.quoting import quoted
from fluvial.training.config import TrainConfig

# Changing these leaves every update as it is. Data may have moved: whether they are the same, their hash tells.
_FREE = frozenset(
    {
        *("data", "captions", "encoder", "log_every", "checkpoint_every", "keep", "sample_every", "tensorboard"),
        *("stream", "on_nan", "spike", "shard"),
    }
)


def check_unchanged(config: TrainConfig, recorded: Any, where: Path) -> None:
    """Check that a config describes the training that was recorded.

    Args:
        config: The config now.
        recorded: Fields of the config then; those it lacks had their default.
        where: The run or checkpoint folder that holds the record.

    Raises:
        ValueError: If a field that decides the weights differs, or there is no record.

    Example:
        >>> check_unchanged(TrainConfig(lr=0.1, keep=1), {"lr": 0.2}, Path("runs/a"))
        Traceback (most recent call last):
        ValueError: lr cannot change once training has begun: runs/a was trained with 0.2, the config now says 0.1
    """
    check_same_settings(config, recorded, where, _FREE)


def check_same_settings(now: Any, recorded: Any, where: Path, free: Collection[str]) -> None:
    """Check that a config of any kind describes the training that was recorded.

    Args:
        now: The config now, a dataclass whose fields all have defaults.
        recorded: Fields of the config then; those it lacks had their default.
        where: The run or checkpoint folder that holds the record.
        free: Fields that may differ.

    Raises:
        ValueError: If another field differs, or there is no record.
    """
    if not isinstance(recorded, Mapping):
        raise ValueError(f"{where} does not say how it was trained: its config is {quoted(recorded)}")
    then = {**dataclasses.asdict(type(now)()), **recorded}
    for name, value in dataclasses.asdict(now).items():
        if name not in free and then[name] != value:
            raise ValueError(
                f"{name} cannot change once training has begun: {where} was trained with {quoted(then[name])}, "
                f"the config now says {quoted(value)}"
            )
