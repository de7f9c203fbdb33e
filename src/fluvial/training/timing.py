"""What an update costs, so that trainings that differ in it can be given equal compute."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator

from fluvial.data import Dataset
from fluvial.training.build import net_spec
from fluvial.training.config import TrainConfig
from fluvial.training.state import TrainState


def compute_clock(device: torch.device) -> float:
    """Seconds of computation so far, for differences.

    On the CPU they are those of the process, all threads together, over the number of threads: other processes on the
    machine change them little. Elsewhere they are those of the wall, on CUDA once the device has done what is queued.

    Args:
        device: Where it is computed.

    Example:
        >>> start = compute_clock(torch.device("cpu"))
        >>> _ = torch.randn(1000).sort()
        >>> compute_clock(torch.device("cpu")) >= start
        True
    """
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_in_turns(
    steps: Mapping[str, Callable[[], object]], clock: Callable[[], float], *, rounds: int, updates: int
) -> dict[str, list[float]]:
    """Seconds of a call in every round, by name: all take turns, so that a busy moment slows all of them alike.

    Args:
        steps: What is called, by name.
        clock: Gives the time in seconds.
        rounds: Rounds that are timed, after one that warms up.
        updates: Calls of each in a round.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> found = seconds_in_turns({"a": list, "b": dict}, time.perf_counter, rounds=3, updates=10)
        >>> {name: len(times) for name, times in found.items()}
        {'a': 3, 'b': 3}
    """
    for name, value in {"rounds": rounds, "updates": updates}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(1 + rounds):
        for name, step in steps.items():
            start = clock()
            for _ in range(updates):
                step()
            if turn:
                times[name].append((clock() - start) / updates)
    return times


def seconds_an_update(
    configs: Mapping[str, TrainConfig], train: Dataset, accelerator: Accelerator, *, rounds: int = 5, updates: int = 4
) -> dict[str, float]:
    """Median time of an update of each config, all of which take turns.

    Args:
        configs: How to train, by name; their ``data`` and ``steps`` are not read. They must have no captions.
        train: Training data.
        accelerator: Where to train, in the configs' precision.
        rounds: Turns of each that are timed, after one that warms up.
        updates: Updates in a turn.

    Returns:
        Seconds by :func:`compute_clock`, by name.

    Raises:
        ValueError: If a number is not positive, or a net does not fit the data.

    Example:
        >>> data, configs = fv.Dataset(torch.zeros(8, 2)), {"a": TrainConfig(width=8), "b": TrainConfig(width=16)}
        >>> sorted(seconds_an_update(configs, data, Accelerator(), rounds=1, updates=1))
        ['a', 'b']
    """
    steps = {
        name: TrainState(config, train, net_spec(config, train), accelerator).update for name, config in configs.items()
    }
    times = seconds_in_turns(steps, lambda: compute_clock(accelerator.device), rounds=rounds, updates=updates)
    return {name: statistics.median(found) for name, found in times.items()}
