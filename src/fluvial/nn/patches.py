"""Images as sequences of patches and back, and fixed positions for them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


def to_patches(x: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B n P"]:
    """Square patches of images, row by row.

    Args:
        x: Images, shape ``(B, C, H, W)``, with H and W multiples of ``side``.
        side: Side of a patch in pixels.

    Returns:
        Shape ``(B, (H / side) (W / side), C side^2)``.

    Example:
        >>> to_patches(torch.arange(8.0).reshape(1, 1, 2, 4), 2)
        tensor([[[0., 1., 4., 5.],
                 [2., 3., 6., 7.]]])
    """
    return pixel_unshuffle(x, side).flatten(2).transpose(1, 2)


def from_patches(patches: Float[Tensor, "B n P"], shape: tuple[int, int, int], side: int) -> Float[Tensor, "B C H W"]:
    """Images of their patches: the inverse of :func:`to_patches`.

    Args:
        patches: Shape ``(B, n, C side^2)``.
        shape: ``(C, H, W)``.
        side: Side of a patch in pixels.

    Example:
        >>> x = torch.randn(2, 3, 4, 6)
        >>> torch.equal(from_patches(to_patches(x, 2), (3, 4, 6), 2), x)
        True
    """
    grid = patches.transpose(1, 2).unflatten(2, (shape[1] // side, shape[2] // side))
    return pixel_shuffle(grid, side).contiguous()


def grid_positions(rows: int, columns: int, dim: int) -> Float[Tensor, "n F"]:
    """Sines and cosines of the row and of the column of each place of a grid.

    Args:
        rows: Rows of the grid.
        columns: Columns of the grid.
        dim: Number of features, a multiple of 4; half of them tell the row.

    Returns:
        Shape ``(rows columns, dim)``.

    Source:
        Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", appendix D.4, with the frequencies of Vaswani et al.
        2017, "Attention Is All You Need", section 3.5.

    Example:
        >>> grid_positions(2, 3, 8).shape
        torch.Size([6, 8])
    """
    quarter = dim // 4
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(quarter) / quarter)

    def waves(count: int) -> Tensor:
        angle = torch.arange(count)[:, None] * frequencies
        return torch.cat([angle.sin(), angle.cos()], 1)

    down = waves(rows)[:, None].expand(-1, columns, -1)
    across = waves(columns)[None].expand(rows, -1, -1)
    return torch.cat([down, across], 2).flatten(0, 1)


def patch_side(shape: tuple[int, ...], largest: int = 8, least: int = 4) -> int:
    """The largest side of a patch, in pixels, that divides an image and leaves ``least`` patches along its sides.

    Args:
        shape: Shape ``(C, H, W)`` of the image.
        largest: Largest side.
        least: Fewest patches along a side.

    Example:
        >>> [patch_side((1, side, side)) for side in (8, 28, 32, 64)]
        [2, 7, 8, 8]
    """
    fitting = [side for side in range(1, largest + 1) if all(size % side == 0 for size in shape[1:])]
    return max((side for side in fitting if min(shape[1:]) // side >= least), default=1)
