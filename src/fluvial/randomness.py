"""Counter-based randomness: every draw is a function of the seed and of where it is used, never of what was drawn
before.

The same seed then gives the same bits whatever the batch size or the interruption, and a checkpoint needs no
generator state.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fluvial.kinds import checked
from fluvial.ranks import Ranks

_BLOCK_VALUES = 2**16
ROWS_TOGETHER = 1024
"""Rows of a batch whose draws share a stream."""
_APART = 8  # third counter; 1 to 7 are those of training and of its order

Drawn = TypeVar("Drawn", Tensor, tuple[Tensor, Tensor])


def generator(seed: int, *counters: int) -> torch.Generator:
    """CPU generator whose stream depends on ``(seed, *counters)`` alone.

    Args:
        seed: Non-negative integer.
        counters: Non-negative integers that name the use, such as the step and the rank.

    Raises:
        TypeError: If a number is not whole.
        ValueError: If a number is negative.

    Example:
        >>> a, b = generator(0, 7), generator(0, 7)
        >>> bool((torch.randn(3, generator=a) == torch.randn(3, generator=b)).all())
        True
    """
    if not all(isinstance(number, int | np.integer) for number in (seed, *counters)):
        raise TypeError(f"seed and counters must be whole numbers, got {(seed, *counters)}")
    if min((seed, *counters)) < 0:
        raise ValueError(f"seed and counters must be non-negative, got {(seed, *counters)}")
    # numpy pads with zeros: with the number of counters in front, (seed, k) and (seed, k, 0) are different streams
    low, high = np.random.SeedSequence([seed, len(counters), *counters]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(low) | int(high & 0x7FFFFFFF) << 32)


@checked
def noise(seed: int, start: int, count: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal noise of shape ``(count, *shape)``; row ``i`` depends on ``(seed, start + i)`` alone.

    Rows are drawn in blocks of a size that the shape decides. torch's CPU generators tell only 2^32 seeds apart, so
    that one for each row would repeat a row among some ten thousands.

    Args:
        seed: Non-negative integer.
        start: Number of the first row.
        count: How many rows.
        shape: Shape of a row.
        dtype: Floating-point type of the noise.

    Raises:
        ValueError: If a number is negative, or ``dtype`` is not a floating-point type.

    Example:
        >>> bool((noise(0, 0, 4, (2,))[3] == noise(0, 3, 1, (2,))[0]).all())
        True
    """
    if min(start, count) < 0 or min(shape, default=0) < 0:
        raise ValueError(f"start, count and shape must not be negative, got {start}, {count} and {tuple(shape)}")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type, got {dtype}")
    rows = max(1, _BLOCK_VALUES // max(1, math.prod(shape)))
    parts = [torch.empty((0, *shape), dtype=dtype)]
    for block in range(start // rows, -(-(start + count) // rows)):
        values = torch.randn((rows, *shape), generator=generator(seed, block), dtype=dtype)
        first = block * rows
        parts.append(values[max(start - first, 0) : max(start + count - first, 0)])
    return torch.cat(parts)


class RowGenerator(torch.Generator):
    """Generator of the rows of a batch that one process has: each row's draws are those that it would have had in one
    process with all of them.

    The rows of the whole batch draw in blocks of 1024, each from a stream of its own; a process makes the draws of the
    blocks that it has rows of. What is drawn for a batch as a whole, such as a bank, comes from the generator itself
    and is the same on all processes.

    Args:
        seed: Non-negative integer.
        step: Number of the batch.
        total: Rows of the whole batch.
        ranks: The processes that the rows are dealt to.

    Attributes:
        total: Rows of the whole batch.
        ranks: The processes.

    Example:
        >>> draw = lambda count, g: torch.randn(count, generator=g)
        >>> whole = draw_rows(draw, 5, RowGenerator(0, 7, 5))
        >>> second = draw_rows(draw, 2, RowGenerator(0, 7, 5, Ranks(1, 2)))
        >>> bool((whole[1::2] == second).all()), bool((whole == draw(5, generator(0, 7, 0))).all())
        (True, True)
    """

    total: int
    ranks: Ranks
    _streams: list[torch.Generator]
    _apart: torch.Generator

    def __new__(cls, seed: int, step: int, total: int, ranks: Ranks | None = None) -> "RowGenerator":
        if total < 1:
            raise ValueError(f"total must be at least 1, got {total}")
        self: RowGenerator = super().__new__(cls)
        self.total, self.ranks = total, Ranks() if ranks is None else ranks
        blocks = -(-total // ROWS_TOGETHER)
        self.manual_seed(generator(seed, step, 0 if blocks <= 1 else blocks).initial_seed())
        self._streams = [self] if blocks <= 1 else [generator(seed, step, block) for block in range(blocks)]
        self._apart = self if self.ranks.count == 1 else generator(seed, step, self.ranks.index, _APART)
        return self

    @property
    def apart(self) -> torch.Generator:
        """Source of what this process draws for its rows together; in one process the generator itself."""
        return self._apart

    @property
    def positions(self) -> range:
        """Positions in the whole batch of the rows that this process has."""
        return range(self.total)[self.ranks.rows(self.total)]

    def rows(self, draw: Callable[[int, torch.Generator], Drawn]) -> Drawn:
        """This process's rows of what ``draw(count, generator)`` makes of all."""
        parts = []
        for block, stream in enumerate(self._streams):
            first = block * ROWS_TOGETHER
            count = self.total if len(self._streams) == 1 else min(ROWS_TOGETHER, self.total - first)
            mine = slice((self.ranks.index - first) % self.ranks.count, None, self.ranks.count)
            if mine.start < count:
                parts.append(_picked(draw(count, stream), mine))
        if len(parts) == 1:
            return parts[0]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        firsts, seconds = zip(*parts, strict=True)
        return torch.cat(firsts), torch.cat(seconds)


def _picked(drawn: Drawn, mine: slice) -> Drawn:
    if mine.step == 1:
        return drawn
    return drawn[mine] if isinstance(drawn, Tensor) else (drawn[0][mine], drawn[1][mine])


def draw_rows(draw: Callable[[int, torch.Generator], Drawn], count: int, generator: torch.Generator) -> Drawn:
    """Draws of ``count`` rows: all of a batch, or with a :class:`RowGenerator` those that this process has.

    Args:
        draw: ``draw(count, generator)``: a tensor, or a pair of them, with one row for each.
        count: Rows that this process has.
        generator: Source of the draws.

    Raises:
        ValueError: If the generator is one of another number of rows.
    """
    if not isinstance(generator, RowGenerator):
        return draw(count, generator)
    here = len(generator.positions)
    if here != count:
        raise ValueError(f"the generator is that of {here} rows here, {generator.total} in all, got {count} rows")
    return generator.rows(draw)
