"""Counter-based randomness: every draw is a function of the seed and of where it is used, never of what was drawn
before.

The same seed then gives the same bits whatever the batch size or the interruption, and a checkpoint needs no
generator state.
"""

import numpy as np
import torch
from torch import Tensor


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
    state = np.random.SeedSequence([seed, len(counters), *counters]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


def noise(seed: int, start: int, count: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal noise of shape ``(count, *shape)``; row ``i`` depends on ``(seed, start + i)`` alone.

    Example:
        >>> bool((noise(0, 0, 4, (2,))[3] == noise(0, 3, 1, (2,))[0]).all())
        True
    """
    rows = [torch.randn(shape, generator=generator(seed, i), dtype=dtype) for i in range(start, start + count)]
    return torch.stack(rows) if rows else torch.empty((0, *shape), dtype=dtype)
