"""The jackknife is the one by definition, its interval covers, and the extrapolation takes the bias away."""

import numpy as np
import pytest
import torch

from fluvial.metrics import frechet_distance
from fluvial.metrics.frechet_sampling import Extrapolation, frechet_estimate, frechet_extrapolation
from fluvial.randomness import generator


def by_definition(a: np.ndarray, b: np.ndarray, groups: int, seed: int) -> float:
    """Standard error from distances computed anew without each group of either set."""
    variance = 0.0
    for side, rows in enumerate((a, b)):
        parts = np.array_split(torch.randperm(len(rows), generator=generator(seed, side)).numpy(), groups)
        kept = [np.delete(rows, part, axis=0) for part in parts]
        found = [frechet_distance(*((rest, b) if side == 0 else (a, rest))) for rest in kept]
        variance += (groups - 1) / groups * ((found - np.mean(found)) ** 2).sum()
    return variance**0.5


@pytest.mark.parametrize(
    ("n", "m", "d"), [(60, 45, 4), (23, 31, 40), (50, 12, 30), (12, 50, 30), (40, 60, 50), (200, 20, 19)]
)
def test_standard_error_is_the_jackknife_by_definition(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(n + d)
    a, b = rng.normal(size=(n, d)) + 50, rng.normal(size=(m, d)) * rng.uniform(0.3, 2, d) + 49
    found = frechet_estimate(a, b, groups=6, seed=3)
    assert found.value == frechet_distance(a, b)
    assert found.standard_error == pytest.approx(by_definition(a, b, 6, 3), rel=1e-6)
    assert found.low < found.value < found.high
    assert found == frechet_estimate(torch.from_numpy(a), torch.from_numpy(b), groups=6, seed=3)


def test_interval_holds_the_mean_over_draws() -> None:
    """About 95 times in 100 the interval of one draw holds the mean distance of many draws of its sizes."""
    rng = np.random.default_rng(0)
    scale = np.array([1, 2, 0.5])

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return rng.normal(size=(120, 3)), rng.normal(size=(90, 3)) * scale + 0.3

    mean = np.mean([frechet_distance(*draw()) for _ in range(800)])
    found = [frechet_estimate(*draw()) for _ in range(200)]
    assert 0.9 < np.mean([one.low <= mean <= one.high for one in found]) < 0.99


def test_interval_never_leaves_out_the_estimate_even_for_equal_sets() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    found = frechet_estimate(x, x.copy())
    assert 0 == found.low <= found.value <= found.high


def test_one_group_that_differs_widens_the_interval() -> None:
    x = np.random.default_rng(0).normal(size=(100, 3))
    outlier = x.copy()
    outlier[0] = 30
    assert frechet_estimate(outlier, x).standard_error > 5 * frechet_estimate(x + 1, x).standard_error


def test_extrapolation_takes_most_of_the_bias_away() -> None:
    """Between two Gaussians of distance 0.25 d; at 200 rows the plain estimate is several errors too high."""
    rng = np.random.default_rng(0)
    d, plain, limits = 10, [], []
    for _ in range(60):
        a, b = rng.normal(size=(200, d)), rng.normal(size=(200, d)) + 0.5
        curve = frechet_extrapolation(a, b)
        assert curve.sizes == (200, 100, 50) and curve.values[0] == pytest.approx(frechet_distance(a, b), rel=1e-9)
        plain.append(curve.values[0])
        limits.append(curve.limit)
    bias, rest = np.mean(plain) - 0.25 * d, np.mean(limits) - 0.25 * d
    assert bias > 0.1 and abs(rest) < 0.4 * bias


def test_extrapolation_is_the_least_squares_line() -> None:
    rng = np.random.default_rng(1)
    curve = frechet_extrapolation(rng.normal(size=(90, 2)), rng.normal(size=(70, 2)), parts=(1, 3, 5))
    design = np.stack([1 / np.array(curve.sizes), np.ones(3)], 1)
    assert curve.limit == pytest.approx(np.linalg.lstsq(design, np.array(curve.values))[0][1])
    assert isinstance(curve, Extrapolation) and curve.sizes == (70, 23, 14)


def test_bad_input() -> None:
    x = torch.zeros(20, 2)
    with pytest.raises(ValueError, match="groups must be at least 2, got 1"):
        frechet_estimate(x, x, groups=1)
    with pytest.raises(ValueError, match="b must have at least 4 rows, got 3"):
        frechet_estimate(x, x[:3])
    with pytest.raises(ValueError, match=r"parts must be two or more different numbers of at least 1, got \(2, 2\)"):
        frechet_extrapolation(x, x, parts=(2, 2))
    with pytest.raises(ValueError, match="a must have at least 8 rows, got 7"):
        frechet_extrapolation(x[:7], x)
