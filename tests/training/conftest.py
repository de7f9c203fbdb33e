"""A tiny labelled data set and a config that trains on it in a fraction of a second."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fluvial.training.config import TrainConfig


@pytest.fixture
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 points in 3 dimensions with 3 labels; 24 of them are for training."""
    file = tmp_path_factory.mktemp("data") / "tiny.npz"
    random = np.random.default_rng(0)
    np.savez(file, x=random.normal(size=(30, 3)).astype(np.float32), y=np.arange(30) % 3)
    return file


@pytest.fixture
def tiny(data_file: Path) -> Callable[..., TrainConfig]:
    """Makes a config of 12 steps, with any field changed."""
    base = TrainConfig(
        data=str(data_file), width=8, depth=1, steps=12, batch_size=7, bank_size=5, log_every=3, checkpoint_every=5
    )

    def make(**changes: Any) -> TrainConfig:
        return dataclasses.replace(base, **changes)

    return make


@pytest.fixture
def same_tensors() -> Callable[[Path, Path], bool]:
    """Whether two checkpoint folders hold the same bytes in every safetensors file."""

    def compare(one: Path, other: Path) -> bool:
        names = sorted(file.name for file in one.glob("*.safetensors"))
        assert names == ["ema.safetensors", "model.safetensors", "optimizer.safetensors"]
        return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)

    return compare


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Tiny nets are slower with more; the results do not depend on it here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
