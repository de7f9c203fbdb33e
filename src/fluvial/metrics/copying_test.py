r"""The C_T test: are samples nearer to the training data than held-out data are?

In every cell :math:`\pi` of a partition of space, the distances of the samples and of the held-out data to the training
data in that cell are compared by the z-score of the Mann-Whitney U statistic, and these are averaged over the cells,
weighted by their share of the held-out data:

.. math::
    Z_\pi = \frac{U_\pi - n_\pi m_\pi / 2}{\sqrt{n_\pi m_\pi (n_\pi + m_\pi + 1) / 12}}, \qquad
    C_T = \frac{\sum_\pi P(\pi) Z_\pi}{\sum_\pi P(\pi)},

U the number of pairs in which the sample is the further one. Far below 0: data-copying; far above: underfitting. Ties
count half and are allowed for in the variance, which is that formula without them. The cells are independent given
their counts, so under the null hypothesis C_T has standard deviation :math:`\sqrt{\sum P(\pi)^2} / \sum P(\pi)`.

Source: Meehan, Chaudhuri & Dasgupta 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models".
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import norm, rankdata
from sklearn.cluster import KMeans
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import Samples, as_matrix, as_pair
from fluvial.metrics.neighbours import k_nearest
from fluvial.randomness import generator

MOST_CELLS = 20
LEAST_ROWS = 20
"""Samples and held-out data that a cell must have each, to count (Meehan et al. use 20 as well)."""
_FITTED = 20_000  # rows that k-means sees, at most


@dataclass(frozen=True)
class CTTest:
    """Result of the C_T test.

    Args:
        statistic: C_T; negative where samples are nearer to the training data than held-out data are.
        p_value: Probability of a statistic as low, if samples are distributed as held-out data are.
        scores: Z-score of every cell that counts.
        weights: Share of the held-out data in each of them.
        cells: Number of cells in all.

    Example:
        >>> CTTest(-3.0, 0.001, (-3.0,), (1.0,), 1).statistic
        -3.0
    """

    statistic: float
    p_value: float
    scores: tuple[float, ...]
    weights: tuple[float, ...]
    cells: int


def rank_z_score(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> float:
    """Z-score of the Mann-Whitney U statistic: negative where ``a`` tends to be smaller than ``b``.

    Args:
        a: Numbers, at least one.
        b: Numbers, at least one.

    Returns:
        The score, with ties allowed for and without a correction for continuity; 0 if all numbers are equal.

    Source:
        Mann & Whitney 1947, "On a test of whether one of two random variables is stochastically larger than the other".

    Example:
        >>> round(rank_z_score(np.array([1.0, 2.0]), np.array([3.0, 4.0])), 4)
        -1.5492
    """
    n, m = len(a), len(b)
    both = np.concatenate([a, b])
    u = rankdata(both)[:n].sum() - n * (n + 1) / 2
    _, ties = np.unique(both, return_counts=True)
    total = n + m
    shrunk = float((ties.astype(float) ** 3 - ties).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - shrunk)
    return float((u - n * m / 2) / math.sqrt(variance)) if variance > 1e-9 * n * m else 0.0


@checked
def ct_test(samples: Samples, train: Samples, held_out: Samples, *, cells: int | None = None, seed: int = 0) -> CTTest:
    """The C_T test over the cells of k-means on the training data.

    Args:
        samples: Generated samples, shape (n, ...).
        train: Training data, shape (N, ...).
        held_out: Data of the same source that were not trained on, shape (m, ...).
        cells: Number of cells; by default such that the smaller of samples and held-out data has 40 rows per cell,
            at most 20. A cell counts if it has at least 20 of both; if none has, all is one cell.
        seed: Seed of k-means.

    Returns:
        The statistic with its p-value, normal approximation.

    Raises:
        ValueError: If a set is empty or not finite, the numbers of features differ, or ``cells`` is out of range.

    Source:
        Meehan, Chaudhuri & Dasgupta 2020, section 4.

    Example:
        >>> from fluvial.metrics.copying_test import ct_test
        >>> x = torch.randn(900, 3, generator=torch.Generator().manual_seed(0))
        >>> ct_test(x[:300], x[:300], x[300:600]).statistic < -5 < ct_test(x[600:], x[:300], x[300:600]).statistic
        True
    """
    known = as_matrix(train, "train")
    points = as_pair(samples, known, ("samples", "train"))[0].to(known.device)
    fresh = as_pair(held_out, known, ("held_out", "train"))[0].to(known.device)
    if cells is None:
        cells = max(1, min(MOST_CELLS, min(len(points), len(fresh)) // (2 * LEAST_ROWS), len(known) // LEAST_ROWS))
    if not 1 <= cells <= len(known):
        raise ValueError(f"cells must be in [1, {len(known)}], the number of training data, got {cells}")
    labels = _partition(known, [points, fresh], cells, seed)
    scores, weights = [], []
    for cell in range(cells):
        inside, sampled, held = (
            rows[label == cell] for rows, label in zip((known, points, fresh), labels, strict=True)
        )
        if len(inside) and min(len(sampled), len(held)) >= LEAST_ROWS:
            scores.append(_cell_score(sampled, held, inside))
            weights.append(len(held) / len(fresh))
    if not scores:
        scores, weights = [_cell_score(points, fresh, known)], [1.0]
    total = sum(weights)
    statistic = sum(w * z for w, z in zip(weights, scores, strict=True)) / total
    deviation = math.sqrt(sum(w * w for w in weights)) / total
    return CTTest(statistic, float(norm.cdf(statistic / deviation)), tuple(scores), tuple(weights), cells)


def _cell_score(samples: Float[Tensor, "n d"], held_out: Float[Tensor, "m d"], train: Float[Tensor, "N d"]) -> float:
    near = [k_nearest(rows, train, 1).distances[:, 0].cpu().numpy() for rows in (samples, held_out)]
    return rank_z_score(*near)


def _partition(
    train: Float[Tensor, "N d"], others: list[Float[Tensor, "_ d"]], cells: int, seed: int
) -> list[Int[Tensor, " _"]]:
    """Cell of every row of the training data and of the other sets; k-means sees some of the training data only."""
    sets = [train, *others]
    if cells == 1:
        return [torch.zeros(len(rows), dtype=torch.int64, device=rows.device) for rows in sets]
    random = generator(seed, 0)
    chosen = torch.randperm(len(train), generator=random)[:_FITTED].sort().values
    state = int(torch.randint(2**31, (), generator=random))
    # about the mean and in units of its size, so that the offset and the scale of the data cost no digits
    centre = train.mean(0, dtype=torch.float64)
    reach = max(float((part.double() - centre).abs().max()) for part in train.split(4096))
    arrays = [_scaled(rows, centre, reach or 1.0) for rows in sets]
    model = KMeans(cells, n_init=1, max_iter=50, random_state=state).fit(arrays[0][chosen.numpy()])
    return [torch.from_numpy(model.predict(x).astype(np.int64)).to(train.device) for x in arrays]


def _scaled(rows: Float[Tensor, "n d"], centre: Float[Tensor, " d"], scale: float) -> Float[np.ndarray, "n d"]:
    parts = [((part.double() - centre) / scale).float().cpu() for part in rows.split(4096)]
    return torch.cat(parts).numpy()
