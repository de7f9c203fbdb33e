"""Intervals against scipy; what a gap is taken to mean; which data are rare; nothing depends on the batch."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import fluvial as fv
from fluvial.audits.density import Part, choose, gap_between, rarest, score
from fluvial.audits.density_view import histogram_lines, histogram_png, shares_of
from fluvial.audits.estimates import Estimate
from fluvial.densities import Trace, dequantized
from fluvial.randomness import generator
from fluvial.solvers.sampling import Solver

STAY = lambda x, t: 0 * x  # noqa: E731 (its density is the standard normal one)
ONCE = {"trace": Trace(), "solver": Solver("euler", 1)}


def _normal(name: str, shift: float, n: int = 300, seed: int = 0) -> Part:
    x = torch.randn(n, 3, generator=generator(seed)) + shift
    return Part(name, x, torch.arange(n))


def test_intervals_are_those_of_scipy() -> None:
    a, b = (torch.randn(n, generator=generator(n), dtype=torch.float64) * n for n in (7, 12))
    mean = Estimate.mean(a)
    expected = stats.t.interval(0.95, 6, a.mean(), stats.sem(a.numpy()))
    assert (mean.low, mean.high) == pytest.approx(expected)
    welch = stats.ttest_ind(a.numpy(), b.numpy(), equal_var=False).confidence_interval(0.95)
    gap = Estimate.difference(a, b)
    assert (gap.low, gap.high) == pytest.approx((welch.low, welch.high))
    assert gap.value == pytest.approx(float(a.mean() - b.mean()))
    assert Estimate.mean(a[:1]).low is None and Estimate.difference(a, b[:1]).high is None
    assert Estimate.difference(a * 0, b * 0) == Estimate(0.0, 0.0, 0.0)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draws = torch.randn(2000, 2, 15, generator=generator(0), dtype=torch.float64)
    hits = [found.low < 0 < found.high for a, b in draws if (found := Estimate.difference(a, 3 * b)).low is not None]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


def test_scores_are_densities_in_the_order_of_the_data() -> None:
    data = fv.Dataset(torch.randn(40, 3, generator=generator(1)))
    found = score(STAY, choose(data, 100, "train", seed=3), **ONCE)
    assert found.part.index.tolist() == list(range(40))
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(data.x).sum(1)
    assert torch.allclose(found.density.log_prob, expected.double(), atol=1e-5)
    assert found.bits_per_dim.value == pytest.approx(-float(expected.mean()) / (3 * math.log(2)), abs=1e-5)


def test_grey_levels_are_dequantised_by_their_number() -> None:
    data = fv.Dataset(np.random.default_rng(0).integers(0, 17, (30, 4, 4), np.uint8), levels=17)
    few, all_ = (score(STAY, choose(data, n, "train"), **ONCE) for n in (5, 30))
    index = few.part.index
    assert torch.allclose(few.density.log_prob, all_.density.log_prob[index], atol=1e-9)
    noisy = dequantized(data.x, 17, range(30))
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(noisy).sum((1, 2, 3)).double()
    assert torch.allclose(all_.density.log_prob, expected, atol=1e-4)
    bits = -expected / (16 * math.log(2)) + math.log2(8)
    assert torch.allclose(all_.density.bits_per_dim, bits, atol=1e-5)


def test_random_directions_widen_the_interval_as_their_error_says() -> None:
    """A field whose trace is 0 but whose random estimates are not: all spread between equal data is their error."""
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) * 2
    part = Part("data", torch.zeros(400, 2), torch.arange(400))
    field = lambda x, t: x @ swap  # noqa: E731
    found = score(field, part, trace=Trace("hutchinson", 4), solver=Solver("rk4", 10))
    error = found.directions_error
    assert error is not None and found.log_prob.low is not None and found.log_prob.high is not None
    assert (found.log_prob.high - found.log_prob.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert abs(found.log_prob.value + math.log(2 * math.pi)) < 3 * error


def test_what_a_gap_means() -> None:
    near, far = (score(STAY, _normal("train", shift), **ONCE) for shift in (0.0, 1.0))
    fresh = score(STAY, _normal("held-out", 0.0, seed=1), **ONCE)
    distant = score(STAY, _normal("held-out", 1.0, seed=1), **ONCE)
    memorised = gap_between(near, distant)
    assert memorised.sentence.startswith("A sign of memorising: training data are denser")
    assert memorised.log_prob.value == pytest.approx(1.5, abs=0.4)
    assert memorised.bits_per_dim.value == pytest.approx(memorised.log_prob.value / (3 * math.log(2)))
    assert "cannot be told apart" in gap_between(near, fresh).sentence
    assert "held-out data are denser than training data" in gap_between(far, fresh).sentence
    assert "One datum" in gap_between(near, score(STAY, _normal("held-out", 0.0, n=1), **ONCE)).sentence


def test_the_rarest_come_first_with_their_names() -> None:
    x = torch.tensor([[0.0], [1.0], [-9.0], [0.1], [2.0]])
    part = Part("data", x, torch.tensor([4, 2, 7, 0, 1]), None, torch.tensor([0, 1, 1, 0, 1]), ("cat", "dog"))
    found = rarest(score(STAY, part, **ONCE), 2)
    assert [(one.index, one.label) for one in found] == [(7, "dog"), (1, "dog")]
    values = stats.norm.logpdf(x[:, 0].numpy())
    deviations = (np.median(values) - values[2]) / stats.median_abs_deviation(values, scale="normal")
    assert found[0].deviations == pytest.approx(deviations, rel=1e-4)


def test_histograms_hold_every_datum_and_are_not_stretched_by_one() -> None:
    parts = [score(STAY, _normal(name, 0.0, seed=k), **ONCE) for k, name in enumerate(("train", "held-out"))]
    parts[1].part.x[0] = 1e4
    parts[1] = score(STAY, parts[1].part, **ONCE)
    found = shares_of(parts, 10)
    assert found.beyond and found.edges[0] > -40
    assert all(one.sum() == pytest.approx(1) for one in found.shares.values())
    lines = histogram_lines(parts, bins=10)
    assert len(lines) == 11 and lines[1].lstrip().startswith("below") and "█" in lines[-1]
    assert histogram_png(parts, "title", "points")[1:4] == b"PNG"
    alone = Part("data", torch.zeros(3, 2), torch.arange(3))
    assert "100.0%" in "".join(histogram_lines([score(STAY, alone, **ONCE)]))


def test_choice_is_nested_and_without_repetition() -> None:
    data = fv.Dataset(torch.arange(20.0), [k % 2 for k in range(20)])
    few, more = (choose(data, n, "train", seed=2) for n in (4, 20))
    assert torch.equal(more.index[:4], few.index) and len(set(more.index.tolist())) == 20
    assert (
        few.labels is not None and torch.equal(few.labels, few.index % 2) and torch.equal(few.x[:, 0].long(), few.index)
    )
    assert not torch.equal(choose(data, 20, "train", seed=3).index, more.index)
