"""One net of a sweep over sizes and widths: what was measured of it, and its file."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluvial.data.json_text import read_json
from fluvial.data.quoting import quoted
from fluvial.training.toml import write_text

_WHOLE = frozenset({"n", "width", "seed", "updates", "parameters", "copies", "samples"})
_LISTS = frozenset({"t", "gap"})
_TABLES = frozenset({"frechet", "frechet_subset"})


@dataclass(frozen=True)
class Cell:
    """One net of a sweep and what was measured of it.

    Args:
        n: Training data.
        width: Width of the net.
        seed: Seed of the subset, the net and the samples.
        updates: Updates made.
        parameters: Numbers that the net learned.
        t: Times at which the net was held against the exact field of its own subset.
        gap: Squared distance of the two, on interpolants of the subset, at each time.
        gap_mean: Its mean over t, in squared units of the data.
        gap_error: Standard error of that mean over the draws.
        gap_held_out: The mean on interpolants of held-out data.
        exact_square: The exact field's own mean square on interpolants of the subset.
        neighbour_ratio: Mean distance of samples to the nearest of the subset, over that of held-out data.
        copies: Samples nearer to the nearest of the subset than to a third of the distance to the second nearest.
        samples: Samples measured.
        chance: Share of held-out data that the same rule takes for copies.
        frechet: Fréchet distances of the samples to the held-out data, by space: ``values``, and ``features`` of a
            classifier of the whole training data where there are labels.
        frechet_subset: The same of the subset itself: what a net that only copies would score.
        seconds: Time taken, an interrupted part not counted.
    """

    n: int
    width: int
    seed: int
    updates: int
    parameters: int
    t: list[float]
    gap: list[float]
    gap_mean: float
    gap_error: float
    gap_held_out: float
    exact_square: float
    neighbour_ratio: float
    copies: int
    samples: int
    chance: float
    frechet: dict[str, float]
    frechet_subset: dict[str, float]
    seconds: float

    @property
    def copy_rate(self) -> float:
        """Share of the samples that are copies."""
        return self.copies / self.samples

    @property
    def relative_gap(self) -> float:
        """Mean gap over the exact field's own mean square: 0 for the exact field, 1 for a field that is zero."""
        return self.gap_mean / self.exact_square


def read_cell(file: Path) -> Cell | None:
    """The cell in a file; None if there is no such file.

    Raises:
        ValueError: If it holds something else.
    """
    if not file.exists():
        return None
    try:
        cell = Cell(**read_json(file))
        for name, value in dataclasses.asdict(cell).items():
            _check(name, value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged; remove it, and the sweep makes it again") from error
    return cell


def _check(name: str, value: Any) -> None:
    if name in _WHOLE:
        known = type(value) is int and 0 <= value < 2**63
    elif name in _LISTS:
        known = isinstance(value, list) and all(map(_is_number, value))
    elif name in _TABLES:
        known = isinstance(value, dict) and all(map(_is_number, value.values()))
    else:
        known = _is_number(value)
    if not known:
        raise ValueError(f"{name} is {quoted(value)}")


def _is_number(value: Any) -> bool:
    # Python reads whole numbers of any size, which no float holds.
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 2**63)


def write_cell(file: Path, cell: Cell) -> None:
    """Write a cell, whole or not at all.

    Raises:
        OSError: If the disk refuses it.
    """
    write_text(file, json.dumps(dataclasses.asdict(cell), indent=1, allow_nan=False) + "\n")
