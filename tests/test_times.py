"""Time samplers: their distributions, their range, and what they refuse."""

import math

import pytest
import torch
from scipy import stats

import fluvial as fv
from names import steady

SAMPLERS = [
    (fv.Uniform(), stats.uniform().cdf),
    (fv.LogitNormal(), lambda t: stats.norm(0, 1).cdf(stats_logit(t))),
    (fv.LogitNormal(mean=0.6, std=1.6), lambda t: stats.norm(0.6, 1.6).cdf(stats_logit(t))),
    (fv.LogUniformBandwidth(), lambda t: stats.uniform(math.log(0.01), math.log(1e4)).sf(-stats_logit(t))),
    (fv.LogUniformBandwidth(low=0.1, high=2.0), lambda t: stats.loguniform(0.1, 2).sf(1 / t - 1)),
]


def stats_logit(t):
    from scipy.special import logit

    return logit(t)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("times", "cdf"), SAMPLERS, ids=lambda value: getattr(type(value), "__name__", ""))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distribution(times, cdf, dtype):
    sample = times(20_000, generator=draw(), dtype=dtype)
    assert sample.shape == (20_000,) and sample.dtype == dtype
    assert stats.kstest(sample.double().numpy(), cdf).pvalue > 0.01


def test_the_distributions_differ():
    """The test above must be able to fail."""
    sample = fv.LogitNormal(mean=0.05)(20_000, generator=draw()).double().numpy()
    assert stats.kstest(sample, lambda t: stats.norm(0, 1).cdf(stats_logit(t))).pvalue < 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "times",
    [fv.Uniform(), fv.LogitNormal(mean=50.0), fv.LogitNormal(-500.0), fv.LogUniformBandwidth(1e-30, 1e-20)],
    ids=steady,
)
def test_range(times, dtype):
    sample = times(5_000, generator=draw(), dtype=dtype)
    assert sample.min() >= 0
    assert sample.max() < 1


def test_saturated_times_are_the_largest_below_one():
    sample = fv.LogitNormal(mean=50.0)(3, generator=draw())
    assert torch.equal(sample, torch.nextafter(torch.ones(3), torch.zeros(3)))


@pytest.mark.parametrize(("times", "_"), SAMPLERS, ids=lambda value: getattr(type(value), "__name__", ""))
def test_the_seed_alone_decides(times, _):
    assert torch.equal(times(9, generator=draw(3)), times(9, generator=draw(3)))
    assert not torch.equal(times(9, generator=draw(3)), times(9, generator=draw(4)))


def test_bandwidths_stay_between_their_bounds():
    t = fv.LogUniformBandwidth(0.1, 2.0)(5_000, generator=draw(), dtype=torch.float64)
    h = (1 - t) / t
    assert 0.1 <= h.min() < 0.101 and 1.98 < h.max() <= 2.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fv.LogitNormal(std=0.0), "std must be positive"),
        (lambda: fv.LogitNormal(std=math.inf), "std must be positive"),
        (lambda: fv.LogitNormal(mean=math.nan), "mean must be finite"),
        (lambda: fv.LogUniformBandwidth(low=0.0), "0 < low < high"),
        (lambda: fv.LogUniformBandwidth(low=2, high=1), "got low=2, high=1"),
        (lambda: fv.LogUniformBandwidth(high=math.inf), "0 < low < high"),
        (lambda: fv.Uniform()(-1, generator=draw()), "count must be at least 0, got -1"),
        (lambda: fv.LogitNormal()(3, generator=draw(), dtype=torch.int64), "dtype must be a floating"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_samplers_are_values():
    assert fv.LogitNormal(0.5) == fv.LogitNormal(mean=0.5, std=1.0)
    with pytest.raises(AttributeError):
        fv.Uniform().mean = 1
