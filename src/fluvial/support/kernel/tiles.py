"""Blocks of tasks cut into tiles, so that memory is bounded whatever their number, in backward passes too."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fluvial.support.kernel.logits import Block, differentiates_forward

# Bytes of one array of logits or lifted queries; a handful of such arrays are alive at once. On CPUs they stay in the
# cache; elsewhere many small tiles would leave the device idle.
_BYTES_ON_CPU = 2 * 2**20
_BYTES_ELSEWHERE = 128 * 2**20

OfBlock = Callable[[Block, Tensor | None], Tensor]


def tiled(
    function: OfBlock, block: Block, late: Tensor | None, heads: int = 1, learned: Sequence[Tensor] = ()
) -> Tensor:
    """A function of a block, tile by tile; where it is differentiated, each tile is computed again backward.

    Args:
        function: Takes a block and those of its rows that are late, or None if no row is; returns ``(b, n, *)``.
        block: Points and supports.
        late: Rows that need more care than others, bool ``(b, n)``; None if no row does.
        heads: Copies of the logits that the function makes.
        learned: What else it depends on.

    Returns:
        Its values for all of the block.

    Example:
        >>> zeros = torch.zeros(3, 2, 1)
        >>> block = Block(zeros, zeros[..., 0].double(), zeros, None)
        >>> tiled(lambda part, late: part.x + 1, block, None).shape
        torch.Size([3, 2, 1])
    """
    tasks, step = _tile(block, heads)
    (count, rows, _), learned = block.x.shape, tuple(learned)
    if count <= tasks and rows <= step:
        return function(block, late if late is not None and bool(late.any()) else None)
    inputs = (block.x, block.t, block.support, *learned)
    again = torch.is_grad_enabled() and any(part.requires_grad for part in inputs)
    again = again and not differentiates_forward(*inputs)

    def of(part: Block, needed: Tensor | None) -> Tensor:
        if again:
            found: Tensor = checkpoint(function, part, needed, use_reentrant=False, preserve_rng_state=False)
            return found
        return function(part, needed)

    anywhere = torch.zeros(count, dtype=torch.bool) if late is None else late.any(1).cpu()
    marked = zip(_split(late, tasks, count), anywhere.split(tasks), strict=True)
    found = []
    for part, (needed, wanted) in zip(_blocks(block, tasks), marked, strict=True):
        careful = needed if bool(wanted.any()) else None
        marks = _split(careful, step, rows, 1)
        found.append(_joined([of(*pair) for pair in zip(_row_blocks(part, step), marks, strict=True)], 1))
    return _joined(found, 0)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _tile(block: Block, heads: int) -> tuple[int, int]:
    """Tasks and rows of a tile: several whole tasks, or some rows of one."""
    (_, rows, dim), points = block.x.shape, block.support.shape[1]
    size = _BYTES_ON_CPU if block.x.device.type == "cpu" else _BYTES_ELSEWHERE
    room = max(1, size // (8 * heads * max(points, dim)))
    return max(1, room // rows), min(rows, room)


# Splits have one gradient for all parts, where each slice would have one as large as the whole.
def _split(part: Tensor | None, size: int, length: int, dim: int = 0) -> Sequence[Tensor | None]:
    return [None] * -(-length // size) if part is None else part.split(size, dim)


def _blocks(block: Block, size: int) -> list[Block]:
    masks = _split(block.mask, size, len(block.x))
    parts = zip(block.x.split(size), block.t.split(size), block.support.split(size), masks, strict=True)
    return [Block(*part) for part in parts]


def _row_blocks(block: Block, size: int) -> list[Block]:
    rows = zip(block.x.split(size, 1), block.t.split(size, 1), strict=True)
    return [Block(x, t, block.support, block.mask) for x, t in rows]
