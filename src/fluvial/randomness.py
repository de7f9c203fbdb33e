"""Counter-based randomness: every draw is a function of the seed and of where it is used, never of what was drawn
before.

The same seed then gives the same bits whatever the batch size or the interruption, and a checkpoint needs no
generator state.
"""

import math

import numpy as np
import torch
from torch import Tensor

_BLOCK_VALUES = 2**16


def generator(seed: int, *counters: int) -> torch.Generator:
    """CPU generator whose stream depends on ``(seed, *counters)`` alone.

    Args:
        seed: Non-negative integer.
        counters: Non-negative integers that name the use, such as the step and the rank.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> a, b = generator(0, 7), generator(0, 7)
        >>> bool((torch.randn(3, generator=a) == torch.randn(3, generator=b)).all())
        True
    """
    if min((seed, *counters)) < 0:
        raise ValueError(f"seed and counters must be non-negative, got {(seed, *counters)}")
    # numpy pads with zeros: with the number of counters in front, (seed, k) and (seed, k, 0) are different streams
    low, high = np.random.SeedSequence([seed, len(counters), *counters]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(low) | int(high & 0x7FFFFFFF) << 32)


def noise(seed: int, start: int, count: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal noise of shape ``(count, *shape)``; row ``i`` depends on ``(seed, start + i)`` alone.

    Rows are drawn in blocks of a size that the shape decides. torch's CPU generators tell only 2^32 seeds apart, so
    that one for each row would repeat a row among some ten thousands.

    Example:
        >>> bool((noise(0, 0, 4, (2,))[3] == noise(0, 3, 1, (2,))[0]).all())
        True
    """
    rows = max(1, _BLOCK_VALUES // max(1, math.prod(shape)))
    parts = [torch.empty((0, *shape), dtype=dtype)]
    for block in range(start // rows, -(-(start + count) // rows)):
        values = torch.randn((rows, *shape), generator=generator(seed, block), dtype=dtype)
        first = block * rows
        parts.append(values[max(start - first, 0) : max(start + count - first, 0)])
    return torch.cat(parts)
