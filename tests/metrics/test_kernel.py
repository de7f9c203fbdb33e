import numpy as np
import pytest
import torch

from fluvial.metrics import kernel, kernel_distance
from fluvial.metrics.matrix import tiles


def naive(a: np.ndarray, b: np.ndarray) -> float:
    """Binkowski et al. 2018, equation 4, term by term."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(a), len(b)
    total = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    total += sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return total - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(23, 5)) + 1, 1.5 * rng.normal(size=(17, 5))


def test_one_subset_is_the_naive_double_loop(pair: tuple[np.ndarray, np.ndarray]) -> None:
    result = kernel_distance(*pair, subsets=1)
    assert result.value == pytest.approx(naive(*pair), rel=1e-10)
    assert result.standard_error is None and result.subsets == 1


def test_tiles_change_nothing(pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kernel_distance(*pair, subsets=1).value
    monkeypatch.setattr(kernel, "TILE_BYTES", 3 * 8 * 23)
    assert [s.stop for s in tiles(7, 23, kernel.TILE_BYTES)] == [3, 6, 7]
    assert kernel_distance(*pair, subsets=1).value == pytest.approx(whole, rel=1e-12)


def test_mean_over_disjoint_subsets_and_its_standard_error(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Equal rows make every subset alike, so that the spread vanishes; distinct rows give it."""
    a, b = np.ones((12, 3)), np.zeros((9, 3))
    same = kernel_distance(a, b, subsets=3)
    assert same.value == pytest.approx(8 + 1 - 2) and same.standard_error == pytest.approx(0, abs=1e-12)
    result = kernel_distance(*pair, subsets=4)
    assert result.standard_error is not None and result.standard_error > 0
    assert result == kernel_distance(*pair, subsets=4)
    assert result.value != kernel_distance(*pair, subsets=4, seed=1).value


def test_every_row_is_used_once() -> None:
    """Ones against zeros have 8 + 1 - 2; one row that differs must show whatever the split."""
    a, b = np.ones((11, 2)), np.zeros((8, 2))
    a[7] = 10
    for seed in range(10):
        assert kernel_distance(a, b, subsets=3, seed=seed).value > 8


def test_unbiased_in_small_samples() -> None:
    """Over many pairs from one distribution the mean is 0 within its error, at 4 rows too."""
    rng = np.random.default_rng(0)
    values = [kernel_distance(*rng.normal(size=(2, 4, 3)), subsets=1).value for _ in range(2000)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5


def test_standard_error_covers_the_truth() -> None:
    """Interval of 2 standard errors around KID between equal distributions holds 0 about 95 times in 100."""
    rng = np.random.default_rng(1)
    results = [kernel_distance(*rng.normal(size=(2, 100, 3)), subsets=10) for _ in range(200)]
    inside = np.mean([abs(r.value) < 2.26 * (r.standard_error or 0) for r in results])
    assert 0.9 < inside < 0.99


def test_grows_with_noise_on_digits(digits: tuple[np.ndarray, ...]) -> None:
    train, held_out = digits[:2]
    rng = np.random.default_rng(0)
    noisy = [train + s * rng.normal(size=train.shape) for s in (0, 0.3, 0.6, 1.2)]
    scores = [kernel_distance(x, held_out, subsets=1).value for x in noisy]
    assert scores == sorted(scores)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (19, {}, "a must have at least 20 rows for 10 disjoint subsets of at least 2, got 19"),
        (30, {"subsets": 2, "subset_size": 16}, "at least 32 rows for 2 disjoint subsets of 16, got 30"),
        (30, {"subsets": 0}, "subsets must be at least 1, got 0"),
        (30, {"subset_size": 1}, "subset_size must be at least 2, got 1"),
        (1, {"subsets": 1}, "a must have at least 2 rows, got 1"),
    ],
)
def test_bad_input(rows: int, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_distance(torch.zeros(rows, 2), torch.zeros(40, 2), **options)


def test_nan_and_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match="a must be finite"):
        kernel_distance(torch.full((30, 2), torch.inf), torch.zeros(30, 2))
    with pytest.raises(ValueError, match="same number of features, got 2 and 3"):
        kernel_distance(torch.zeros(30, 2), torch.zeros(30, 3))
