"""Picture files read as uint8 arrays: which there are, what they are, their pixels, cropped and resized."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from jaxtyping import UInt8

from fluvial.data.memory import check_fits
from fluvial.data.picture_damage import QUIET, naming_damage

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_GREY = ("1", "L")
_COLOUR = ("RGB", "P", "CMYK", "YCbCr")
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Look:
    """What the head of a picture file tells: width and height in pixels, upright, and whether it is grey."""

    size: tuple[int, int]
    grey: bool


def list_pictures(folder: Path) -> list[Path]:
    """All pictures in a folder and its subfolders, by their path; hidden ones are left out."""
    return [folder / name for name in picture_names(folder)]


def picture_names(folder: Path) -> tuple[str, ...]:
    """Paths of a folder's pictures relative to it, with forward slashes, in the order of ``list_pictures``."""
    found: list[tuple[str, ...]] = []
    top = str(folder)
    for place, inner, names in os.walk(top):
        inner[:] = [name for name in inner if not name.startswith(".")]
        parts = () if place == top else Path(place).relative_to(folder).parts
        shown = [name for name in names if not name.startswith(".") and _suffix(name) in PICTURE_SUFFIXES]
        found += [(*parts, name) for name in shown if os.path.isfile(os.path.join(place, name))]
    return tuple("/".join(parts) for parts in sorted(found))


def holds_pictures(folder: Path) -> bool:
    """Whether there is any picture in a folder, in the sense of :func:`picture_names`."""
    for _, inner, names in os.walk(str(folder)):
        inner[:] = [name for name in inner if not name.startswith(".")]
        if any(not name.startswith(".") and _suffix(name) in PICTURE_SUFFIXES for name in names):
            return True
    return False


def no_pictures(folder: Path) -> str:
    """The words for a folder without pictures."""
    return f"folder {str(folder)!r} holds no images ({', '.join(PICTURE_SUFFIXES)})"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def look_at(path: Path) -> Look:
    """Reads the head of a picture file.

    Raises:
        ValueError: If it is damaged, has an alpha channel, or more than 8 bits per channel; the file is
            named.
    """
    return _reading(path, path, lambda image: _look(image, path))


def look_at_bytes(data: bytes, name: str) -> Look:
    """:func:`look_at` for a picture given as the bytes of its file; ``name`` is what messages call it."""
    return _reading(BytesIO(data), name, lambda image: _look(image, name))


def read_pictures(paths: Sequence[Path], *, size: int | None, crop: int | None, grey: bool) -> UInt8[np.ndarray, "..."]:
    """Pixels of pictures as uint8 of shape (N, C, H, W), C 1 or 3, decoded by several threads.

    Args:
        paths: One or more files; without ``size`` their pictures are of one size.
        size: Side in pixels to which each picture's central square is resized, with antialiasing (bicubic);
            or None.
        crop: Side of that central square; None takes the largest.
        grey: Whether all become grey; else all become RGB.

    Raises:
        ValueError: If a file is damaged, or smaller than ``crop``; the file is named; or if they do not fit into
            memory.
    """

    def pixels(path: Path) -> UInt8[np.ndarray, "C H W"]:
        return read_picture(path, path, size=size, crop=crop, grey=grey)

    first = pixels(paths[0])
    check_fits(
        len(paths) * first.nbytes, f"{len(paths)} pictures of shape {first.shape}", "give a smaller --size (size=)"
    )
    values = np.empty((len(paths), *first.shape), np.uint8)
    for i, image in enumerate(in_threads(pixels, paths)):
        if image.shape != first.shape:
            raise ValueError(f"{paths[i]} must have shape {first.shape} as {paths[0].name} has, got {image.shape}")
        values[i] = image
    values.flags.writeable = False
    return values


def read_picture(
    source: Path | BytesIO,
    name: Path | str,
    *,
    size: int | None,
    crop: int | None,
    grey: bool,
    look: bool = False,
) -> UInt8[np.ndarray, "C H W"]:
    """Pixels of one picture, shape (C, H, W), as :func:`read_pictures` makes them.

    Args:
        source: A file, or its bytes.
        name: What messages call it.
        size: As in :func:`read_pictures`.
        crop: As there.
        grey: As there.
        look: Whether to refuse what :func:`look_at` refuses, where nobody has looked at it yet.

    Raises:
        ValueError: As there.
    """

    def read(image: "Image") -> UInt8[np.ndarray, "C H W"]:
        if look:
            _look(image, name)
        return _pixels(image, name, size, crop, grey)

    if isinstance(source, Path):
        # In memory, as of a file Pillow reads parts of the length that they claim, for which memory is taken first.
        with naming_damage(name):
            source = BytesIO(source.read_bytes())
    return _reading(source, name, read)


def decode_picture(data: bytes, name: str) -> UInt8[np.ndarray, "C H W"]:
    """RGB pixels, shape (3, H, W), of a picture given as the bytes of its file.

    Raises:
        ValueError: If the bytes are no picture, with ``name``.
    """
    return _reading(BytesIO(data), name, lambda image: _pixels(image, name, None, None, False))


def in_threads(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Results of a function over items, in order; Pillow decodes outside of the interpreter's lock."""
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        # In portions, so that results do not pile up faster than they are taken.
        for start in range(0, len(items), 1024):
            yield from pool.map(function, items[start : start + 1024])


def majority_is_grey(looks: Sequence[Look]) -> bool:
    """Whether more pictures are grey than in colour."""
    return 2 * sum(look.grey for look in looks) > len(looks)


def sizes_by_frequency(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """The sizes that occur, (width, height), the most frequent first."""
    return [size for size, _ in Counter(look.size for look in looks).most_common()]


def _reading(source: Path | BytesIO, name: Path | str, read: Callable[["Image"], T]) -> T:
    from PIL import Image

    with QUIET, naming_damage(name):
        # Whatever its name, Pillow would open any kind of file, also PostScript: a program, which Ghostscript runs.
        image = Image.open(source, formats=_FORMATS)
    with QUIET, image:
        return read(image)


def _look(image: "Image", path: Path | str) -> Look:
    if image.has_transparency_data:
        raise ValueError(f"{path} has an alpha channel, which is not modelled; flatten it onto a background first")
    if image.mode not in _GREY + _COLOUR:
        raise ValueError(f"{path} has pixels of mode {image.mode}; expected 8-bit grey or RGB")
    width, height = image.size
    # Pillow decodes all pixels of a PNG to look behind them for an orientation, where hardly any file has one.
    in_head = image.format != "PNG" or "exif" in image.info
    with naming_damage(path):
        sideways = in_head and image.getexif().get(_ORIENTATION) in _SIDEWAYS
    return Look((height, width) if sideways else (width, height), image.mode in _GREY)


def _pixels(
    image: "Image", name: Path | str, size: int | None, crop: int | None, grey: bool
) -> UInt8[np.ndarray, "C H W"]:
    from PIL import ImageOps

    mode: Literal["L", "RGB"] = "L" if grey else "RGB"
    with naming_damage(name):
        upright = ImageOps.exif_transpose(image).convert(mode)
    if size is not None:
        upright = _centre_square(upright, name, size, crop)
    pixels = np.asarray(upright)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _centre_square(image: "Image", name: Path | str, size: int, crop: int | None) -> "Image":
    from PIL.Image import Resampling

    side = min(image.size) if crop is None else crop
    if side > min(image.size):
        raise ValueError(f"{name} is {image.width}x{image.height}, smaller than the {side} pixels of the centre crop")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Resampling.BICUBIC)
