r"""Energy distance between two sets of samples, unbiased.

.. math:: 2\, E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

It has no bandwidth, is 0 for equal distributions only, and as an unbiased estimate it may come out slightly negative.

Source: Székely & Rizzo 2013, "Energy statistics: A class of statistics based on distances", definition 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import Samples, as_pair
from fluvial.metrics.pairwise import Sets, as_set_pairs, mean_over_pairs


@checked
def energy_distance(a: Samples, b: Samples) -> float:
    """Unbiased energy distance between two sets of rows, in float64; may be negative.

    Args:
        a: Samples, shape (n, ...), n >= 2; rows are flattened.
        b: The other set, shape (m, ...), m >= 2.

    Returns:
        The estimate, in the units of the data.

    Raises:
        TypeError: If a set holds no floating point numbers.
        ValueError: If a set has fewer than 2 rows or is not finite, or the numbers of features differ.

    Source:
        Székely & Rizzo 2013.

    Example:
        >>> fv.metrics.energy_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [6.0]]))
        8.0
    """
    first, second = as_pair(a, b, ("a", "b"), minimum=2)
    return float(batched_energy_distance(first[None], second[None]))


@checked
def batched_energy_distance(a: Sets, b: Sets) -> Float[Tensor, " B"]:
    """:func:`energy_distance` of each of ``B`` pairs of sets.

    Args:
        a: Shape (B, n, d), n >= 2.
        b: Shape (B, m, d), m >= 2.

    Returns:
        The estimates, shape (B,), float64.

    Raises:
        ValueError: As for :func:`energy_distance`, or if the numbers of sets differ.

    Example:
        >>> x = torch.randn(3, 20, 2)
        >>> fv.metrics.batched_energy_distance(x, x + 100).shape
        torch.Size([3])
    """
    first, second = as_set_pairs(a, b, ("a", "b"), minimum=2)
    found = torch.zeros(len(first), dtype=torch.float64, device=first.device)
    for row, (x, y) in enumerate(zip(first, second, strict=True)):
        centre = y.double().mean(0)
        x, y = x.double() - centre, y.double() - centre
        within = mean_over_pairs(x, None, Tensor.sqrt_) + mean_over_pairs(y, None, Tensor.sqrt_)
        found[row] = 2 * mean_over_pairs(x, y, Tensor.sqrt_) - within
    return found
