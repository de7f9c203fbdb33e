"""Trains and measures the nets of a sweep, one cell at a time, so that an interrupted sweep continues where it was.

Each cell is one net: its size (training data), width and seed. Its result goes to ``cells/n100-w64.json`` once it is
complete; what a net in training needs to continue lies in ``cells/n100-w64/`` until then.
"""

import dataclasses
import shutil
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fluvial.audits.cells import Cell, read_cell, write_cell
from fluvial.audits.gap import approximation
from fluvial.audits.third_rule import copying
from fluvial.data import Dataset, load_dataset
from fluvial.fields import ExactField
from fluvial.metrics import ClassifierFeatures, GaussianStatistics
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training.build import build_path
from fluvial.training.lock import run_lock
from fluvial.training.subsets import nested_subset, train_net, updates_of_equal_compute
from fluvial.training.sweep import CELLS, SweepSettings, check_sweep_folder, open_sweep

TASK = "audit scaling"
SOLVER = Solver("heun", 25)
LEAST_HELD_OUT = 2
_MEASURING = 100  # units of the bar that measuring a net takes; an update of it is one unit


def run_sweep(
    settings: SweepSettings,
    folder: Path,
    *,
    accelerator: Accelerator | None = None,
    progress: ProgressCallback | None = None,
) -> list[Cell]:
    """Trains and measures every net of a sweep that its folder does not hold yet.

    Args:
        settings: The sweep.
        folder: Where its results go; a folder that holds the same sweep is continued.
        accelerator: Where to train; a new one by default.
        progress: Called throughout with the units of the whole sweep that are done: updates, and 100 for each net
            that is measured.

    Returns:
        The nets, those of the first width first, by size.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If a setting, the data or the folder do not allow it, or a loss is no longer finite.
        OSError: If the disk refuses a file.
        Interrupted: If a signal arrived during training; finished nets are kept, and so is the state of this one.

    Example:
        >>> import tempfile
        >>> settings = SweepSettings("moons", (10, 20), (8,), steps=2, depth=1, samples=16, draws=4, times=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [(cell.n, cell.updates) for cell in run_sweep(settings, Path(folder))]
        [(10, 2), (20, 2)]
    """
    settings.validate()
    check_sweep_folder(folder, settings)
    data = load_dataset(settings.data, seed=settings.seed, size=settings.size, held_out=settings.held_out)
    sizes = _sizes(settings, data)
    widest = settings.config(settings.widths[-1], settings.steps)
    updates = dict.fromkeys(settings.widths, settings.steps)
    if settings.compute == "flops":
        updates = updates_of_equal_compute(data.train, widest, settings.widths)
    with run_lock(folder):
        hashes = {"train": data.train.content_hash, "held_out": data.held_out.content_hash}
        open_sweep(folder, settings, hashes)
        workshop = _Workshop(settings, data, folder, accelerator or Accelerator())
        meter = _Meter(progress, len(sizes) * sum(count + _MEASURING for count in updates.values()))
        return [workshop.cell(n, width, updates[width], meter) for width in settings.widths for n in sizes]


def _sizes(settings: SweepSettings, data: Dataset) -> list[int]:
    count = len(data.train)
    if len(data.held_out) < LEAST_HELD_OUT:
        raise ValueError(
            f"a sweep needs at least {LEAST_HELD_OUT} held-out data to tell copies from new samples, and "
            f"{settings.data} has {len(data.held_out)}: set held_out"
        )
    sizes = [count if size is None else size for size in settings.sizes]
    if max(sizes) > count:
        raise ValueError(f"sizes must be at most the {count} training data of {settings.data}, got {max(sizes)}")
    return sorted(set(sizes))


class _Meter:
    """One count of units for the whole sweep, which its parts advance."""

    def __init__(self, progress: ProgressCallback | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def skip(self, units: int) -> None:
        self._done += units

    def part(self, name: str, units: int) -> ProgressCallback:
        """A callback for a part whose end is ``units`` further; the part counts as done from its last report on."""
        start = self._done
        self._done += units

        def report(step: Progress) -> None:
            if self._progress is not None:
                done = start + round(units * min(step.fraction, 1.0))
                values = {key: value for key, value in step.values.items() if key == "loss"}
                self._progress(Progress(TASK, done, self._total, values, part=name))

        return report


class _Workshop:
    """What all cells share: the data, their held-out statistics, and the classifier."""

    def __init__(self, settings: SweepSettings, data: Dataset, folder: Path, accelerator: Accelerator) -> None:
        self._settings, self._data, self._accelerator = settings, data, accelerator
        self._folder = folder / CELLS

    def cell(self, n: int, width: int, updates: int, meter: _Meter) -> Cell:
        """The result of one net, read if it is there."""
        name = f"n{n}-w{width}"
        file, work = self._folder / f"{name}.json", self._folder / name
        known = read_cell(file)
        if known is not None:
            meter.skip(updates + _MEASURING)
            shutil.rmtree(work, ignore_errors=True)
            return known
        start, label = time.monotonic(), f"N = {n}, width {width}"
        config = dataclasses.replace(self._settings.config(width, updates), checkpoint_every=1000)
        subset = nested_subset(self._data.train, n, self._settings.seed)
        report = meter.part(label, updates)
        net = train_net(config, subset, work, accelerator=self._accelerator, progress=report).ema.net
        values = self._measure(net, subset, meter, label)
        parameters = sum(weight.numel() for weight in net.parameters())
        seconds = round(time.monotonic() - start, 2)
        cell = Cell(
            n=n, width=width, seed=config.seed, updates=updates, parameters=parameters, seconds=seconds, **values
        )
        write_cell(file, cell)
        shutil.rmtree(work, ignore_errors=True)
        return cell

    def _measure(self, net: nn.Module, subset: Dataset, meter: _Meter, label: str) -> dict[str, Any]:
        settings, device = self._settings, self._accelerator.device
        values, fresh = subset.x, self._neighbours
        exact = ExactField(values.to(device), build_path(settings.config(settings.widths[0], settings.steps)))
        gap = approximation(
            net,
            exact,
            values.to(device),
            fresh.to(device),
            times=[step / settings.times for step in range(settings.times)],
            draws=settings.draws,
            steps=0,
            seed=settings.seed,
            progress=meter.part(label, _MEASURING // 2),
        ).data
        report = meter.part(label, _MEASURING // 2)
        seed, count = settings.seed, settings.samples
        x, _ = draw_samples(net, count, subset.shape, seed=seed, solver=SOLVER, device=device, progress=report)
        near = copying(x, fresh, values)
        return {
            "t": gap["t"],
            "gap": gap["train"]["gap"],
            "gap_mean": gap["train"]["mean"],
            "gap_error": gap["train"]["mean_standard_error"],
            "gap_held_out": gap["held_out"]["mean"],
            "exact_square": gap["train"]["mean_exact_square"],
            "neighbour_ratio": near.neighbour_ratio,
            "copies": near.copies,
            "samples": near.samples,
            "chance": near.chance,
            "frechet": self._frechet(x),
            "frechet_subset": self._frechet(values),
        }

    def _frechet(self, x: Tensor) -> dict[str, float]:
        found = {"values": self._reference["values"].distance(GaussianStatistics.of(x))}
        if self._features is not None:
            found["features"] = self._reference["features"].distance(GaussianStatistics.of(self._features(x)))
        return found

    @cached_property
    def _features(self) -> ClassifierFeatures | None:
        """Features that no subset has a part in; None without two classes."""
        labels = self._data.train.labels
        if labels is None or int(labels.min()) == int(labels.max()):
            return None
        return ClassifierFeatures.fit(self._data.train.x, labels, seed=self._settings.seed)

    @cached_property
    def _reference(self) -> Mapping[str, GaussianStatistics]:
        x = self._data.held_out.x
        spaces = {"values": GaussianStatistics.of(x)}
        return spaces if self._features is None else {**spaces, "features": GaussianStatistics.of(self._features(x))}

    @cached_property
    def _neighbours(self) -> Tensor:
        """Held-out data whose neighbours are looked for: as many as there are samples, or all."""
        count = len(self._data.held_out)
        order = torch.randperm(count, generator=generator(self._settings.seed, 0, 0, 0, count))
        return self._data.held_out.take(order[: self._settings.samples].numpy())[0]
