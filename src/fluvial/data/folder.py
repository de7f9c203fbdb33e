"""A folder of pictures: all of one size, or brought to one; subfolders are labels."""

from pathlib import Path

from fluvial.data.dataset import Dataset
from fluvial.data.pictures import (
    PICTURE_SUFFIXES,
    Look,
    in_threads,
    list_pictures,
    look_at,
    majority_is_grey,
    read_pictures,
    sizes_by_frequency,
)


def read_folder(folder: Path, size: int | None = None, name: str | None = None) -> Dataset:
    """Reads the png, jpg, jpeg, bmp and webp pictures of a folder, sorted by path; not yet split.

    Pictures that lie in subfolders are labelled with the first subfolder's name; pictures that lie in the
    folder itself have no label. All become grey or all RGB, whichever most are. Photographs are turned
    upright. Hidden files are left out.

    Args:
        folder: The folder.
        size: Side in pixels to which each picture's central square is resized, with antialiasing; None keeps
            sizes.
        name: Name of the data set; the folder's own if None.

    Returns:
        uint8 images of shape (1 or 3, H, W).

    Raises:
        ValueError: If there are no pictures, or some lie in subfolders and some do not; sizes differ and
            ``size`` is not given; a picture is damaged, has an alpha channel or more than 8 bits per channel.
    """
    paths = list_pictures(folder)
    if not paths:
        raise ValueError(f"folder {str(folder)!r} holds no images ({', '.join(PICTURE_SUFFIXES)})")
    labels = _labels(folder, paths)
    looks = list(in_threads(look_at, paths))
    if size is None:
        _check_one_size(folder, paths, looks)
    values = read_pictures(paths, size=size, crop=None, grey=majority_is_grey(looks))
    return Dataset(values, labels, name=name or folder.resolve().name)


def _labels(folder: Path, paths: list[Path]) -> list[str] | None:
    parts = [path.relative_to(folder).parts for path in paths]
    loose = [path for path, part in zip(paths, parts, strict=True) if len(part) == 1]
    if len(loose) == len(paths):
        return None
    if loose:
        raise ValueError(
            f"folder {str(folder)!r} holds images both in subfolders, which are labels, and beside them, "
            f"such as {loose[0].name!r}; move them so that all have a label or none has"
        )
    return [part[0] for part in parts]


def _check_one_size(folder: Path, paths: list[Path], looks: list[Look]) -> None:
    sizes = sizes_by_frequency(looks)
    if len(sizes) == 1:
        return
    odd = next(path for path, look in zip(paths, looks, strict=True) if look.size == sizes[1])
    (wide, high), (odd_wide, odd_high) = sizes[:2]
    raise ValueError(
        f"folder {str(folder)!r} holds images of {len(sizes)} sizes (most are {wide}x{high}, "
        f"{odd.relative_to(folder)} is {odd_wide}x{odd_high}): give --size S (size=S), such as "
        f"{min(min(size) for size in sizes)}, to centre-crop and resize them all"
    )
