r"""Copies of training data among samples, told from the two nearest training data alone, without a scale to choose.

A sample at distance :math:`d_1` from the nearest and :math:`d_2` from the second nearest training datum counts as a
copy where :math:`d_1 < d_2 / 3`; training data that are equal count as one. Fresh data do so by chance, in few
dimensions above all (at uniform density in d dimensions a share of :math:`3^{-d}`), so the share among held-out data is
measured beside it.

Source: Yoon et al. 2023, "Diffusion Probabilistic Models Generalize when They Fail to Memorize"; Gu et al. 2023, "On
Memorization in Diffusion Models", section 2.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fluvial.metrics.distinct import distinct_rows
from fluvial.metrics.matrix import Samples, as_matrix
from fluvial.metrics.neighbours import k_nearest

COPY_RATIO = 1 / 3


@dataclass(frozen=True)
class Copying:
    """How near samples are to the training data, beside fresh data.

    Args:
        neighbour_ratio: Mean distance of the samples to the nearest training datum, over that of held-out data.
        copies: Number of samples with :math:`d_1 < d_2 / 3`.
        samples: Number of samples.
        held_out_copies: The same count among the held-out data: what chance gives.
        held_out: Number of held-out data.

    Example:
        >>> Copying(0.4, copies=30, samples=100, held_out_copies=0, held_out=50).rate
        0.3
    """

    neighbour_ratio: float
    copies: int
    samples: int
    held_out_copies: int
    held_out: int

    @property
    def rate(self) -> float:
        """Share of the samples that are copies."""
        return self.copies / self.samples

    @property
    def chance(self) -> float:
        """Share of the held-out data that the same rule takes for copies."""
        return self.held_out_copies / self.held_out


def copying(samples: Samples, held_out: Samples, train: Samples) -> Copying:
    """Counts copies among samples, and holds their distances to the training data against those of held-out data.

    Args:
        samples: Generated samples, shape (n, ...).
        held_out: Data of the same source that were not trained on, shape (m, ...).
        train: Training data, shape (N, ...), at least two of them distinct.

    Raises:
        ValueError: If a set has too few rows or is not finite, the numbers of features differ, or every held-out
            datum is also a training datum.

    Example:
        >>> train = torch.tensor([[0.0], [8.0]])
        >>> copying(torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0], [5.0]]), train).rate
        0.5
    """
    near, fresh = two_nearest(samples, train), two_nearest(held_out, train)
    reference = float(fresh[:, 0].mean())
    if reference == 0:
        raise ValueError("held_out must differ from train: every held-out row is also a training row")
    ratio = float(near[:, 0].mean()) / reference
    return Copying(ratio, _copies(near), len(near), _copies(fresh), len(fresh))


def _copies(distances: Float[Tensor, "n 2"]) -> int:
    first, second = distances.unbind(1)
    return int((first < COPY_RATIO * second).sum())


def two_nearest(points: Samples, train: Samples) -> Float[Tensor, "n 2"]:
    """Euclidean distances to the two nearest distinct training data, float64, shape (n, 2), the nearer first.

    Args:
        points: Shape (n, ...); rows are flattened.
        train: Shape (N, ...), at least two of them distinct.

    Raises:
        ValueError: If fewer than two training data are distinct, a value is not finite, or the numbers of features
            differ.

    Example:
        >>> two_nearest(torch.tensor([[1.0]]), torch.tensor([[0.0], [0.0], [4.0], [9.0]]))
        tensor([[1., 3.]], dtype=torch.float64)
    """
    rows = as_matrix(train, "train")
    first = distinct_rows(rows).first
    if len(first) < 2:
        raise ValueError(f"train must have at least 2 distinct rows, got {len(first)}")
    return k_nearest(points, rows[first.to(rows.device)], 2).distances
