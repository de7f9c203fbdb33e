"""The exact velocity in float64 from subtracted distances: what every method's error is measured against."""

import torch
from torch import Tensor

from exact_field.shapes import as_floats

ELEMENTS = 2**18
"""Numbers in one block of differences: few enough to stay in a cache."""


def reference_velocity(support: Tensor, x: Tensor, t: float) -> Tensor:
    """Velocity at ``(x, t)`` on the straight path, float64, by two passes over the support in blocks."""
    x = x.double()
    size = max(1, ELEMENTS // x.numel())
    logits = torch.cat([_exponents(as_floats(block, torch.float64), x, t) for block in support.split(size)], 1)
    weights = torch.softmax(logits, 1)
    mean = torch.zeros_like(x)
    for start, block in zip(range(0, len(support), size), support.split(size), strict=True):
        mean += weights[:, start : start + size] @ as_floats(block, torch.float64)
    return (mean - x) / (1 - t)


def _exponents(data: Tensor, x: Tensor, t: float) -> Tensor:
    return (x[:, None] - t * data).square().sum(2) / (-2 * (1 - t) ** 2)


def rows_to_check(points: int, dim: int, batch: int) -> int:
    """So many rows that the reference takes seconds, at least 8."""
    return min(batch, max(8, min(256, 10**9 // (points * dim))))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest error of a row relative to the norm of what was expected."""
    found, expected = found.double().flatten(1), expected.double().flatten(1)
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
