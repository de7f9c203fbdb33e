import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi, chisquare, norm

import fluvial as fv
from fluvial.metrics import batched_median_distance, batched_mmd2
from fluvial.progress import Progress
from fluvial.support.evaluation.plug_in import (
    copy_distance,
    copy_ratios,
    expected_copy_distance,
    plug_in_mmd2,
    plug_in_samples,
    support_distances,
)
from fluvial.support.evaluation.tuning import DEFAULT_BANDWIDTHS, tuned_bandwidth
from fluvial.support.kernel.attention import KernelAttention
from fluvial.support.tasks import Shells


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mean_and_covariance_are_the_supports_plus_the_noise() -> None:
    support = 3 * torch.randn(2, 7, 3, generator=seeded(0), dtype=torch.float64)
    n, s = 40_000, 0.5
    x = plug_in_samples(support, n, s, seeded(1))
    for samples, points in zip(x, support, strict=True):
        covariance = torch.cov(points.T, correction=0) + s**2 * torch.eye(3)
        errors = (covariance.diagonal() / n).sqrt()
        assert bool(((samples.mean(0) - points.mean(0)).abs() < 4 * errors).all())
        bound = 4 * (2 * torch.outer(covariance.diagonal(), covariance.diagonal()) / n).sqrt()
        assert bool(((torch.cov(samples.T) - covariance).abs() < bound).all())


def test_support_points_are_equally_likely_and_independent() -> None:
    support = torch.arange(5.0).reshape(1, 5, 1)
    which = plug_in_samples(support, 5000, 0.0, seeded(0))[0, :, 0].long()
    assert chisquare(torch.bincount(which, minlength=5)).pvalue > 1e-3
    pairs = 5 * which[:-1] + which[1:]
    assert chisquare(torch.bincount(pairs, minlength=25)).pvalue > 1e-3


@pytest.mark.parametrize(("s", "steps"), [pytest.param(0.1, 150, marks=pytest.mark.slow), (0.5, 10)])
def test_in_one_dimension_the_exact_flow_keeps_quantiles(s: float, steps: int) -> None:
    """A flow on the line keeps the order of points: it ends at the quantile of the density estimate."""
    support = torch.tensor([[-2.0], [-1.5], [0.3], [2.0]], dtype=torch.float64)
    x0 = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)[:, None]
    field = fv.ExactField(support, fv.CondOT(sigma_min=s))
    x = fv.solve(field, x0, method="rk4", steps=steps).x
    reached = norm.cdf((x - support.T) / s).mean(1)
    assert np.abs(reached - norm.cdf(x0[:, 0])).max() < 1e-4


def test_integrating_the_exact_field_gives_the_same_distribution() -> None:
    """The flow of one task, and of a batch through kernel attention, against draws; another bandwidth is told apart."""
    s, n = 0.4, 500
    support = 1.5 * torch.randn(2, 6, 2, generator=seeded(2))
    x0 = torch.randn(2, n, 2, generator=seeded(3))
    path = fv.CondOT(sigma_min=s)
    alone = fv.solve(fv.ExactField(support[0], path), x0[0], method="heun", steps=12).x
    together = fv.solve(KernelAttention(path=path), x0, method="heun", steps=12, cond=support).x
    assert float((together[0] - alone).abs().max()) < 1e-3
    sigma = batched_median_distance(support)
    drawn = [plug_in_samples(support, n, s, seeded(seed)) for seed in range(4, 24)]
    null = torch.stack([batched_mmd2(a, b, sigma) for a, b in zip(drawn[::2], drawn[1::2], strict=True)])
    bound = 4 * null.square().mean(0).sqrt()
    mean = torch.stack([batched_mmd2(together, x, sigma) for x in drawn]).mean(0)
    assert bool((mean.abs() < bound).all())
    other = torch.stack([batched_mmd2(plug_in_samples(support, n, 2 * s, seeded(9)), x, sigma) for x in drawn])
    assert bool((other.mean(0) > bound).all())


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 1000))
def test_distances_are_those_of_the_nearest_point(m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, s = rng.normal(size=(2, 5, d)), rng.normal(size=(2, m, d))
    every = np.sort(np.linalg.norm(x[:, :, None] - s[:, None], axis=-1), axis=-1)
    samples, support = torch.from_numpy(x), torch.from_numpy(s)
    np.testing.assert_allclose(support_distances(samples, support), every[..., 0], rtol=1e-12)
    np.testing.assert_allclose(copy_distance(samples, support), every[..., 0].mean(1), rtol=1e-12)
    if m > 1:
        np.testing.assert_allclose(copy_ratios(samples, support), every[..., 0] / every[..., 1], rtol=1e-12)


def test_a_repeated_support_point_is_no_second_neighbour() -> None:
    support, x = torch.tensor([[[0.0], [0.0], [4.0]]]), torch.tensor([[[0.4]]])
    assert copy_ratios(x, support).item() == pytest.approx(0.4 / 3.6)
    assert math.isnan(copy_ratios(x, support[:, :2]).item())


def test_copies_lie_at_the_mean_of_the_chi_distribution() -> None:
    for d in (1, 2, 16, 300):
        assert expected_copy_distance(0.01, d) == pytest.approx(0.01 * float(chi(d).mean()), rel=1e-10)
    assert expected_copy_distance(1.0, 10_000) == pytest.approx(100.0, rel=1e-4)
    support = 5 * torch.randn(3, 50, 16, generator=seeded(0))
    near = copy_distance(plug_in_samples(support, 2000, 0.01, seeded(1)), support)
    error = 0.01 * float(chi(16).std()) / 2000**0.5
    assert float((near - expected_copy_distance(0.01, 16)).abs().max()) < 4 * error
    wide = copy_distance(plug_in_samples(support, 2000, 5.0, seeded(1)), support)
    assert float(wide.max()) < expected_copy_distance(5.0, 16)


@pytest.mark.parametrize(("m", "s"), [(1, 0.3), (6, 0.0), (6, 0.8)])
def test_mmd2_of_the_distribution_is_the_mean_over_draws(m: int, s: float) -> None:
    support, targets = torch.randn(1, m, 3, generator=seeded(0)), torch.randn(1, 60, 3, generator=seeded(1))
    sigma, repeats = 1.3, 600
    drawn = plug_in_samples(support.expand(repeats, -1, -1), 40, s, seeded(2))
    values = batched_mmd2(drawn, targets.expand(repeats, -1, -1), sigma)
    error = float(values.std()) / repeats**0.5
    assert abs(float(values.mean()) - float(plug_in_mmd2(support, targets, s, sigma))) < 3 * error
    assert abs(float(values.mean()) - float(plug_in_mmd2(support, targets, s + 0.5, sigma))) > 5 * error


def test_tuning_finds_the_bandwidth_that_draws_confirm() -> None:
    seen: list[Progress] = []
    family, grid = Shells(2), (0.01, 0.2, 5.0)
    found = tuned_bandwidth(family, 15, 12, seeded(0), points=60, grid=grid, progress=seen.append)
    assert found.bandwidth == grid[int(np.argmin(found.mmd2))] == 0.2
    assert [(p.step, p.total) for p in seen] == [(10, 12), (12, 12)]
    generator, errors = seeded(0), []
    for count in (10, 2):
        drawn = family.batch(count, 15, 180, generator)
        targets, references = drawn.targets[:, :60], drawn.targets[:, 60:120]
        x = plug_in_samples(drawn.support, 1500, 0.2, seeded(1))
        errors.append(batched_mmd2(x, targets, batched_median_distance(references)))
    assert found.mmd2[1] == pytest.approx(float(torch.cat(errors).mean()), abs=4e-3)
    assert DEFAULT_BANDWIDTHS[0] == 0.01 and DEFAULT_BANDWIDTHS[-1] == pytest.approx(10**0.5)


def test_bad_input() -> None:
    support = torch.zeros(2, 3, 2)
    with pytest.raises(ValueError, match="bandwidth must be at least 0 and finite, got -1"):
        plug_in_samples(support, 5, -1.0, seeded(0))
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        plug_in_samples(support, 0, 1.0, seeded(0))
    with pytest.raises(ValueError, match="support must have at least 1 point in each set, got 0"):
        plug_in_samples(support[:, :0], 5, 1.0, seeded(0))
    with pytest.raises(ValueError, match="samples and support must be of the same dimension, got 3 and 2"):
        copy_distance(torch.zeros(2, 4, 3), support)
    with pytest.raises(ValueError, match="targets must have at least 2 points in each set, got 1"):
        plug_in_mmd2(support, support[:, :1], 1.0, 1.0)
    with pytest.raises(ValueError, match="m must be at least 1, got 0"):
        tuned_bandwidth(Shells(2), 0, 4, seeded(0))
    with pytest.raises(ValueError, match="grid must hold bandwidths of at least 0"):
        tuned_bandwidth(Shells(2), 5, 4, seeded(0), grid=())
