"""Means over tasks, their differences and their ratios, with 95 % intervals over other tasks of the family.

Tasks are drawn again from those at hand, with replacement; figures of one task stay together, so that what all models
have in common, easy tasks and hard ones, drops out of a difference or a ratio.

Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile intervals).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

DRAWS = 10_000
"""Resamplings from which an interval is taken."""
LEVEL = 0.95
"""Share of intervals that hold the truth."""

Values = Tensor | np.ndarray | Sequence[float]
"""One figure per task."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval.

    Args:
        value: The figure.
        low: Lower end.
        high: Upper end.

    Example:
        >>> Interval(2.0, 1.5, 2.6).text()
        '2 [1.5, 2.6]'
    """

    value: float
    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        """The figure and its interval with so many significant digits."""
        return f"{self.value:.{digits}g} [{self.low:.{digits}g}, {self.high:.{digits}g}]"

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for ``json.dump``; None where a ratio is unbounded or undetermined."""
        parts = {"value": self.value, "low": self.low, "high": self.high}
        return {name: part if math.isfinite(part) else None for name, part in parts.items()}


def mean_interval(values: Values, *, seed: int = 0) -> Interval:
    """Mean over tasks with its interval.

    Args:
        values: One figure per task, at least 2.
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are fewer than 2, or one is not finite.

    Example:
        >>> from fluvial.support.evaluation.intervals import mean_interval
        >>> mean_interval([1.0, 1.0, 1.0])
        Interval(value=1.0, low=1.0, high=1.0)
    """
    (column,) = _columns(values=values)
    return _interval(float(column.mean()), _resampled(column, seed=seed)[0])


def difference_interval(a: Values, b: Values, *, seed: int = 0) -> Interval:
    """Mean over tasks of ``a - b`` with its interval, paired by task.

    Args:
        a: One figure per task, at least 2.
        b: The same tasks' other figure.
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are fewer than 2, their numbers differ, or one is not finite.

    Example:
        >>> from fluvial.support.evaluation.intervals import difference_interval
        >>> difference_interval([1.0, 9.0, 5.0], [0.5, 8.5, 4.5])
        Interval(value=0.5, low=0.5, high=0.5)
    """
    first, second = _columns(a=a, b=b)
    return mean_interval(first - second, seed=seed)


def ratio_interval(numerator: Values, denominator: Values, *, seed: int = 0) -> Interval:
    """Mean of one figure over the mean of another with its interval, paired by task: the ratio of means.

    Unbiased squared MMDs may have a mean that is not positive. Where the denominator's is not, the ratio is unbounded:
    infinite where the numerator's is positive, undetermined where it is not either (NaN; and such resamplings count
    against both ends of the interval).

    Args:
        numerator: One figure per task, at least 2.
        denominator: The same tasks' other figure.
        seed: Seed of the resampling.

    Returns:
        The ratio; its ends may be infinite.

    Raises:
        ValueError: If there are fewer than 2, their numbers differ, or one is not finite.

    Example:
        >>> from fluvial.support.evaluation.intervals import ratio_interval
        >>> ratio_interval([2.0, 8.0, 4.0], [1.0, 4.0, 2.0])
        Interval(value=2.0, low=2.0, high=2.0)
    """
    top, bottom = _columns(numerator=numerator, denominator=denominator)
    value = float(_ratios(top.mean()[None], bottom.mean()[None], math.nan)[0])
    tops, bottoms = _resampled(top, bottom, seed=seed)
    return _interval(value, _ratios(tops, bottoms, -math.inf), _ratios(tops, bottoms, math.inf))


def _columns(**columns: Values) -> list[np.ndarray]:
    found = [
        np.asarray(column.detach().cpu() if isinstance(column, Tensor) else column, dtype=np.float64)
        for column in columns.values()
    ]
    for name, column in zip(columns, found, strict=True):
        if column.ndim != 1 or len(column) < 2:
            raise ValueError(f"{name} must hold one figure for each of at least 2 tasks, got shape {column.shape}")
        if not np.isfinite(column).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity for {(~np.isfinite(column)).sum()} tasks")
    if len({len(column) for column in found}) > 1:
        sizes = " and ".join(str(len(column)) for column in found)
        raise ValueError(f"{' and '.join(columns)} must be figures of the same tasks, got {sizes} of them")
    return found


def _resampled(*columns: np.ndarray, seed: int) -> list[np.ndarray]:
    """Means of each column over the same resamplings of the tasks."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(columns[0]), size=(DRAWS, len(columns[0])))
    return [column[chosen].mean(1) for column in columns]


def _ratios(top: np.ndarray, bottom: np.ndarray, undetermined: float) -> np.ndarray:
    bounded = bottom > 0
    unbounded = np.where(top > 0, math.inf, undetermined)
    return np.where(bounded, top / np.where(bounded, bottom, 1), unbounded)


def _interval(value: float, lows: np.ndarray, highs: np.ndarray | None = None) -> Interval:
    # order statistics, since interpolation between infinite values would be NaN
    tail = (1 - LEVEL) / 2
    low = np.quantile(lows, tail, method="lower")
    high = np.quantile(lows if highs is None else highs, 1 - tail, method="higher")
    return Interval(value, float(low), float(high))
