"""Rates: slopes in doubly logarithmic coordinates, with intervals over tasks."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.support.evaluation.intervals import LEVEL, Interval

RESAMPLINGS = 2000
NEAR = 4.0
"""Sizes within this factor of the support's make the rate there."""


def fitted_rate(sizes: Sequence[int], errors: Float[Tensor, "S B"], *, seed: int = 0) -> Interval:
    r"""The rate :math:`\alpha` of ``error ~ size^-alpha`` by least squares on logarithms of means over tasks.

    Unbiased estimates may have means that are not positive, which have no logarithm. Sizes where the mean over all
    tasks is not are left out (:func:`usable` says which are kept); resamplings where another one's is not count
    against both ends of the interval.

    Args:
        sizes: Support sizes, at least 2.
        errors: Errors of each task at each size.
        seed: Seed of the resampling of tasks.

    Returns:
        The rate with its 95 % interval over tasks, whose ends may be infinite; NaN, between infinities, where fewer
        than two sizes are left.

    Example:
        >>> fitted_rate((1, 10, 100), torch.tensor([[4.0, 2.0], [0.4, 0.2], [0.04, 0.02]])).text()
        '1 [1, 1]'
    """
    kept = usable(errors)
    if len(kept) < 2:
        return Interval(math.nan, -math.inf, math.inf)
    values, logs = errors[kept].double().numpy(), np.log(np.asarray(sizes, dtype=np.float64)[kept])
    tasks = values.shape[1]
    chosen = np.random.default_rng(seed).integers(tasks, size=(RESAMPLINGS, tasks))
    means = np.concatenate([values.mean(1, keepdims=True), values[:, chosen].mean(2)], 1)
    centred = logs - logs.mean()
    determined = (means > 0).all(0)
    slopes = -(centred @ np.log(np.where(means > 0, means, 1.0))) / (centred @ centred)
    tail = (1 - LEVEL) / 2
    # order statistics, since interpolation between infinite values would be NaN
    low = np.quantile(np.where(determined, slopes, -np.inf)[1:], tail, method="lower")
    high = np.quantile(np.where(determined, slopes, np.inf)[1:], 1 - tail, method="higher")
    return Interval(float(slopes[0]), float(low), float(high))


def usable(errors: Float[Tensor, "S B"]) -> list[int]:
    """Places of the sizes whose mean error over tasks is positive.

    Example:
        >>> usable(torch.tensor([[2.0, 1.0], [0.5, -0.7], [0.1, 0.1]]))
        [0, 2]
    """
    return [place for place, mean in enumerate(errors.double().mean(1).tolist()) if mean > 0]


def near_rate(sizes: Sequence[int], errors: Float[Tensor, "S B"], m: int) -> tuple[Interval, float]:
    """The rate about ``m``, and the mean error at ``m`` on the line that has it.

    It is fitted to the sizes within a factor of 4 of ``m``, or the two largest where there are fewer; of those with a
    positive mean, as in :func:`fitted_rate`. Where these are fewer than two, the rate is NaN and the error that at the
    size nearest to ``m``.

    Example:
        >>> rate, error = near_rate((10, 20, 40), torch.tensor([[4.0], [2.0], [1.0]]), 80)
        >>> rate.text(), round(error, 6)
        ('1 [1, 1]', 0.5)
    """
    kept = usable(errors)
    near = [k for k in kept if m / NEAR <= sizes[k] <= m * NEAR]
    near = near if len(near) > 1 else kept[-2:]
    chosen = [sizes[k] for k in near]
    rate = fitted_rate(chosen, errors[near])
    if len(near) < 2:
        closest = min(range(len(sizes)), key=lambda k: abs(math.log(sizes[k] / m)))
        return rate, float(errors[closest].double().mean())
    logs = errors[near].double().mean(1).log()
    centre = float(torch.tensor(chosen, dtype=torch.float64).log().mean())
    return rate, float((logs.mean() - rate.value * (math.log(m) - centre)).exp())
