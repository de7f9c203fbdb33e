"""Training: from a config to a run folder whose checkpoints continue bit for bit.

The names are imported on first use: reading or checking a config never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluvial.training.checkpoints import latest_checkpoint as latest_checkpoint
    from fluvial.training.config import TrainConfig as TrainConfig
    from fluvial.training.config import read_config as read_config
    from fluvial.training.config import write_config as write_config
    from fluvial.training.ema import EMA as EMA
    from fluvial.training.folders import prepare_run_folder as prepare_run_folder
    from fluvial.training.interrupts import Interrupted as Interrupted
    from fluvial.training.runs import Run as Run
    from fluvial.training.runs import load_run as load_run
    from fluvial.training.trainer import Trainer as Trainer
    from fluvial.training.trainer import TrainResult as TrainResult

_HOMES = {
    "EMA": "ema",
    "Interrupted": "interrupts",
    "Run": "runs",
    "TrainConfig": "config",
    "TrainResult": "trainer",
    "Trainer": "trainer",
    "latest_checkpoint": "checkpoints",
    "load_run": "runs",
    "prepare_run_folder": "folders",
    "read_config": "config",
    "write_config": "config",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fluvial.training' has no attribute {name!r}")
    return getattr(import_module(f"fluvial.training.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
