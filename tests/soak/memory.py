"""Memory of a process that trains for an hour stays flat.

    .venv/bin/python tests/soak/memory.py --minutes 60 --seed 0 --json

Half of the time trainings of every objective are started, interrupted, resumed, loaded and sampled, one after the
other; in the other half one training runs on, with checkpoints, previews and metrics. The resident memory of the
process is read twice a second, and its peak since the reading before. What is imported and allocated once is done
before, and the first third of each half is warm-up as well: the rest is cut into windows, and flatness is the largest
of their medians over the smallest, less one, which may be at most 2 %. Medians do not show short peaks, so the peak of
each window stands beside them.
"""

import argparse
import itertools
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from peaks import peak, reset_peak, resident
from trainings import tell, write_data

import fluvial as fv
from fluvial.randomness import noise
from fluvial.support import MetaTrainer, SupportConfig, load_support_run
from fluvial.training import Interrupted, TrainConfig, Trainer, load_run

LIMIT = 0.02
WINDOWS = 8
WARM_UP = 1 / 3
Reading = tuple[float, float, float]
"""Time in seconds, resident megabytes, and their peak since the reading before."""
_COMMON: dict[str, Any] = {"steps": 24, "checkpoint_every": 4, "log_every": 3, "keep": 2}
_POINTS: dict[str, Any] = {"data": "data.npz", "width": 64, "depth": 2, "batch_size": 16, "sample_every": 8, **_COMMON}
_TASKS: dict[str, Any] = {"width": 16, "heads": 2, "batch_size": 2, "points": 8, "bank": 8, **_COMMON}
_IMAGES: dict[str, Any] = {"data": "digits", "held_out": 1700, "net": "unet", "width": 8, "depth": 1, "dropout": 0.2}
CONFIGS: tuple[TrainConfig | SupportConfig, ...] = (
    TrainConfig(**_POINTS),
    TrainConfig(coupling="ot", labels=True, **_POINTS),
    TrainConfig(objective="efm", bank_size=5, labels=True, **_POINTS),
    TrainConfig(objective="meanflow", **_POINTS),
    TrainConfig(objective="likelihood", likelihood_steps=2, **_POINTS),
    TrainConfig(**_IMAGES, **{**_COMMON, "steps": 6}, batch_size=16),
    SupportConfig(**_TASKS),
)


class Memory:
    """Reads the resident memory of this process in a thread of its own, until it is closed.

    Args:
        pause: Seconds between readings.
    """

    def __init__(self, pause: float) -> None:
        self.readings: list[Reading] = []
        self._pause, self._done = pause, threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        reset_peak()
        while not self._done.wait(self._pause):
            self.readings.append((time.monotonic(), resident() / 2**20, peak() / 2**20))
            reset_peak()

    def close(self) -> list[Reading]:
        """Stops reading; all readings."""
        self._done.set()
        self._thread.join()
        return self.readings


@dataclass(frozen=True)
class Flatness:
    """How flat memory was.

    Args:
        medians: Median of each window in MB.
        peaks: Peak of each window in MB.
        flatness: Largest median over the smallest, less one.
        warm_up: Seconds that were left out.
        measured: Seconds that were not.
    """

    medians: list[float]
    peaks: list[float]
    flatness: float
    warm_up: float
    measured: float


def measure(readings: Sequence[Reading]) -> Flatness:
    """Flatness of the time after the warm-up."""
    first, last = readings[0][0], readings[-1][0]
    warm = first + (last - first) * WARM_UP
    width = (last - warm) / WINDOWS
    cut: list[list[Reading]] = [[] for _ in range(WINDOWS)]
    for reading in readings:
        if reading[0] >= warm:
            cut[min(WINDOWS - 1, int((reading[0] - warm) / width))].append(reading)
    medians = [round(statistics.median(megabytes for _, megabytes, _ in window), 2) for window in cut if window]
    peaks = [round(max(highest for _, _, highest in window), 2) for window in cut if window]
    return Flatness(medians, peaks, max(medians) / min(medians) - 1, warm - first, last - warm)


def _interrupt_at(step: int) -> Callable[[Any], None]:
    def progress(report: Any) -> None:
        if report.step >= step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def interrupted(fit: Callable[[], object], steps: int) -> None:
    try:
        fit()
    except Interrupted as stop:
        if stop.step < steps and stop.checkpoint.is_dir():
            return
        raise RuntimeError(f"SIGTERM in the middle of {steps} steps was followed by {stop}") from stop
    raise RuntimeError(f"SIGTERM in the middle of {steps} steps did not interrupt the training")


def train_once(config: TrainConfig | SupportConfig, run: Path) -> None:
    """Starts a training, interrupts, resumes, loads and samples it, and removes the run.

    Raises:
        RuntimeError: If the signal did not interrupt it, or left no checkpoint of that step.
    """
    interrupt = _interrupt_at(config.steps // 2)
    if isinstance(config, SupportConfig):
        interrupted(MetaTrainer(config, run, progress=interrupt).fit, config.steps)
        MetaTrainer(config, run).fit(resume=True)
        _ = load_support_run(run).net
    else:
        interrupted(Trainer(config, run, progress=interrupt).fit, config.steps)
        Trainer(config, run).fit(resume=True)
        loaded = load_run(run)
        with torch.no_grad():
            fv.solve(loaded.net, noise(0, 0, 16, loaded.net_spec.shape), steps=4)
    shutil.rmtree(run)


def many_trainings(end: float, folder: Path) -> int:
    """Trains every kind in turn until the time is over; the number of trainings."""
    for number, config in enumerate(itertools.cycle(CONFIGS)):
        if time.monotonic() > end:
            return number
        train_once(config, folder / "run")
    return 0


def one_training(end: float, folder: Path, seed: int) -> int:
    """Trains until the time is over; the updates made."""
    config = TrainConfig(
        data="data.npz",
        width=64,
        depth=2,
        batch_size=16,
        steps=10**9,
        seed=seed,
        checkpoint_every=500,
        sample_every=2000,
    )

    def progress(report: Any) -> None:
        if time.monotonic() > end:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        Trainer(config, folder / "long", progress=progress).fit()
    except Interrupted as stop:
        return stop.step
    return config.steps


def _told(work: Callable[[], int], what: str, seconds: float) -> tuple[int, Flatness]:
    """Does some work while memory is read, and says on stderr how far it is."""
    memory, start = Memory(min(0.5, seconds / 100)), time.monotonic()
    stop = threading.Event()

    def tell_now() -> None:
        while not stop.wait(5.0):
            passed = time.monotonic() - start
            megabytes = memory.readings[-1][1] if memory.readings else 0.0
            line = f"{what}: {megabytes:.1f} MB  {passed:.0f}/{seconds:.0f} s"
            print(line, file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell_now, daemon=True)
    teller.start()
    try:
        done = work()
    finally:
        readings = memory.close()
        stop.set()
        teller.join()
    return done, measure(readings)


def _soak(minutes: float, limit: float, seed: int, folder: Path) -> dict[str, Any]:
    """The figures of both halves."""
    half, start = 30 * minutes, time.monotonic()
    # What is imported and allocated once, and the allocator's pools: those were full after about 100 trainings.
    for config in CONFIGS * max(1, min(20, round(minutes))):
        train_once(config, folder / "run")
    once = time.monotonic() - start
    count, many = _told(lambda: many_trainings(time.monotonic() + half, folder), "many trainings", half)
    steps, one = _told(lambda: one_training(time.monotonic() + half, folder, seed), "one training", half)
    measured = many.measured + one.measured
    record: dict[str, Any] = {"trainings": count, "interrupted_and_resumed": count, "updates": steps}
    for name, part in (("many trainings", many), ("one training", one)):
        record |= {f"{name}, MB": part.medians, f"{name}, peaks in MB": part.peaks}
        record |= {f"{name}, flatness": round(part.flatness, 5)}
    record |= {"warm_up_seconds": round(once + many.warm_up + one.warm_up, 1), "measured_seconds": round(measured, 1)}
    found = {"many trainings": many.flatness, "one training": one.flatness}
    return record | {"failures": [name for name, flatness in found.items() if flatness > limit]}


def main(argv: Sequence[str] | None = None) -> int:
    """Trains for a while and prints how flat memory was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest flatness that passes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    start, before = time.monotonic(), Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="fluvial-memory-")).resolve()
    os.chdir(folder)
    write_data(folder)
    try:
        found = _soak(options.minutes, options.limit, options.seed, folder)
    except RuntimeError as error:
        found = {"failures": [str(error)]}
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)
    record: dict[str, Any] = {"program": "memory", "seed": options.seed, "minutes": options.minutes}
    return tell(record | {"seconds": round(time.monotonic() - start, 1)} | found, options.json)


if __name__ == "__main__":
    sys.exit(main())
