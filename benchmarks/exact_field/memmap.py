"""A support larger than memory should be: pixels mapped from a disk, beside the same rows held in memory.

The rate per support point of the mapped file, read once before so that the system holds its pages, is compared with
that of 50,000 of its rows in memory, in alternating rounds. The peak resident memory, mapped pages included, is that
of a process of its own which only imports the library, maps the file and evaluates the field.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from exact_field.evaluation import exact_field
from exact_field.resident import in_child, peak
from exact_field.scratch import file_system, pixel_file
from exact_field.shapes import Shape, on_path
from exact_field.timing import alternating

MAPPED = Shape("memmap", 1_000_000, 3072, 128, pixels=True)
IN_MEMORY_POINTS = 50_000
TIMES = (0.1, 0.9)
TOLERANCES = (0.0, 1e-6)


@dataclass(frozen=True)
class Mapped:
    """What a mapped support cost.

    Args:
        shape: The support and the number of evaluation points.
        disk: Type of the file system.
        in_memory_points: Number of rows held in memory for comparison.
        peak_megabytes: Peak resident memory of the whole process, by ``tol``.
        nanoseconds: By ``tol``, at each time: time per support point and evaluation, mapped and in memory.
        notes: What could not be measured, by ``tol``.
    """

    shape: Shape
    disk: str
    in_memory_points: int
    peak_megabytes: dict[float, float]
    nanoseconds: dict[float, list[tuple[float, float]]]
    notes: dict[float, str]


def measure(quick: bool, rounds: int, folder: Path | None) -> Mapped:
    """Make the file, measure, and remove it."""
    shape = replace(MAPPED, points=20_000, batch=16) if quick else MAPPED
    few = shape.points // 20
    with pixel_file(shape, folder) as path:
        found = Mapped(shape, file_system(path.parent), few, {}, {}, {})
        for tol in TOLERANCES:
            try:
                found.nanoseconds[tol] = _rates(path, shape, few, tol, rounds)
                arguments = {"path": str(path), "shape": asdict(shape), "tol": tol}
                found.peak_megabytes[tol] = in_child("exact_field.memmap", arguments)["megabytes"]
            except (RuntimeError, ValueError, TypeError) as error:
                found.notes[tol] = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
        return found


def _rates(path: Path, shape: Shape, few: int, tol: float, rounds: int) -> list[tuple[float, float]]:
    """Nanoseconds per support point, mapped and in memory, at each time."""
    mapped = _mapped(path, shape)
    fields = {"mapped": exact_field(mapped, tol), "memory": exact_field(torch.from_numpy(np.array(mapped[:few])), tol)}
    found = []
    for t in TIMES:
        x = on_path(mapped[:few], shape.batch, t)
        calls = {name: lambda field=field, x=x, t=t: field(x, t) for name, field in fields.items()}
        alternating(calls, 1, "cpu")  # warms the pages
        times = alternating(calls, rounds, "cpu")
        found.append((1e9 * times["mapped"] / shape.points, 1e9 * times["memory"] / few))
    return found


def _mapped(path: Path, shape: Shape) -> np.memmap:
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(shape.points, shape.dim))


def _peak(path: str, shape: Shape, tol: float) -> float:
    mapped = _mapped(Path(path), shape)
    velocity = exact_field(mapped, tol)
    for t in TIMES:
        velocity(on_path(mapped, shape.batch, t), t)
    return peak() / 2**20


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    with torch.no_grad():
        print(json.dumps({"megabytes": _peak(wanted["path"], Shape(**wanted["shape"]), wanted["tol"])}))
