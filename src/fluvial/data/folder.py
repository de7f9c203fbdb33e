"""A folder of pictures: all of one size, or brought to one; subfolders are labels."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

from fluvial.data.dataset import Dataset
from fluvial.data.memory import should_stream
from fluvial.data.picture_store import PictureStore
from fluvial.data.pictures import (
    Look,
    in_threads,
    look_at,
    majority_is_grey,
    no_pictures,
    picture_names,
    read_pictures,
    sizes_by_frequency,
)
from fluvial.progress import Progress, ProgressCallback

_REPORT_EVERY = 1000


def read_folder(
    folder: Path,
    size: int | None = None,
    name: str | None = None,
    stream: bool | None = None,
    progress: ProgressCallback | None = None,
) -> Dataset:
    """Reads the png, jpg, jpeg, bmp and webp pictures of a folder, sorted by path; not yet split.

    Pictures that lie in subfolders are labelled with the first subfolder's name; pictures that lie in the
    folder itself have no label. All become grey or all RGB, whichever most are. Photographs are turned
    upright. Hidden files are left out.

    Args:
        folder: The folder.
        size: Side in pixels to which each picture's central square is resized, with antialiasing; None keeps
            sizes.
        name: Name of the data set; the folder's own if None.
        stream: Whether pictures are decoded when they are asked for, each time anew, rather than once into memory; None
            decides by what they would take there.
        progress: Called while the heads of the pictures are read.

    Returns:
        uint8 images of shape (1 or 3, H, W).

    Raises:
        ValueError: If there are no pictures, or some lie in subfolders and some do not; sizes differ and
            ``size`` is not given; a picture is damaged, has an alpha channel or more than 8 bits per channel.
    """
    names = picture_names(folder)
    if not names:
        raise ValueError(no_pictures(folder))
    labels = _labels(folder, names)
    looks = []
    for look in in_threads(lambda name: look_at(folder / name), names):
        looks.append(look)
        if progress is not None and (len(looks) % _REPORT_EVERY == 0 or len(looks) == len(names)):
            progress(Progress(f"look at {folder.name}", len(looks), len(names)))
    if size is None:
        _check_one_size(folder, names, looks)
    grey, name = majority_is_grey(looks), name or folder.resolve().name
    area = size * size if size is not None else prod(looks[0].size)
    if should_stream(len(names) * area * (1 if grey else 3), stream):
        return Dataset(PictureStore(folder, names, size=size, grey=grey), labels, name=name)
    values = read_pictures([folder / name for name in names], size=size, crop=None, grey=grey)
    return Dataset(values, labels, name=name)


def _labels(folder: Path, names: Sequence[str]) -> list[str] | None:
    tops = [name.partition("/")[0] if "/" in name else None for name in names]
    loose = [name for name, top in zip(names, tops, strict=True) if top is None]
    if len(loose) == len(names):
        return None
    if loose:
        raise ValueError(
            f"folder {str(folder)!r} holds images both in subfolders, which are labels, and beside them, "
            f"such as {loose[0]!r}; move them so that all have a label or none has"
        )
    return [top for top in tops if top is not None]


def _check_one_size(folder: Path, names: Sequence[str], looks: list[Look]) -> None:
    sizes = sizes_by_frequency(looks)
    if len(sizes) == 1:
        return
    odd = next(name for name, look in zip(names, looks, strict=True) if look.size == sizes[1])
    (wide, high), (odd_wide, odd_high) = sizes[:2]
    raise ValueError(
        f"folder {str(folder)!r} holds images of {len(sizes)} sizes (most are {wide}x{high}, "
        f"{odd} is {odd_wide}x{odd_high}): give --size S (size=S), such as "
        f"{min(min(size) for size in sizes)}, to centre-crop and resize them all"
    )
