"""A sweep over training set sizes and widths: what it is made of, and the folder it continues in; imports no torch."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from fluvial import __version__
from fluvial.data.specs import parse_spec
from fluvial.training.config import TrainConfig
from fluvial.training.toml import write_text

SWEEP_FILE = "sweep.json"
CELLS = "cells"
COMMAND = "audit scaling"
COMPUTE = ("flops", "updates")
LEAST_SAMPLES = 16
# What a folder may hold before its record is there, and what a killed process leaves of it.
_BEFORE_RECORD = (".lock", f".partial-{SWEEP_FILE}")


@dataclass(frozen=True)
class SweepSettings:
    """One sweep: a net for each size of the training set and each width.

    Args:
        data: Spec of the data set.
        sizes: Numbers of training data, increasing; None, last, stands for all.
        widths: Widths of the nets, increasing multiples of 8.
        steps: Updates of the widest net.
        depth: Residual blocks of every net.
        batch_size: Data per update, whatever the size: small subsets recur with other noise.
        lr: Peak learning rate of every net.
        objective: ``"cfm"`` or ``"efm"``.
        bank_size: Data that efm averages over.
        compute: What the nets of one sweep have in common: ``"flops"`` (narrower nets make more updates) or
            ``"updates"``.
        samples: Samples of each net that are measured.
        draws: Interpolants of each set and time at which the field is compared with the exact one.
        times: Times at which it is compared, evenly spaced from 0 to just below 1.
        seed: Seed of the split, the subsets, the nets and the samples.
        size: Side in pixels of images that are resized.
        held_out: Data kept out of training, as a count or a share; the data set's own split by default.

    Example:
        >>> SweepSettings("digits", (10, None), (64,), steps=100).validate()
        >>> SweepSettings("digits", (30, 10), (64,), steps=100).validate()
        Traceback (most recent call last):
        ValueError: sizes must increase, got 30, 10
    """

    data: str
    sizes: tuple[int | None, ...]
    widths: tuple[int, ...]
    steps: int
    depth: int = 3
    batch_size: int = 64
    lr: float = 3e-3
    objective: str = "cfm"
    bank_size: int = 256
    compute: str = "flops"
    samples: int = 1000
    draws: int = 256
    times: int = 50
    seed: int = 0
    size: int | None = None
    held_out: int | float | None = None

    def config(self, width: int, steps: int) -> TrainConfig:
        """How one net is trained."""
        names = ("data", "depth", "batch_size", "lr", "objective", "bank_size", "seed", "size", "held_out")
        return TrainConfig(**{name: getattr(self, name) for name in names}, width=width, steps=steps)

    def validate(self) -> None:
        """Check every setting, and that the data can be found.

        Raises:
            TypeError: If a setting has the wrong type.
            ValueError: If a setting has a value that no sweep can be made with.
        """
        named = [size for size in self.sizes if size is not None]
        _check_increasing("sizes", named)
        _check_increasing("widths", self.widths)
        if not self.sizes or None in self.sizes[:-1]:
            raise ValueError("sizes must hold at least one number of training data; 'all' can only be the last")
        if named and named[0] < 2:
            raise ValueError(f"sizes must be at least 2, got {named[0]}")
        if not self.widths:
            raise ValueError("widths must hold at least one width, got none")
        odd = [width for width in self.widths if width < 1 or width % 8]
        if odd:
            raise ValueError(f"widths must be positive multiples of 8, got {odd[0]}")
        if self.compute not in COMPUTE:
            raise ValueError(f"compute must be one of {', '.join(COMPUTE)}, got {self.compute!r}")
        for name, least in (("samples", LEAST_SAMPLES), ("draws", 2), ("times", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for width in self.widths:
            self.config(width, self.steps).validate()

    def record(self) -> dict[str, Any]:
        """All settings but the sizes, to which more may be added, as JSON values."""
        spec = parse_spec(self.data)
        data = self.data if spec.path is None else f"{spec.kind}:{spec.path.absolute()}"
        values = dataclasses.asdict(self)
        del values["sizes"]
        return {**values, "data": data, "widths": list(self.widths)}


def _check_increasing(name: str, values: Sequence[int]) -> None:
    if any(a >= b for a, b in pairwise(values)):
        raise ValueError(f"{name} must increase, got {', '.join(map(str, values))}")


def check_sweep_folder(folder: Path, settings: SweepSettings) -> None:
    """Check that a sweep can be begun or continued in a folder, changing nothing.

    Args:
        folder: The folder; it need not exist.
        settings: The sweep.

    Raises:
        ValueError: If the folder holds a sweep with other settings, or anything else, or cannot be read.
    """
    record = read_sweep(folder)
    if record is None:
        return
    for name, value in settings.record().items():
        then = record["settings"].get(name)
        if then != value:
            raise ValueError(
                f"{folder} holds a sweep with {name} {then!r}, and now {name} is {value!r}: give another --out, or "
                "the same settings to continue (sizes may be added)"
            )


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """The record of the sweep in a folder; None if the folder is new or empty.

    Raises:
        ValueError: If the folder holds something else, or cannot be read.
    """
    file = folder / SWEEP_FILE
    try:
        if not folder.exists():
            return None
        if not folder.is_dir():
            raise ValueError(f"{folder} is a file, not a folder; give another --out")
        if not file.exists():
            foreign = sorted(child.name for child in folder.iterdir() if child.name not in _BEFORE_RECORD)
            if foreign:
                raise ValueError(f"{folder} holds {foreign[0]!r} and no sweep; give another --out")
            return None
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged; give another --out") from error
    known = isinstance(values, dict) and values.get("command") == COMMAND and isinstance(values.get("settings"), dict)
    if not known:
        raise ValueError(f"{file} was not written by fluvial {COMMAND}; give another --out")
    record: dict[str, Any] = values
    return record


def open_sweep(folder: Path, settings: SweepSettings, hashes: dict[str, str]) -> None:
    """Begin or continue a sweep in a folder that exists.

    Args:
        folder: The folder.
        settings: The sweep.
        hashes: ``content_hash`` of each part of the data.

    Raises:
        ValueError: If the folder holds another sweep, or one of other data.
        OSError: If it cannot be written.
    """
    check_sweep_folder(folder, settings)
    record = read_sweep(folder)
    if record is None:
        head = {"fluvial": __version__, "command": COMMAND, "settings": settings.record(), "hashes": hashes}
        write_text(folder / SWEEP_FILE, json.dumps(head, indent=2) + "\n")
    elif record.get("hashes") != hashes:
        raise ValueError(f"the data have changed: {folder} holds a sweep over other data; give another --out")
