r"""What the choice of samples does to a Fréchet distance: its spread, by a jackknife, and its bias, by extrapolation.

The distance between two finite sets is too large by about :math:`c / n`, since their covariances err independently.
The jackknife leaves out one group of rows after another, of either set,

.. math:: \mathrm{se}^2 = \sum_{\text{set}} \frac{G - 1}{G} \sum_g (F_{(g)} - \bar F)^2 ,

and keeps every row apart from its copies, where a bootstrap would draw some twice and so raise the distance itself.

Source: Efron & Stein 1981, "The Jackknife Estimate of Variance"; Chong & Forsyth 2020, "Effectively Unbiased FID and
Inception Score and Where to Find Them" (extrapolation in 1/n).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import t as student
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.frechet import GaussianStatistics
from fluvial.metrics.matrix import Samples, as_pair
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator


@dataclass(frozen=True)
class FrechetEstimate:
    """Fréchet distance of the whole sets with its interval over other draws of the same sizes.

    Args:
        value: The distance, >= 0, in squared units of the features.
        standard_error: Its spread over draws, by the jackknife.
        low: Lower end of the 95 % interval, >= 0.
        high: Upper end.

    Example:
        >>> FrechetEstimate(1.0, 0.1, 0.8, 1.2).low
        0.8
    """

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class Extrapolation:
    """Fréchet distance against the number of rows, and the limit that a straight line in 1/n gives it.

    Args:
        sizes: Rows of either set, falling.
        values: Mean distance at each size.
        limit: Intercept at 1/n = 0: the distance without the bias of the sample size, may be slightly negative.

    Example:
        >>> Extrapolation((100, 50), (1.2, 1.4), 1.0).limit
        1.0
    """

    sizes: tuple[int, ...]
    values: tuple[float, ...]
    limit: float


@checked
def frechet_estimate(
    a: Samples, b: Samples, *, groups: int = 10, seed: int = 0, progress: ProgressCallback | None = None
) -> FrechetEstimate:
    """Fréchet distance as :func:`fluvial.metrics.frechet_distance`, with a jackknife interval around it.

    The interval is over draws of sets of these sizes; it says nothing of the bias that the sizes bring, for which see
    :func:`frechet_extrapolation`. It holds the estimate by construction.

    Args:
        a: Features or samples, shape (n, ...), n >= 4; rows are flattened.
        b: The same for the other set, shape (m, ...), m >= 4.
        groups: Random groups that each set is divided into; fewer where a set has fewer than two rows for each.
        seed: Seed of the division.
        progress: Called after every group.

    Returns:
        Distance, standard error, and the interval of Student's t with the degrees of freedom of the groups.

    Raises:
        ValueError: If a set has fewer than 4 rows or is not finite, the numbers of features differ, or ``groups`` is
            below 2.

    Source:
        Efron & Stein 1981.

    Example:
        >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> found = frechet_estimate(x[:200], x[200:] + 1)
        >>> found.low < 3 < found.high
        True
    """
    if groups < 2:
        raise ValueError(f"groups must be at least 2, got {groups}")
    first, second = as_pair(a, b, ("a", "b"), minimum=4)
    statistics = GaussianStatistics.of(first), GaussianStatistics.of(second)
    value = statistics[0].distance(statistics[1])
    variance, freedom = 0.0, 0
    for side, rows in enumerate((first, second)):
        count = min(groups, len(rows) // 2)
        order = torch.randperm(len(rows), generator=generator(seed, side)).to(rows.device)
        parts = torch.tensor_split(order, count)
        found = _without_each(rows, statistics[1 - side], parts)
        variance += (count - 1) / count * float((found - found.mean()).square().sum())
        freedom += count - 1
        if progress is not None:
            progress(Progress("jackknife", side + 1, 2))
    error = variance**0.5
    reach = float(student.ppf(0.975, freedom)) * error
    return FrechetEstimate(value, error, max(0.0, value - reach), value + reach)


@checked
def frechet_extrapolation(
    a: Samples,
    b: Samples,
    *,
    parts: Sequence[int] = (1, 2, 4),
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Extrapolation:
    """Fréchet distance at several equal sizes of both sets, extrapolated to infinitely many rows by least squares.

    Sound where the bias is proportional to 1/n, that is with more rows than features at every size.

    Args:
        a: Features or samples, shape (n, ...); rows are flattened.
        b: The same for the other set, shape (m, ...).
        parts: Divisors of min(n, m), two or more; as many disjoint subsets are averaged.
        seed: Seed of the choice of rows.
        progress: Called after every size.

    Raises:
        ValueError: If ``parts`` are not two or more different whole numbers, a set has fewer than 2 rows for the
            largest, is not finite, or the numbers of features differ.

    Source:
        Chong & Forsyth 2020.

    Example:
        >>> x = torch.randn(800, 3, generator=torch.Generator().manual_seed(0))
        >>> curve = frechet_extrapolation(x[:400], x[400:])
        >>> curve.sizes, abs(curve.limit) < curve.values[0]
        ((400, 200, 100), True)
    """
    divisors = sorted(set(parts))
    if len(divisors) < 2 or divisors[0] < 1:
        raise ValueError(f"parts must be two or more different numbers of at least 1, got {tuple(parts)}")
    first, second = as_pair(a, b, ("a", "b"), minimum=2 * divisors[-1])
    orders = [
        torch.randperm(len(rows), generator=generator(seed, 2, side)).to(rows.device)
        for side, rows in enumerate((first, second))
    ]
    smaller, sizes, values = min(len(first), len(second)), [], []
    for step, divisor in enumerate(divisors):
        size = smaller // divisor
        pairs = [[order[i * size : (i + 1) * size] for order in orders] for i in range(divisor)]
        found = [_distance(first[left], second[right]) for left, right in pairs]
        sizes.append(size)
        values.append(sum(found) / len(found))
        if progress is not None:
            progress(Progress("extrapolation", step + 1, len(divisors)))
    _, limit = np.polyfit(1 / np.array(sizes), values, 1)
    return Extrapolation(tuple(sizes), tuple(values), float(limit))


def _distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    return GaussianStatistics.of(a).distance(GaussianStatistics.of(b))


@dataclass(frozen=True)
class _Part:
    """Sums over some rows about a centre: of themselves, their squares, and their projections' rows or products."""

    count: int
    sum: Float[Tensor, " d"]
    square: Float[Tensor, ""]
    projected: Float[Tensor, "_ k"]

    @classmethod
    def of(
        cls, rows: Float[Tensor, "p d"], centre: Float[Tensor, " d"], factor: Float[Tensor, "k d"], products: bool
    ) -> "_Part":
        centred = rows.double() - centre
        projected = centred @ factor.mT
        return cls(
            len(rows), centred.sum(0), centred.square().sum(), projected.mT @ projected if products else projected
        )


def _without_each(
    rows: Float[Tensor, "n d"], other: GaussianStatistics, parts: Sequence[Int[Tensor, " _"]]
) -> Float[Tensor, " g"]:
    """Distance to ``other`` of all rows but those of each part, from sums over the parts: each row is read once.

    The singular values of A B^T are the roots of the eigenvalues of B C B^T, C the covariance of the rows kept, which
    is that of the rows projected on B; or, with fewer rows than B has, come from the projected rows themselves.
    """
    factor, offset = other.factor.to(rows.device), other.mean.to(rows.device)
    products = len(factor) <= len(rows)
    found = [_Part.of(rows[part], offset, factor, products) for part in parts]
    total = torch.stack([part.sum for part in found]).sum(0)
    square = torch.stack([part.square for part in found]).sum()
    scatter = torch.stack([part.projected for part in found]).sum(0) if products else total.new_zeros(0)
    distances = []
    for number, part in enumerate(found):
        count = len(rows) - part.count
        mean = (total - part.sum) / count
        shift = factor @ mean
        if products:
            spread = scatter - part.projected - count * torch.outer(shift, shift)
            cross = torch.linalg.eigvalsh(spread / (count - 1)).clamp_min(0).sqrt().sum()
        else:
            kept = torch.cat([each.projected for each in found[:number] + found[number + 1 :]]) - shift
            cross = torch.linalg.svdvals(kept).sum() / (count - 1) ** 0.5
        trace = (square - part.square - count * mean.square().sum()) / (count - 1)
        distances.append(mean.square().sum() + trace + factor.square().sum() - 2 * cross)
    return torch.stack(distances)
