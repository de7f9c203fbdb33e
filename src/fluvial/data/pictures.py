"""Picture files read as uint8 arrays: which there are, what they are, their pixels, cropped and resized."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from jaxtyping import UInt8

from fluvial.data.memory import check_fits

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

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
    found = [path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES]
    shown = [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    return sorted((path for path in shown if path.is_file()), key=lambda path: path.relative_to(folder).parts)


def picture_names(folder: Path) -> tuple[str, ...]:
    """Paths of a folder's pictures relative to it, with forward slashes, in the order of ``list_pictures``."""
    return tuple(path.relative_to(folder).as_posix() for path in list_pictures(folder))


def look_at(path: Path) -> Look:
    """Reads the head of a picture file.

    Raises:
        ValueError: If it is damaged, has an alpha channel, or more than 8 bits per channel; the file is
            named.
    """
    return _reading(path, path, lambda image: _look(image, path))


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
        return _reading(path, path, lambda image: _pixels(image, path, size, crop, grey))

    first = pixels(paths[0])
    check_fits(
        len(paths) * first.nbytes, f"{len(paths)} pictures of shape {first.shape}", "give a smaller --size (size=)"
    )
    values = np.empty((len(paths), *first.shape), np.uint8)
    for i, image in enumerate(in_threads(pixels, paths)):
        values[i] = image
    values.flags.writeable = False
    return values


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

    with _naming_damage(name):
        image = Image.open(source)
    with image:
        return read(image)


@contextmanager
def _naming_damage(name: Path | str) -> Iterator[None]:
    """Turns what Pillow raises on a damaged file into one error that names the file."""
    from PIL.Image import DecompressionBombError

    try:
        yield
    except (OSError, SyntaxError, ValueError, DecompressionBombError) as error:
        raise ValueError(f"{name} is damaged or no image ({error})") from None


def _look(image: "Image", path: Path) -> Look:
    if image.has_transparency_data:
        raise ValueError(f"{path} has an alpha channel, which is not modelled; flatten it onto a background first")
    if image.mode not in _GREY + _COLOUR:
        raise ValueError(f"{path} has pixels of mode {image.mode}; expected 8-bit grey or RGB")
    width, height = image.size
    with _naming_damage(path):
        sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    return Look((height, width) if sideways else (width, height), image.mode in _GREY)


def _pixels(
    image: "Image", name: Path | str, size: int | None, crop: int | None, grey: bool
) -> UInt8[np.ndarray, "C H W"]:
    from PIL import ImageOps

    mode: Literal["L", "RGB"] = "L" if grey else "RGB"
    with _naming_damage(name):
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
