import math

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from fluvial.support.evaluation import intervals
from fluvial.support.evaluation.intervals import difference_interval, mean_interval, ratio_interval


def figures(seed: int, tasks: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Two skewed figures with a difficulty of each task in common, whose means are in a known ratio."""
    rng = np.random.default_rng(seed)
    task, own, other = np.exp(0.5 * rng.normal(size=(3, tasks)))
    return ratio * task * own, task * other


def test_is_scipys_percentile_bootstrap() -> None:
    a, b = figures(0, 60, 3.0)
    settings = {"paired": True, "vectorized": True, "method": "percentile", "n_resamples": 20_000, "rng": 1}
    ours, theirs = ratio_interval(a, b), bootstrap((a, b), lambda x, y, axis: x.mean(axis) / y.mean(axis), **settings)
    assert ours.value == pytest.approx(a.mean() / b.mean(), rel=1e-12)
    low, high = theirs.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.03 * (high - low))
    settings.pop("paired")
    low, high = bootstrap((a - b,), lambda x, axis: x.mean(axis), **settings).confidence_interval
    ours = difference_interval(torch.from_numpy(a), b)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.03 * (high - low))


def test_holds_a_known_ratio_in_about_95_of_100_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "DRAWS", 1000)
    found = [ratio_interval(*figures(seed, 100, 7.0), seed=seed) for seed in range(400)]
    inside = np.mean([interval.low <= 7 <= interval.high for interval in found])
    assert 0.91 < inside < 0.98
    above = np.mean([interval.low > 7 for interval in found])
    assert 0.005 < above < 0.06


def test_tasks_stay_together() -> None:
    """What two figures have in common drops out: without the pairing the interval would be wider."""
    a, b = figures(1, 80, 2.0)
    together, apart = ratio_interval(a, b), ratio_interval(a, np.random.default_rng(0).permutation(b))
    assert together.high - together.low < apart.high - apart.low
    exact = ratio_interval(5 * b, b)
    assert (exact.value, exact.low, exact.high) == pytest.approx((5, 5, 5))


def test_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_denominators_that_are_not_positive_leave_the_ratio_open() -> None:
    """Unbiased squared MMDs of a good model are about zero on average."""
    rng = np.random.default_rng(0)
    top, near_zero = 1 + 0.1 * rng.normal(size=50), 0.01 + rng.normal(size=50)
    found = ratio_interval(top, near_zero - near_zero.mean() + 0.05)
    assert found.value > 0 and 0 < found.low < found.value < found.high == math.inf
    assert ratio_interval(top, near_zero - near_zero.mean() - 0.05).value == math.inf
    nothing = ratio_interval(-top, near_zero - near_zero.mean() - 0.05)
    assert math.isnan(nothing.value) and nothing.low == -math.inf and nothing.high == math.inf
    assert nothing.to_dict() == {"value": None, "low": None, "high": None}
    assert found.to_dict()["high"] is None and found.text(2).endswith("inf]")


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"values must hold one figure for each of at least 2 tasks, got shape \(1,\)"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match="denominator must be finite, got NaN or infinity for 1 tasks"):
        ratio_interval([1.0, 2.0], [1.0, math.nan])
    with pytest.raises(ValueError, match="a and b must be figures of the same tasks, got 2 and 3 of them"):
        difference_interval([1.0, 2.0], [1.0, 2.0, 3.0])
