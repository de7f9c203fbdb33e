r"""Squared maximum mean discrepancy with a Gaussian kernel, unbiased, under a bandwidth that is given.

.. math::
    \mathrm{MMD}^2 = \frac{\sum_{i \ne j} k(a_i, a_j)}{n (n - 1)}
    + \frac{\sum_{i \ne j} k(b_i, b_j)}{m (m - 1)} - \frac{2 \sum_{i, j} k(a_i, b_j)}{n m},
    \qquad k(x, y) = \exp\left(-\frac{\|x - y\|^2}{2 \sigma^2}\right) .

Values for different models compare only under one bandwidth: take it from the reference set alone, once, as
:func:`median_distance` does, and not from each pair of sets. Between equal distributions the estimate is negative about
half of the time. Average it as it is: a square root would turn those values into NaN, and leaving them out raises the
mean.

Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6.
"""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import Samples, as_matrix, as_pair
from fluvial.metrics.pairwise import Sets, as_set_pairs, as_sets, mean_over_pairs

MOST_FOR_MEDIAN = 4096
"""Rows of which :func:`median_distance` takes all pairs; of larger sets it takes this many rows, evenly spread."""


@checked
def mmd2(a: Samples, b: Samples, bandwidth: float) -> float:
    r"""Unbiased squared MMD between two sets of rows, in float64; may be negative.

    Args:
        a: Samples, shape (n, ...), n >= 2; rows are flattened.
        b: The other set, shape (m, ...), m >= 2.
        bandwidth: The kernel's :math:`\sigma`, in the units of the data.

    Returns:
        The estimate, without unit: 0 on average between equal distributions, at most 2.

    Raises:
        TypeError: If a set holds no floating point numbers.
        ValueError: If a set has fewer than 2 rows or is not finite, the numbers of features differ, or ``bandwidth`` is
            not positive and finite.

    Source:
        Gretton et al. 2012, lemma 6.

    Example:
        >>> a, b = torch.tensor([[0.0], [0.0]]), torch.tensor([[2.0], [2.0]])
        >>> round(fv.metrics.mmd2(a, b, bandwidth=1.0), 6)
        1.729329
    """
    first, second = as_pair(a, b, ("a", "b"), minimum=2)
    return float(batched_mmd2(first[None], second[None], bandwidth))


@checked
def batched_mmd2(a: Sets, b: Sets, bandwidth: Float[Tensor, "*B"] | float) -> Float[Tensor, " B"]:
    """:func:`mmd2` of each of ``B`` pairs of sets.

    Args:
        a: Shape (B, n, d), n >= 2.
        b: Shape (B, m, d), m >= 2.
        bandwidth: One for all, or one for each pair, shape (B,).

    Returns:
        The estimates, shape (B,), float64.

    Raises:
        ValueError: As for :func:`mmd2`, or if the numbers of sets differ.

    Example:
        >>> x = torch.randn(3, 20, 2)
        >>> fv.metrics.batched_mmd2(x, x + 100, 1.0).shape
        torch.Size([3])
    """
    first, second = as_set_pairs(a, b, ("a", "b"), minimum=2)
    widths = checked_bandwidths(bandwidth, len(first))
    found = torch.zeros(len(first), dtype=torch.float64, device=first.device)
    for row, (x, y, width) in enumerate(zip(first, second, widths, strict=True)):
        centre = y.double().mean(0)
        x, y, kernel = x.double() - centre, y.double() - centre, partial(_gaussian, scale=-0.5 / width**2)
        within = mean_over_pairs(x, None, kernel) + mean_over_pairs(y, None, kernel)
        found[row] = within - 2 * mean_over_pairs(x, y, kernel)
    return found


def checked_bandwidths(bandwidth: Tensor | float, count: int) -> list[float]:
    """A bandwidth for each of ``count`` sets.

    Raises:
        ValueError: If one is not positive and finite, or their number is another.

    Example:
        >>> checked_bandwidths(0.5, 2)
        [0.5, 0.5]
    """
    given = torch.as_tensor(bandwidth, dtype=torch.float64)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != count):
        raise ValueError(f"bandwidth must be a number or have shape ({count},), got {tuple(given.shape)}")
    widths: list[float] = given.expand(count).tolist()
    for width in widths:
        if not (width > 0 and math.isfinite(width)):
            raise ValueError(f"bandwidth must be positive and finite, got {width:g}")
        if not 0 < width * width < math.inf:
            raise ValueError(f"bandwidth must have a square that is positive and finite in float64, got {width:g}")
    return widths


@checked
def median_distance(x: Samples) -> float:
    """Median distance between two different rows: the bandwidth that a reference set gives to all comparisons with it.

    Each pair counts once, and no row is paired with itself. Above 4,096 rows it is that of 4,096 of them, evenly
    spread over the set.

    Args:
        x: The reference set, shape (n, ...), n >= 2; rows are flattened.

    Returns:
        The median in the units of the data, the middle of the two central values for an even number of pairs; 0 if more
        than half of the pairs are equal rows.

    Raises:
        TypeError: If ``x`` holds no floating point numbers.
        ValueError: If it has fewer than 2 rows or is not finite.

    Source:
        Gretton et al. 2012, section 8 (the median heuristic).

    Example:
        >>> fv.metrics.median_distance(torch.tensor([[0.0], [1.0], [4.0]]))
        3.0
    """
    rows = as_matrix(x, "x", minimum=2)
    return float(batched_median_distance(rows[None]))


@checked
def batched_median_distance(x: Sets) -> Float[Tensor, " B"]:
    """:func:`median_distance` of each of ``B`` sets.

    Args:
        x: Shape (B, n, d), n >= 2.

    Returns:
        The medians, shape (B,), float64.

    Example:
        >>> fv.metrics.batched_median_distance(torch.tensor([[[0.0], [1.0]], [[0.0], [2.0]]]))
        tensor([1., 2.], dtype=torch.float64)
    """
    sets = as_sets(x, "x", minimum=2)
    if sets.shape[1] > MOST_FOR_MEDIAN:
        sets = sets[:, torch.linspace(0, sets.shape[1] - 1, MOST_FOR_MEDIAN).round().long().to(sets.device)]
    medians = []
    for rows in sets:
        distances = torch.pdist(rows.double())
        low, high = (len(distances) + 1) // 2, len(distances) // 2 + 1
        medians.append((distances.kthvalue(low).values + distances.kthvalue(high).values) / 2)
    return torch.stack(medians)


def _gaussian(squares: Tensor, scale: float) -> Tensor:
    return squares.mul_(scale).exp_()
