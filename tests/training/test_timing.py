"""What an update costs, with a clock that the test turns."""

import pytest
import torch
from accelerate import Accelerator

import fluvial as fv
from fluvial.training import timing
from fluvial.training.config import TrainConfig
from fluvial.training.state import TrainState

DATA = fv.Dataset(torch.zeros(8, 2))
CONFIGS = {"a": TrainConfig(width=8, depth=1, batch_size=4), "b": TrainConfig(width=16, depth=1, batch_size=4)}


def test_the_median_forgets_one_busy_turn_and_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []

    def update(state: TrainState) -> None:
        width = state.spec.options.width
        order.append(width)
        slow = len(order) <= 4 or len(order) in (7, 8)  # the turn that warms up, and one more of b
        now[0] += (100.0 if slow else 1.0) * width

    monkeypatch.setattr(TrainState, "update", update)
    monkeypatch.setattr(timing, "compute_clock", lambda device: now[0])
    found = timing.seconds_an_update(CONFIGS, DATA, Accelerator(), rounds=3, updates=2)
    assert found == {"a": 8.0, "b": 16.0}
    assert order == [8, 8, 16, 16] * 4


def test_the_updates_are_those_of_training() -> None:
    found = timing.seconds_an_update(CONFIGS, DATA, Accelerator(), rounds=1, updates=1)
    assert list(found) == ["a", "b"] and min(found.values()) >= 0


@pytest.mark.parametrize("name", ["rounds", "updates"])
def test_numbers_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        timing.seconds_an_update(CONFIGS, DATA, Accelerator(), **{name: 0})


def test_the_clock_of_the_cpu_is_that_of_the_process_over_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing.time, "process_time", lambda: 6.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert timing.compute_clock(torch.device("cpu")) == 2.0
