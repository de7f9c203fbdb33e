"""Clocks: medians over rounds in which all candidates take turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]

PAUSE = 0.02
"""Seconds before a timed call: threads spin a while after their work, and KeOps brings a thread pool of its own."""


def seconds(call: Call, device: str) -> float:
    """How long one call takes, its work on the device included."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def alternating(calls: Mapping[str, Call], rounds: int, device: str) -> dict[str, float]:
    """Median time of each call in seconds; every round calls all of them, in turn, a little apart."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            times[name].append(seconds(call, device))
    return {name: statistics.median(values) for name, values in times.items()}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
