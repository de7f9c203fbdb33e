r"""Kernel distance (KID): the unbiased squared maximum mean discrepancy under the cubic polynomial kernel.

.. math::
    \mathrm{MMD}^2 = \frac{\sum_{i \ne j} k(a_i, a_j)}{n (n - 1)}
    + \frac{\sum_{i \ne j} k(b_i, b_j)}{m (m - 1)} - \frac{2 \sum_{i, j} k(a_i, b_j)}{n m},
    \qquad k(x, y) = \left(\frac{x \cdot y}{d} + 1\right)^3 .

Unlike the Fréchet distance it is unbiased at every sample size, so it may come out slightly negative.

Source: Bińkowski et al. 2018, "Demystifying MMD GANs", section 4 and equation 4.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import TILE_BYTES, Samples, as_pair, tiles
from fluvial.randomness import generator


@dataclass(frozen=True)
class KernelDistance:
    """Kernel distance with its uncertainty.

    Args:
        value: Mean of the unbiased estimates over the subsets.
        standard_error: Of that mean, from the spread over the disjoint subsets; None for a single one.
        subsets: Number of disjoint subsets.

    Example:
        >>> KernelDistance(0.5, 0.1, 10).value
        0.5
    """

    value: float
    standard_error: float | None
    subsets: int


@checked
def kernel_distance(
    a: Samples, b: Samples, *, subsets: int = 10, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """Kernel distance (KID) between two sets: the mean of the unbiased MMD^2 over disjoint random subsets.

    Disjoint subsets have independent estimates, so the standard error is honest; published figures often come
    from overlapping subsets of 1,000, whose mean estimates the same quantity. ``subsets=1`` is the estimate
    from everything at once, without a standard error.

    Args:
        a: Features or samples, shape (n, ...); rows are flattened.
        b: The same for the other set, shape (m, ...).
        subsets: Number of disjoint subsets into which each set is split.
        subset_size: Rows of either set in one subset; by default every row is used (n or m over subsets).
        seed: Seed of the random split.

    Returns:
        Value and standard error, without unit.

    Raises:
        ValueError: If a set has too few rows for that many subsets, is not finite, or the numbers of
            features differ.

    Source:
        Bińkowski et al. 2018.

    Example:
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> near = fv.metrics.kernel_distance(x[:200], x[200:])
        >>> abs(near.value) < 3 * near.standard_error
        True
    """
    first, second = as_pair(a, b, ("a", "b"), minimum=2)
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1, got {subsets}")
    if subset_size is not None and subset_size < 2:
        raise ValueError(f"subset_size must be at least 2, got {subset_size}")
    parts = [
        _split(rows, subsets, subset_size, name, torch.randperm(len(rows), generator=generator(seed, side)))
        for side, (rows, name) in enumerate([(first, "a"), (second, "b")])
    ]
    values = torch.tensor([_mmd2(x.double(), y.double()) for x, y in zip(*parts, strict=True)], dtype=torch.float64)
    error = float(values.std() / subsets**0.5) if subsets > 1 else None
    return KernelDistance(float(values.mean()), error, subsets)


def _split(
    rows: Float[Tensor, "n d"], subsets: int, size: int | None, name: str, order: Tensor
) -> list[Float[Tensor, "_ d"]]:
    needed = subsets * (size or 2)
    if len(rows) < needed:
        raise ValueError(
            f"{name} must have at least {needed} rows for {subsets} disjoint subsets of "
            f"{size or 'at least 2'}, got {len(rows)}: ask for fewer subsets"
        )
    used = order if size is None else order[:needed]
    return [rows[index.to(rows.device)] for index in torch.tensor_split(used, subsets)]


def _mmd2(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _kernel_diagonal(a)) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - _kernel_diagonal(b)) / (m * (m - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b) / (n * m)


def _kernel_sum(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    d = a.shape[1]
    return sum(float((a[tile] @ b.mT).div_(d).add_(1).pow_(3).sum()) for tile in tiles(len(a), len(b), TILE_BYTES))


def _kernel_diagonal(a: Float[Tensor, "n d"]) -> float:
    return float((a.square().sum(1) / a.shape[1] + 1).pow(3).sum())
