import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.metrics import GaussianStatistics, frechet, frechet_distance


def correlated(n: int, d: int, seed: int, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d) + offset


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * np.trace(root).real)


def with_statistics(mean: np.ndarray, cov: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Data with exactly this mean and this unbiased covariance."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(cov).T + mean


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_agrees_with_the_float64_matrix_root_at_full_rank(offset: float) -> None:
    a, b = correlated(200, 16, 0, offset), correlated(150, 16, 1, offset)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-6)


def test_closed_form_for_commuting_covariances() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    s1, s2 = rng.uniform(0.1, 3, 6), rng.uniform(0.1, 3, 6)
    m1, m2 = rng.normal(size=6), rng.normal(size=6)
    a = with_statistics(m1, basis @ np.diag(s1**2) @ basis.T, 40, 1)
    b = with_statistics(m2, basis @ np.diag(s2**2) @ basis.T, 30, 2)
    expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_closed_form_in_two_dimensions_without_a_common_basis() -> None:
    # for 2 x 2 matrices tr(M^1/2) = sqrt(tr M + 2 sqrt(det M)), here M = C1 C2
    c1, c2 = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.4], [-0.4, 3.0]])
    a, b = with_statistics(np.zeros(2), c1, 20, 0), with_statistics(np.array([1.0, 2.0]), c2, 25, 1)
    root = np.sqrt(np.trace(c1 @ c2) + 2 * np.sqrt(np.linalg.det(c1 @ c2)))
    assert frechet_distance(a, b) == pytest.approx(5 + np.trace(c1 + c2) - 2 * root, rel=1e-9)


@pytest.mark.parametrize("shape", [(20, 300), (300, 20), (50, 1, 8, 8)])
def test_zero_for_equal_sets_with_fewer_samples_than_features_too(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape) + 5
    trace = x.reshape(len(x), -1).var(0, ddof=1).sum()
    assert frechet_distance(x, x.copy()) <= 1e-9 * trace


def test_features_of_very_different_scales_and_constant_ones_keep_their_digits() -> None:
    """Each feature is as accurate as its own deviation: a distance in small features is not lost beside large ones."""
    s1, s2 = np.array([1e-4, 1.0, 1e4]), np.array([3e-4, 1.0, 1e4])
    a = with_statistics(np.zeros(3), np.diag(s1**2), 40, 1)
    b = with_statistics(np.zeros(3), np.diag(s2**2), 30, 2)
    constant = np.full((40, 1), 7.0)
    assert frechet_distance(np.hstack([a, constant]), np.hstack([b, constant[:30]])) < 1e-9 * (s1**2).sum()
    small = frechet_distance(np.hstack([a[:, :1], constant]), np.hstack([b[:, :1], constant[:30]]))
    assert small == pytest.approx(4e-8, rel=1e-6)
    x = np.hstack([np.random.default_rng(0).normal(size=(50, 4)), np.zeros((50, 3))])
    assert frechet_distance(x, x.copy()) <= 1e-9 * x.var(0).sum()


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = correlated(60, 7, 0), correlated(50, 7, 1)
    whole = frechet_distance(a, b)
    monkeypatch.setattr(frechet, "TILE_BYTES", 8 * 7 * 9)
    assert frechet_distance(a, b) == pytest.approx(whole, rel=1e-12)


def test_few_samples_agree_with_the_same_data_in_the_subspace_they_span() -> None:
    """Embedding 5-d data isometrically into 100 dimensions changes nothing."""
    a, b = correlated(12, 5, 0), correlated(9, 5, 1)
    frame = np.linalg.qr(np.random.default_rng(2).normal(size=(100, 5)))[0].T
    assert frechet_distance(a @ frame, b @ frame) == pytest.approx(by_sqrtm(a, b), rel=1e-9)


def test_accepts_half_precision_tensors_and_arrays_alike() -> None:
    a, b = torch.randn(50, 3).half(), torch.randn(40, 3).half()
    assert frechet_distance(a, b) == frechet_distance(a.double().numpy(), b.double().numpy())


def test_statistics_give_the_same_distance_and_the_unbiased_covariance() -> None:
    a, b = correlated(60, 7, 0), correlated(5, 7, 1)
    one, two = GaussianStatistics.of(a), GaussianStatistics.of(b)
    assert one.factor.shape == (7, 7) and two.factor.shape == (5, 7) and two.count == 5
    np.testing.assert_allclose(one.covariance, np.cov(a, rowvar=False), rtol=1e-10, atol=1e-12)
    assert one.distance(two) == frechet_distance(a, b)


@given(
    n=st.integers(2, 12),
    m=st.integers(2, 12),
    d=st.integers(1, 8),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_symmetric_nonnegative_and_blind_to_common_motion(n: int, m: int, d: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = scale * rng.normal(size=(n, d)), scale * (rng.normal(size=(m, d)) * rng.uniform(0, 2, d) + 1)
    distance = frechet_distance(a, b)
    slack = 1e-9 * scale**2 * (1 + d)
    assert distance >= 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9, abs=slack)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    shift = scale * rng.normal(size=d)
    moved = frechet_distance(a @ rotation + shift, b @ rotation + shift)
    assert moved == pytest.approx(distance, rel=1e-9, abs=slack)


def test_noise_makes_digits_score_worse(digits: tuple[np.ndarray, ...]) -> None:
    train, held_out = digits[:2]
    rng = np.random.default_rng(0)
    scores = [frechet_distance(train + s * rng.normal(size=train.shape), held_out) for s in (0, 0.1, 0.2, 0.4)]
    assert scores == sorted(scores) and scores[1] > 1.1 * scores[0]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(1, 3), torch.zeros(4, 3), "a must have at least 2 rows, got 1"),
        (torch.zeros(4, 3), torch.zeros(0, 3), "b must have at least 2 rows, got 0"),
        (torch.zeros(4, 3), torch.zeros(4, 2), "same number of features, got 3 and 2"),
        (
            torch.zeros(4, 3),
            torch.full((4, 3), torch.nan),
            "b must be finite, got NaN or infinity in 4 of 4 rows",
        ),
        (torch.zeros(4, 0), torch.zeros(4, 0), "a must have at least one feature"),
    ],
)
def test_bad_input(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError):
        frechet_distance(torch.zeros(4, 3, dtype=torch.uint8), torch.zeros(4, 3))
