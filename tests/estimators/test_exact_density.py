"""The exact field's density against scikit-learn's kernel density estimate and against following the field."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from sklearn.neighbors import KernelDensity

import fluvial as fv

ROWS = np.random.default_rng(0).normal(size=(40, 3)) * [1.0, 5.0, 0.2] + [0, 100, 0]


@pytest.mark.parametrize("bandwidth", [0.02, 0.7, 30.0, "scott", "silverman"])
def test_it_is_the_kernel_density_estimate(bandwidth: float | str) -> None:
    points = ROWS[:10] + 0.3
    ours = fv.ExactDensity(bandwidth=bandwidth).fit(ROWS)
    theirs = KernelDensity(bandwidth=bandwidth).fit(ROWS)
    assert ours.bandwidth_ == pytest.approx(theirs.bandwidth_)
    np.testing.assert_allclose(ours.score_samples(points), theirs.score_samples(points), rtol=1e-9, atol=1e-7)


def test_it_is_what_following_its_field_gives() -> None:
    density = fv.ExactDensity(bandwidth=0.5).fit(ROWS / [1, 5, 0.2])
    points = torch.from_numpy((ROWS / [1, 5, 0.2])[:3] + 0.2)
    found = fv.log_prob(density.field_, points / density.scale_, divergence="field", rtol=1e-8, atol=1e-8)
    along = found.log_prob.numpy() - 3 * math.log(density.scale_)
    np.testing.assert_allclose(density.score_samples(points.numpy()), along, atol=1e-6)


def test_samples_follow_the_mixture() -> None:
    density = fv.ExactDensity(bandwidth=0.5).fit([[0.0], [4.0], [4.0]])
    drawn = density.sample(4000, random_state=0)[:, 0]
    assert kstest(drawn, lambda x: norm.cdf(x, 0, 0.5) / 3 + 2 / 3 * norm.cdf(x, 4, 0.5)).pvalue > 0.01
    assert np.array_equal(drawn[:, None], density.sample(4000, random_state=0))


def test_a_saved_density_is_the_same(tmp_path: Path) -> None:
    density = fv.ExactDensity(bandwidth="scott").fit(ROWS)
    density.save(tmp_path / "exact")
    again = fv.ExactDensity.load(tmp_path / "exact")
    assert again.bandwidth == "scott" and again.n_features_in_ == 3
    assert np.array_equal(again.score_samples(ROWS), density.score_samples(ROWS))
    assert np.array_equal(again.sample(5, random_state=0), density.sample(5, random_state=0))


@pytest.mark.parametrize(("scale", "bandwidth"), [(1e154, 1.0), (1e300, 1.0), (1.0, 1e-300)])
@pytest.mark.filterwarnings("ignore:overflow")
def test_bandwidths_that_float64_cannot_square_are_refused(scale: float, bandwidth: float) -> None:
    with pytest.raises(ValueError, match="bandwidth must be above 1e-100 of the rows' spread"):
        fv.ExactDensity(bandwidth=bandwidth).fit(ROWS * scale)


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.nan, "scot", None, True])
def test_bandwidths_are_checked(bandwidth: object) -> None:
    with pytest.raises(ValueError, match="bandwidth must be positive and finite, or scott or silverman, got"):
        fv.ExactDensity().set_params(bandwidth=bandwidth).fit(ROWS)
