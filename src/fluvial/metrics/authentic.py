r"""Authenticity: the share of samples that are no mere variations of one training datum.

A sample :math:`g` with nearest training datum :math:`r^*` is authentic unless it is nearer to it than every other
training datum is:

.. math:: A(g) = \mathbb{1}\!\left[\, \|g - r^*\| > \min_{r \ne r^*} \|r^* - r\| \,\right].

Fresh data are authentic about as often as not, so their authenticity is to be measured beside it. A training datum that
is stored twice is at distance 0 from its double, so that every sample near it counts as authentic.

Source: Alaa et al. 2022, "How Faithful is your Synthetic Data? Sample-level Metrics for Evaluating and Auditing
Generative Models", section 3.4.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import Samples, as_pair
from fluvial.metrics.neighbours import k_nearest


@checked
def local_ratios(samples: Samples, train: Samples) -> Float[Tensor, " n"]:
    """Distance of every sample to its nearest training datum, over that datum's to its own nearest one.

    Args:
        samples: Shape (n, ...).
        train: Training data, shape (N, ...), N >= 2.

    Returns:
        Ratios >= 0, shape (n,), float64; infinite where the datum has a double, and 1 where the sample equals both.

    Raises:
        ValueError: If a set is empty or not finite, there is one training datum only, or the numbers of features
            differ.

    Example:
        >>> from fluvial.metrics.authentic import local_ratios
        >>> local_ratios(torch.tensor([[1.0], [7.0]]), torch.tensor([[0.0], [4.0], [12.0]]))
        tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    points, known = as_pair(samples, train, ("samples", "train"))
    if len(known) < 2:
        raise ValueError(f"train must have at least 2 rows, got {len(known)}")
    found = k_nearest(points, known, 1)
    distance, index = found.distances[:, 0], found.indices[:, 0]
    own, inverse = torch.unique(index, return_inverse=True)
    # the second nearest of a datum among all is its nearest other one, or its double, both at the distance sought
    beyond = k_nearest(known[own], known, 2).distances[:, 1][inverse]
    return torch.where((distance == 0) & (beyond == 0), 1.0, distance / beyond)


@checked
def authenticity(samples: Samples, train: Samples) -> float:
    """Share of the samples that are further from their nearest training datum than that is from its nearest one.

    Args:
        samples: Shape (n, ...).
        train: Training data, shape (N, ...), N >= 2.

    Returns:
        A share in [0, 1]; 0 where all samples are copies.

    Raises:
        ValueError: As for :func:`local_ratios`.

    Source:
        Alaa et al. 2022, section 3.4.

    Example:
        >>> from fluvial.metrics.authentic import authenticity
        >>> authenticity(torch.tensor([[1.0], [30.0]]), torch.tensor([[0.0], [4.0], [12.0]]))
        0.5
    """
    return float((local_ratios(samples, train) > 1).double().mean())
