"""A file of pixels on a disk, as large as asked for, gone afterwards."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exact_field.shapes import Shape, pixel_chunks

IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
MOUNTS = Path("/proc/self/mounts")


def file_system(folder: Path) -> str:
    """Type of the file system that holds a folder, from the list of mounts; "unknown" elsewhere than on Linux."""
    if not MOUNTS.exists():
        return "unknown"
    kinds = {}
    for line in MOUNTS.read_text().splitlines():
        _, point, kind, *_ = line.split()
        kinds[Path(point.encode().decode("unicode_escape"))] = kind  # a later mount hides an earlier one
    folder = folder.resolve()
    return next((kinds[parent] for parent in (folder, *folder.parents) if parent in kinds), "unknown")


def require_disk(folder: Path) -> None:
    """See that the folder, or the nearest of its parents that exists, lies on a disk.

    Raises:
        ValueError: If it lies in memory.
    """
    kind = file_system(folder)
    if kind in IN_MEMORY:
        raise ValueError(f"--scratch must be on a disk, {folder} is {kind}, which is memory")


@contextmanager
def pixel_file(shape: Shape, folder: Path | None) -> Iterator[Path]:
    """Write the shape's pixels as raw bytes to a file in a new folder under ``folder``; both are removed at the end.

    Raises:
        ValueError: If the folder lies in memory or has too little room.
    """
    parent = Path.cwd() if folder is None else folder
    require_disk(parent)
    parent.mkdir(parents=True, exist_ok=True)
    size = shape.points * shape.dim
    free = shutil.disk_usage(parent).free
    if free < size + 2**30:
        raise ValueError(f"--scratch needs {size / 2**30:.1f} GB and 1 to spare, {parent} has {free / 2**30:.1f}")
    with tempfile.TemporaryDirectory(prefix="exact-field-", dir=parent) as name:
        path = Path(name) / "pixels.u8"
        with path.open("wb") as file:
            for chunk in pixel_chunks(shape.points, shape.dim):
                file.write(chunk.numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
        yield path
