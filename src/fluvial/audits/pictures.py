"""Images side by side, for the figures of findings: gaps are transparent, so that light and dark pages both work."""

from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fluvial.data import to_uint8


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be drawn as images: (1, H, W) grey or (3, H, W) in colour.

    Example:
        >>> is_picture((1, 8, 8)), is_picture((64,))
        (True, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape) > 0


def mosaic(x: Float[Tensor, "N C H W"], columns: int) -> Float[np.ndarray, "height width 4"]:
    """Images side by side, row by row, with gaps of one pixel that are transparent.

    Args:
        x: Grey (N, 1, H, W) or colour (N, 3, H, W) images in [-1, 1]; what lies outside is clipped.
        columns: Images to a row; the last row may have fewer.

    Returns:
        Red, green, blue and opacity in [0, 1], shape (height, width, 4).

    Raises:
        ValueError: If there is no image, another number of channels, or ``columns < 1``.

    Example:
        >>> mosaic(torch.ones(3, 1, 8, 8), columns=2).shape
        (17, 17, 4)
    """
    if len(x) == 0 or not is_picture(tuple(x.shape[1:])):
        raise ValueError(f"x must hold images of shape (N, 1, H, W) or (N, 3, H, W), got shape {tuple(x.shape)}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    pictures = to_uint8(x.detach().cpu()).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy() / np.float32(255)
    count, height, width, _ = pictures.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.float32)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        canvas[top : top + height, left : left + width, :3] = picture
        canvas[top : top + height, left : left + width, 3] = 1
    return canvas


def show(axes: Any, picture: Float[np.ndarray, "height width 4"]) -> None:
    """Draws a mosaic on matplotlib ``axes``, pixel by pixel, without ticks and frame.

    Example:
        >>> from fluvial.audits.drawing import draw_png
        >>> draw_png(lambda axes: show(axes, mosaic(torch.zeros(4, 3, 2, 2), 2)), size=(1, 1))[1:4]
        b'PNG'
    """
    axes.imshow(picture, interpolation="nearest")
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
