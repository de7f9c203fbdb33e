"""Known answers: copies, noise, fresh data, and copies planted among fresh data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binom, binomtest
from torch import Tensor

import fluvial as fv
from fluvial.audits.drawing import draw_figure
from fluvial.audits.finding import Finding
from fluvial.audits.memorizing import memorization
from fluvial.fields import ExactField
from fluvial.metrics.authentic import authenticity
from fluvial.metrics.copying_test import ct_test
from fluvial.metrics.neighbours import k_nearest
from fluvial.progress import Progress
from fluvial.solvers import solve

REAL = Path(__file__).parents[2] / "data" / "fashion-mnist"


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """1,437 training and 360 held-out digits."""
    data = fv.load_dataset("digits")
    return data.train.x, data.held_out.x


def halves(x: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[: len(x) // 2]], x[order[len(x) // 2 :]]


def planted(fresh: Tensor, train: Tensor, noise: float, seed: int) -> tuple[Tensor, dict[int, int]]:
    """Fresh samples of which 5 % are training data with noise of that fraction of the datum's nearest distance."""
    random = torch.Generator().manual_seed(seed)
    count = round(0.05 * len(fresh))
    where = torch.randperm(len(fresh), generator=random)[:count]
    which = torch.randperm(len(train), generator=random)[:count]
    others = k_nearest(train[which], train, 2).distances[:, 1:]
    added = torch.randn(count, train[0].numel(), generator=random, dtype=torch.float64)
    added *= noise * others / added.norm(dim=1, keepdim=True)
    samples = fresh.clone()
    samples[where] = (train[which].double() + added.reshape(count, *train.shape[1:])).to(train)
    return samples, dict(zip(where.tolist(), which.tolist(), strict=True))


def recall_and_precision(found: Finding, truth: dict[int, int]) -> tuple[float, float]:
    listed = dict(zip(found.data["copied_samples"], found.data["copied_train"], strict=True))
    hits = sum(listed.get(sample) == datum for sample, datum in truth.items())
    return hits / len(truth), hits / max(1, len(listed))


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.95), (0.5, 0.8)])
@pytest.mark.parametrize("seed", range(3))
def test_planted_copies_of_digits_are_found(
    digits: tuple[Tensor, Tensor], noise: float, least: float, seed: int
) -> None:
    train, held_out = digits
    fresh, rest = halves(held_out, seed)
    samples, truth = planted(fresh, train, noise, seed)
    found = memorization(samples, train, rest, kind="image")
    assert min(recall_and_precision(found, truth)) >= least
    assert found.data["exact_copies"] == (len(truth) if noise == 0 else 0)
    assert found.data["alarm"] or noise > 0  # 9 near copies among 180 are at the edge of what 180 fresh digits exclude


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.95), (0.5, 0.8)])
@pytest.mark.parametrize("kind", ["gaussian", "mixture", "core"])
def test_planted_copies_of_points_are_found(noise: float, least: float, kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 16, generator=random)
    if kind == "mixture":
        x += 4 * torch.randn(10, 16, generator=random)[torch.randint(10, (5000,), generator=random)]
    if kind == "core":  # of a density without bound: a fixed distance would not do
        x *= torch.rand(5000, 1, generator=random)
    train, fresh, held_out = x.split([3000, 1000, 1000])
    samples, truth = planted(fresh, train, noise, 1)
    assert min(recall_and_precision(memorization(samples, train, held_out), truth)) >= least


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="run `make data` first")
@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.95), (0.5, 0.8)])
def test_planted_copies_of_fashion_mnist_are_found(noise: float, least: float) -> None:
    data = fv.load_dataset(f"fashion-mnist:{REAL}")
    train, held_out = data.train.x[:20_000], data.held_out.x
    samples, truth = planted(held_out[:3000], train, noise, 0)
    found = memorization(samples, train, held_out[3000:6000], kind="image")
    assert min(recall_and_precision(found, truth)) >= least and found.data["alarm"]


def test_the_exact_fields_samples_are_copies_one_and_all(digits: tuple[Tensor, Tensor]) -> None:
    train, held_out = digits
    field = ExactField(train)
    samples = solve(field, fv.randomness.noise(0, 0, 60, tuple(train.shape[1:])), steps=40, method="euler").x
    data = memorization(samples, train, held_out, kind="image").data
    assert data["copy_rate"] == 1.0 and data["exact_copies"] == 60 and data["alarm"]
    assert data["authenticity"]["samples"] == 0 and data["ratio"] < 1e-4 and data["c_t"] < -5
    assert max(data["p_values"]) == pytest.approx(1 / 361)


def test_copies_survive_the_way_through_uint8(digits: tuple[Tensor, Tensor]) -> None:
    from fluvial.data import to_uint8

    train, held_out = digits
    samples = to_uint8(train[:50]).float() / 127.5 - 1
    assert float((samples - train[:50]).abs().max()) > 1e-3
    assert memorization(samples, train, held_out, kind="image").data["exact_copies"] == 50
    found = memorization(samples, train, held_out).data  # as points they are very near, not exact
    assert found["exact_copies"] < 50 and found["copies"] == 50


@pytest.mark.slow
def test_fresh_data_raise_the_alarm_no_more_often_than_stated(digits: tuple[Tensor, Tensor]) -> None:
    """100 random halves of the held-out digits, as samples and as held-out data."""
    train, held_out = digits
    alpha = 0.05
    found = [memorization(*_order(train, *halves(held_out, s)), alpha=alpha, seed=s, show=0).data for s in range(100)]
    assert sum(f["alarm"] for f in found) <= binom.ppf(0.99, 100, alpha)
    assert sum(f["p_value"] <= 0.01 for f in found) <= binom.ppf(0.99, 100, 0.01)
    assert sum(f["copies"] for f in found) <= 0.01 * 100 * 180


def _order(train: Tensor, samples: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return samples, train, held_out


@pytest.mark.slow
def test_fresh_points_raise_the_alarm_no_more_often_than_stated() -> None:
    """Fresh training data as well, in few dimensions, with duplicates, with and without held-out data."""
    counts = {True: 0, False: 0}
    for seed in range(100):
        x = torch.randn(700, 3, generator=torch.Generator().manual_seed(seed))
        train = torch.cat([x[:300], x[:20], x[:20] + 1e-4])
        counts[True] += memorization(x[300:500], train, x[500:], alpha=0.05, seed=seed).data["alarm"]
        counts[False] += memorization(x[300:500], train, alpha=0.05, seed=seed).data["alarm"]
    assert max(counts.values()) <= binom.ppf(0.99, 100, 0.05)


def test_noise_is_far_from_everything(digits: tuple[Tensor, Tensor]) -> None:
    train, held_out = digits
    data = memorization(torch.randn(100, 1, 8, 8), train, held_out, kind="image").data
    assert data["copies"] == 0 and data["ratio"] > 3 and not data["alarm"] and data["c_t"] > 5
    assert data["copy_rate_upper"] == pytest.approx(1 - 0.05 ** (1 / 100), rel=1e-6)
    assert data["copy_rate_interval"] == [0, pytest.approx(1 - 0.025 ** (1 / 100))]


def test_figures_are_those_of_all_pairs() -> None:
    random = np.random.default_rng(0)
    train, held_out, samples = (random.normal(size=(n, 5)) for n in (150, 40, 60))
    samples[:3] = train[:3]
    data = memorization(samples, train, held_out, seed=4).data
    ours, theirs, own = cdist(samples, train), cdist(held_out, train), cdist(train, train)
    np.fill_diagonal(own, np.inf)
    d, h = ours.min(1), theirs.min(1)
    assert data["ratio"] == pytest.approx(d.mean() / h.mean())
    assert data["p_values"] == pytest.approx([(1 + (h <= v).sum()) / 41 for v in d])
    pairs = np.sort(ours, 1)
    assert data["nndr"]["samples"]["median"] == pytest.approx(np.median(pairs[:, 0] / pairs[:, 1]))
    assert data["nndr_below_third"]["samples"] == np.mean(pairs[:, 0] < pairs[:, 1] / 3)
    assert data["dcr"]["fresh"]["percentile_5"] == pytest.approx(np.quantile(h, 0.05))
    assert data["local_ratio"]["samples"]["mean"] == pytest.approx((d / own.min(1)[ours.argmin(1)]).mean())
    assert data["mean_distance"]["left_out"] == pytest.approx(own.min(1).mean())
    assert data["authenticity"]["samples"] == authenticity(samples, train)
    assert data["c_t"] == ct_test(samples, train, held_out, seed=4).statistic
    low, high = binomtest(data["copies"], 60).proportion_ci(0.95, "exact")
    assert data["copy_rate_interval"] == pytest.approx([low, high]) and data["copies"] >= 3
    # leaving one out: the ratio of each to its nearest one, whose own nearest one is sought without it
    left = []
    for j in range(150):
        i = own[j].argmin()
        left.append(own[j, i] / np.delete(own[i], j).min())
    assert data["local_ratio"]["left_out"]["mean"] == pytest.approx(np.mean(left))


@pytest.mark.slow
def test_interval_of_the_ratio_covers_it() -> None:
    """Over 100 draws of samples from wider data, given the training data."""
    random = torch.Generator().manual_seed(0)
    train = torch.randn(200, 4, generator=random, dtype=torch.float64)

    def means(x: Tensor) -> Tensor:
        return k_nearest(x, train, 1).distances.mean()

    many = torch.randn(100_000, 4, generator=random, dtype=torch.float64)
    truth = float(means(1.3 * many[:50_000]) / means(many[50_000:]))
    inside = 0
    for _ in range(100):
        x = torch.randn(200, 4, generator=random, dtype=torch.float64)
        low, high = memorization(1.3 * x[:100], train, x[100:], show=0).data["ratio_interval"]
        inside += low <= truth <= high
    assert inside >= binom.ppf(0.005, 100, 0.95)


def test_duplicates_are_reported_and_do_not_hide_copies() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 16, generator=random)
    doubled = torch.cat([x[:600], x[:30], x[30:60] + 1e-3 * torch.randn(30, 16, generator=random)])
    samples = x[600:900].clone()
    samples[:60] = x[:60] + 0.05 * torch.randn(60, 16, generator=random)
    data = memorization(samples, doubled, x[900:]).data
    assert (data["duplicates"]["equal_rows"], data["duplicates"]["near_rows"]) == (30, 30)
    assert data["copied_samples"] and set(data["copied_samples"]) == set(range(60))
    assert {t % 600 if t < 630 else t - 600 for t in data["copied_train"]} == set(range(60))
    plain = memorization(samples, x[:600], x[900:]).data
    assert data["local_ratio"]["left_out"]["median"] == pytest.approx(plain["local_ratio"]["left_out"]["median"])
    assert data["authenticity"]["samples"] > data["authenticity_without_duplicates"]["samples"] + 0.15
    assert plain["authenticity"]["samples"] == pytest.approx(data["authenticity_without_duplicates"]["samples"])


def test_the_most_copied_come_first(digits: tuple[Tensor, Tensor]) -> None:
    train, held_out = digits
    samples = torch.cat([train[7:8].repeat(5, 1, 1, 1), train[3:4].repeat(2, 1, 1, 1), held_out[:100]])
    data = memorization(samples, train, held_out[100:], kind="image").data
    assert data["most_copied"][:2] == [{"train": 7, "copies": 5}, {"train": 3, "copies": 2}]


def test_without_held_out_data_the_training_data_take_their_place(digits: tuple[Tensor, Tensor]) -> None:
    train, held_out = digits
    fresh = memorization(held_out, train, kind="image")
    assert not fresh.data["alarm"] and fresh.data["c_t"] is None and fresh.data["held_out"] is None
    assert 0.9 < fresh.data["ratio"] < 1.1 and any("Without held-out data" in note for note in fresh.notes)
    assert memorization(train[:50], train, kind="image").data["copy_rate"] == 1


def drawn(found: Finding) -> None:
    json.dumps(found.to_dict(), allow_nan=False)
    for drawing in found.drawings:
        assert draw_figure(drawing.fill, size=drawing.size)[1:4] == b"PNG" and drawing.alt and drawing.caption


@pytest.mark.parametrize(
    ("shape", "kind", "copies"),
    [
        ((1, 6, 6), "image", 4),
        ((3, 5, 7), "image", 0),
        ((2,), "points", 4),
        ((7,), "table", 4),
        ((), "points", 0),
    ],
)
def test_every_kind_of_data_is_drawn(shape: tuple[int, ...], kind: str, copies: int) -> None:
    x = torch.rand(160, *shape, generator=torch.Generator().manual_seed(0)) * 1.9 - 0.95
    samples = torch.cat([x[:copies], x[100:130]])
    found = memorization(samples, x[:100], x[130:], kind=kind)
    assert len(found.drawings) == 3 and found.data["exact_copies"] == copies
    drawn(found)


def test_constant_samples_are_no_failure() -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    for value in (x[0], x[0] + 3):
        found = memorization(value.repeat(30, 1), x[:150], x[150:])
        assert found.data["copy_rate"] == float(value is x[0] or bool((value == x[0]).all()))
        drawn(found)


def test_same_seed_same_finding_and_progress_to_the_end(digits: tuple[Tensor, Tensor]) -> None:
    reports: list[Progress] = []
    x = digits[1]
    one = memorization(x[:100], digits[0], x[100:], seed=3, progress=reports.append)
    assert one.to_dict() == memorization(x[:100], digits[0], x[100:], seed=3).to_dict()
    steps = [report.step for report in reports]
    assert steps == sorted(steps) and steps[-1] == reports[-1].total
    arrays = memorization(x[:100].numpy(), digits[0].numpy(), x[100:].numpy(), seed=3)
    assert arrays.to_dict() == one.to_dict()


GOOD: dict[str, Any] = {
    "samples": torch.zeros(9, 3),
    "train": torch.arange(90.0).reshape(30, 3),
    "held_out": torch.arange(90.0).reshape(30, 3) + 0.3,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": torch.zeros(9, 4)}, r"samples must have rows of train's shape \(3,\), got \(4,\)"),
        ({"held_out": torch.zeros(30, 2)}, r"held_out must have rows of train's shape \(3,\), got \(2,\)"),
        ({"samples": torch.zeros(1, 3)}, "samples must have at least 2 rows, got 1"),
        ({"held_out": torch.zeros(19, 3)}, "held_out must have at least 20 rows, got 19: leave it out"),
        ({"samples": torch.full((9, 3), torch.nan)}, "samples must be finite, got NaN or infinity in 9 of 9 rows"),
        ({"held_out": torch.full((30, 3), torch.inf)}, "held_out must be finite"),
        ({"train": torch.ones(30, 3)}, "train must have at least 4 distinct rows, got 1 among 30"),
        ({"held_out": GOOD["train"]}, "held_out must differ from train"),
        ({"kind": "sound"}, "kind must be one of points, image, table, got 'sound'"),
        ({"alpha": 0.0}, r"alpha must be in \(0, 1\), got 0"),
        ({"show": -1}, "show must not be negative, got -1"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memorization(**{**GOOD, **changes})
