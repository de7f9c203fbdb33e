"""Images between their two forms, uint8 grey levels and float in [-1, 1], and pictures made of them.

Level ``v`` of ``L`` is :math:`x = 2 v / (L - 1) - 1`; uint8 is made by one rule, :math:`\\mathrm{round}(127.5
(x + 1))`, clipped to 0..255, everywhere.
"""

import os
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor

from fluvial.checks import require_dense, require_tensor
from fluvial.kinds import checked

_PADDING = 2
_COMFORTABLE = 48  # pixels; a smaller image is enlarged in a grid, or its strokes cannot be seen


def from_uint8(values: UInt8[Tensor, "*S"], levels: int = 256) -> Float32[Tensor, "*S"]:
    """Grey levels 0..levels-1 as float32 in [-1, 1]; the ends are exactly -1 and 1.

    Raises:
        TypeError: If ``values`` is no tensor of uint8.
        ValueError: If it has no values, or there are not 2 to 256 levels.

    Example:
        >>> from_uint8(torch.tensor([0, 8, 16], dtype=torch.uint8), levels=17)
        tensor([-1.,  0.,  1.])
    """
    require_tensor("values", values)  # plain checks: this is called at every step of a training
    require_dense("values", values)
    if values.dtype != torch.uint8:
        raise TypeError(f"values must be uint8, got {values.dtype}")
    if not isinstance(levels, int) or not 2 <= levels <= 256:
        raise ValueError(f"levels must be a whole number from 2 to 256, got {levels!r}")
    # The numerator is a small whole number, exact in float32, so the division rounds once.
    return (2 * values.float() - (levels - 1)) / (levels - 1)


@checked
def to_uint8(x: Float[Tensor, "*S"]) -> UInt8[Tensor, "*S"]:
    r"""Float images as uint8: :math:`\mathrm{round}(127.5 (x + 1))`, ties to even, clipped to 0..255.

    Args:
        x: Values where -1 is black and 1 is white, any shape; values beyond are clipped.

    Raises:
        ValueError: If x holds NaN.

    Example:
        >>> to_uint8(torch.tensor([-1.0, 0.0, 1.0, 3.0]))
        tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    x = x.detach()
    if bool(torch.isnan(x).any()):
        raise ValueError("x must not be NaN: no image can be made of it")
    x = x if x.dtype == torch.float64 else x.float()
    return (127.5 * (x + 1)).round().clamp(0, 255).to(torch.uint8)


def channels_first(images: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "N C H W"]:
    """uint8 images of shape (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3, as (N, C, H, W).

    Raises:
        ValueError: If the shape is none of these; four channels are refused because alpha is not modelled.

    Example:
        >>> channels_first(np.zeros((5, 8, 9, 3), np.uint8)).shape
        (5, 3, 8, 9)
    """
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    if images.ndim == 4 and images.shape[3] in (1, 3):
        return np.moveaxis(images, 3, 1)
    if images.ndim == 4 and 4 in (images.shape[1], images.shape[3]):
        raise ValueError(f"images with an alpha channel are not taken (shape {images.shape}); drop the fourth channel")
    raise ValueError(
        f"uint8 values must be images of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3, got "
        f"{images.shape}; convert them to float32 if they are not images"
    )


@checked
def image_grid(
    x: Float[Tensor, "N C H W"] | UInt8[Tensor, "N C H W"], columns: int | None = None, scale: int = 1
) -> UInt8[np.ndarray, "..."]:
    """Images side by side, row by row, with white lines between them.

    Args:
        x: One or more images with 1 or 3 channels: float in [-1, 1] or uint8.
        columns: Images per row; by default as many as make the grid about square.
        scale: Whole factor by which each pixel is repeated.

    Returns:
        uint8 picture of shape (height, width) for grey images and (height, width, 3) for colour.

    Raises:
        ValueError: If there is no image, its channels are not 1 or 3, or a number is not positive.

    Example:
        >>> image_grid(torch.zeros(6, 1, 8, 8), columns=3).shape
        (22, 32)
    """
    count, channels, height, width = x.shape
    if count == 0 or channels not in (1, 3):
        raise ValueError(f"x must be one or more images with 1 or 3 channels, got shape {tuple(x.shape)}")
    columns = ceil(sqrt(count)) if columns is None else columns
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale must be positive, got {columns} and {scale}")
    columns = min(columns, count)
    pixels = (x if x.dtype == torch.uint8 else to_uint8(x)).cpu().numpy()
    pixels = pixels.repeat(scale, axis=2).repeat(scale, axis=3).transpose(0, 2, 3, 1)
    high, wide = height * scale + _PADDING, width * scale + _PADDING
    grid = np.full((ceil(count / columns) * high + _PADDING, columns * wide + _PADDING, channels), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * high + _PADDING, i % columns * wide + _PADDING
        grid[top : top + height * scale, left : left + width * scale] = image
    return grid[:, :, 0] if channels == 1 else grid


@checked
def save_grid(
    x: Float[Tensor, "N C H W"] | UInt8[Tensor, "N C H W"],
    path: str | os.PathLike[str],
    columns: int | None = None,
    scale: int | None = None,
) -> None:
    """Writes images as one PNG picture, whole or not at all; folders on the way are made.

    Args:
        x: One or more images, as for ``image_grid``.
        path: File that ends in ``.png``; replaced if it exists.
        columns: Images per row; by default about square.
        scale: Whole enlargement; by default what makes an image 48 pixels high or more.

    Raises:
        ValueError: If the path does not end in ``.png``, or ``image_grid`` refuses the images.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {str(path)!r}")
    scale = ceil(_COMFORTABLE / x.shape[2]) if scale is None and x.shape[2] else scale
    _write_png(image_grid(x, columns, scale or 1), Path(path))


@checked
def save_images(x: Float[Tensor, "N C H W"] | UInt8[Tensor, "N C H W"], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes each image as ``000000.png``, ``000001.png``, ... into a new or empty folder.

    Args:
        x: One or more images with 1 or 3 channels: float in [-1, 1] or uint8.
        folder: Made if absent.

    Returns:
        The files, in the order of the images.

    Raises:
        ValueError: If the folder holds something already: images of another run among these would go
            unnoticed.
    """
    folder = Path(folder)
    if x.shape[1] not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got shape {tuple(x.shape)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder {str(folder)!r} must be new or empty")
    pixels = (x if x.dtype == torch.uint8 else to_uint8(x)).cpu().numpy()
    files = [folder / f"{i:06d}.png" for i in range(len(pixels))]
    for file, image in zip(files, pixels, strict=True):
        _write_png(image[0] if len(image) == 1 else image.transpose(1, 2, 0), file)
    return files


def _write_png(pixels: NDArray[Any], path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(aside, format="png")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
