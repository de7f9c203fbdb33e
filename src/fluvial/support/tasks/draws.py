"""Draws for many tasks at once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Float[Tensor, "..."]:
    """Numbers drawn uniformly from ``[low, high)``, float32.

    Example:
        >>> found = uniform((2, 3), 1.0, 2.0, torch.Generator().manual_seed(0))
        >>> found.shape, bool(((found >= 1) & (found < 2)).all())
        (torch.Size([2, 3]), True)
    """
    return low + (high - low) * torch.rand(shape, generator=generator)


def choices(counts: Int[Tensor, "B"], n: int, generator: torch.Generator) -> Int[Tensor, "B n"]:
    """``n`` draws with replacement for each task, uniform over the indices below that task's count.

    Args:
        counts: How many there are to choose from, shape ``(B,)``, at least 1.
        n: How many draws.
        generator: Where the randomness comes from.

    Example:
        >>> choices(torch.tensor([1, 3]), 4, torch.Generator().manual_seed(0)).amax(1).tolist()
        [0, 2]
    """
    drawn = torch.rand(len(counts), n, generator=generator, dtype=torch.float64) * counts[:, None]
    return torch.minimum(drawn.long(), counts[:, None] - 1)


def padding(counts: Int[Tensor, "B"], most: int) -> Float[Tensor, "B k"]:
    """Log-weights of ``most`` places, uniform over the first ``counts`` of each task and minus infinity after; float64.

    Example:
        >>> padding(torch.tensor([1, 2]), 2).exp()
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000]], dtype=torch.float64)
    """
    used = torch.arange(most, device=counts.device) < counts[:, None]
    return torch.where(used, -torch.log(counts.double())[:, None], -torch.inf)
