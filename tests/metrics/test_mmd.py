import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fluvial.metrics import batched_median_distance, batched_mmd2, median_distance, mmd, mmd2, pairwise


def naive(a: np.ndarray, b: np.ndarray, sigma: float) -> float:
    """Gretton et al. 2012, equation 3, term by term."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return math.exp(-float(((x - y) ** 2).sum()) / (2 * sigma**2))

    n, m = len(a), len(b)
    total = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    total += sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return total - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def between_gaussians(d: int, shift: float, s: float, r: float, sigma: float) -> float:
    """MMD^2 of N(0, s^2 I) and N((shift, 0, ...), r^2 I): a Gaussian kernel only adds to the variances."""

    def overlap(variance: float, apart: float) -> float:
        total = sigma**2 + variance
        return (sigma**2 / total) ** (d / 2) * math.exp(-(apart**2) / (2 * total))

    return overlap(2 * s**2, 0) + overlap(2 * r**2, 0) - 2 * overlap(s**2 + r**2, shift)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 5), st.floats(0.1, 10), st.integers(0, 1000))
def test_is_the_double_sum(n: int, m: int, d: int, sigma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), 1 + 2 * rng.normal(size=(m, d))
    assert mmd2(a, b, sigma) == pytest.approx(naive(a, b, sigma), rel=1e-10, abs=1e-13)


def test_tiles_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b, sigma = rng.normal(size=(3, 23, 4)), 1 + rng.normal(size=(3, 17, 4)), torch.tensor([0.5, 1.0, 3.0])
    expected = [naive(x, y, float(s)) for x, y, s in zip(a, b, sigma, strict=True)]
    for limit in (pairwise.PAIR_BYTES, 8 * 17 * 5, 1):
        monkeypatch.setattr(pairwise, "PAIR_BYTES", limit)
        assert batched_mmd2(a, b, sigma).tolist() == pytest.approx(expected, rel=1e-10)


def test_of_gaussians_is_the_closed_form() -> None:
    """The mean over draws meets the population's value, and is far from it under another bandwidth."""
    torch.manual_seed(0)
    a, b = 0.7 * torch.randn(400, 60, 3), 1.2 * torch.randn(400, 60, 3)
    b[..., 0] += 0.8
    values = batched_mmd2(a, b, 1.5)
    error = float(values.std()) / len(values) ** 0.5
    assert abs(float(values.mean()) - between_gaussians(3, 0.8, 0.7, 1.2, 1.5)) < 3 * error
    assert abs(float(values.mean()) - between_gaussians(3, 0.8, 0.7, 1.2, 3.0)) > 5 * error


@pytest.mark.parametrize("points", [3, 50])
def test_unbiased_and_negative_about_half_of_the_time(points: int) -> None:
    """Whoever takes the square root, or leaves the negative values out, has a bias of the size of the noise."""
    torch.manual_seed(1)
    values = batched_mmd2(torch.randn(1000, points, 2), torch.randn(1000, points, 2), 1.0)
    error = float(values.std()) / len(values) ** 0.5
    assert abs(float(values.mean())) < 3 * error
    assert 0.3 < float((values < 0).double().mean()) < 0.7
    assert float(values[values > 0].mean()) > 10 * error


def test_an_offset_of_all_points_costs_no_digits() -> None:
    rng = np.random.default_rng(2)
    a, b = np.round(1000 * rng.normal(size=(2, 30, 3)))
    near = mmd2(a, b, 1000.0)
    assert mmd2(a + 2.0**40, b + 2.0**40, 1000.0) == pytest.approx(near, rel=1e-10)


def test_float32_points_are_compared_in_float64() -> None:
    x = torch.randn(40, 8)
    assert mmd2(x[:20], x[20:], 2.0) == mmd2(x[:20].double(), x[20:].double(), 2.0)


@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 1000))
def test_median_of_the_distinct_pairs(n: int, d: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d))
    pairs = [float(np.linalg.norm(x[i] - x[j])) for i in range(n) for j in range(i)]
    assert median_distance(x) == pytest.approx(float(np.median(pairs)), rel=1e-12)


def test_median_of_two_points_is_their_distance() -> None:
    """With the diagonal's zeros it would be half of it, or zero."""
    assert median_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0]])) == 5.0
    assert median_distance(torch.tensor([[1.0], [1.0], [1.0]])) == 0.0


def test_median_of_many_is_that_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmd, "MOST_FOR_MEDIAN", 5)
    x = torch.randn(2, 9, 3)
    assert torch.equal(batched_median_distance(x), batched_median_distance(x[:, ::2]))


@pytest.mark.parametrize(
    ("a", "b", "sigma", "message"),
    [
        (torch.zeros(1, 2), torch.zeros(3, 2), 1.0, "a must have at least 2 rows, got 1"),
        (torch.zeros(3, 2), torch.zeros(3, 1), 1.0, "same number of features, got 2 and 1"),
        (torch.zeros(3, 2), torch.full((3, 2), torch.nan), 1.0, "b must be finite"),
        (torch.zeros(3, 2), torch.zeros(3, 2), 0.0, "bandwidth must be positive and finite, got 0"),
        (torch.zeros(3, 2), torch.zeros(3, 2), math.nan, "bandwidth must be positive and finite, got nan"),
    ],
)
def test_bad_input(a: torch.Tensor, b: torch.Tensor, sigma: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mmd2(a, b, sigma)


@pytest.mark.parametrize(
    ("a", "b", "sigma", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 3, 2), 1.0, r"a must have shape \(B, n, d\), got \(4, 3\)"),
        (torch.zeros(4, 3, 2), torch.zeros(5, 3, 2), 1.0, "same number of sets, got 4 and 5"),
        (torch.zeros(4, 1, 2), torch.zeros(4, 3, 2), 1.0, "a must have at least 2 points in each set, got 1"),
        (torch.zeros(4, 3, 2), torch.zeros(4, 3, 1), 1.0, "same dimension, got 2 and 1"),
        (torch.zeros(4, 3, 2), torch.zeros(4, 3, 2), torch.ones(3), r"bandwidth must be .* shape \(4,\), got \(3,\)"),
        (torch.zeros(4, 3, 2), torch.zeros(4, 3, 2), torch.tensor([1.0, 1, -1, 1]), "positive and finite, got -1"),
    ],
)
def test_bad_batches(a: torch.Tensor, b: torch.Tensor, sigma: float | torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batched_mmd2(a, b, sigma)
