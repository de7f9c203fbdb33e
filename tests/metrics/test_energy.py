import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import energy_distance as energy_of_scipy
from scipy.stats import norm

from fluvial.metrics import batched_energy_distance, energy_distance


def naive(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distances over pairs of different rows, term by term."""

    def mean(x: np.ndarray, y: np.ndarray, same: bool) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not same or i != j]
        return float(np.mean([np.linalg.norm(x[i] - y[j]) for i, j in pairs]))

    return 2 * mean(a, b, False) - mean(a, a, True) - mean(b, b, True)


def mean_distance(shift: float, s: float, r: float) -> float:
    """E |X - Y| of N(0, s^2) and N(shift, r^2): the mean of a folded normal variable."""
    spread = math.hypot(s, r)
    folded = math.sqrt(2 / math.pi) * math.exp(-(shift**2) / (2 * spread**2)) * spread
    return folded + shift * (1 - 2 * float(norm.cdf(-shift / spread)))


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 5), st.integers(0, 1000))
def test_is_the_double_sum(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), 1 + 2 * rng.normal(size=(m, d))
    assert energy_distance(a, b) == pytest.approx(naive(a, b), rel=1e-9, abs=1e-9)


def test_differs_from_scipys_biased_square_by_the_diagonal() -> None:
    """scipy has, in one dimension, the root of the estimate that divides by n^2 instead of n (n - 1)."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40), 1 + rng.normal(size=30)
    within = [np.abs(x[:, None] - x).sum() / (len(x) * (len(x) - 1)) / len(x) for x in (a, b)]
    biased = energy_distance(a[:, None], b[:, None]) + sum(within)
    assert biased == pytest.approx(float(energy_of_scipy(a, b)) ** 2, rel=1e-10)


@pytest.mark.parametrize(("shift", "s", "r"), [(0.0, 1.0, 2.0), (0.9, 1.0, 1.0), (2.0, 0.5, 1.5)])
def test_of_gaussians_in_one_dimension(shift: float, s: float, r: float) -> None:
    torch.manual_seed(0)
    values = batched_energy_distance(s * torch.randn(400, 50, 1), shift + r * torch.randn(400, 50, 1))
    expected = 2 * mean_distance(shift, s, r) - mean_distance(0, s, s) - mean_distance(0, r, r)
    error = float(values.std()) / len(values) ** 0.5
    assert abs(float(values.mean()) - expected) < 3 * error < 0.3 * expected


def test_unbiased_and_sometimes_negative() -> None:
    torch.manual_seed(1)
    values = batched_energy_distance(torch.randn(1000, 5, 3), torch.randn(1000, 5, 3))
    assert abs(float(values.mean())) < 3 * float(values.std()) / len(values) ** 0.5
    assert 0.3 < float((values < 0).double().mean()) < 0.7


def test_scales_with_the_units() -> None:
    torch.manual_seed(2)
    a, b = torch.randn(2, 30, 4, dtype=torch.float64)
    assert energy_distance(100 * a + 5, 100 * b + 5) == pytest.approx(100 * energy_distance(a, b), rel=1e-9)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="b must have at least 2 rows, got 1"):
        energy_distance(torch.zeros(3, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="a must be finite"):
        energy_distance(torch.full((3, 2), torch.inf), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="same number of sets, got 2 and 3"):
        batched_energy_distance(torch.zeros(2, 3, 2), torch.zeros(3, 3, 2))
