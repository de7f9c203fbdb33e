import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from fluvial.audits.hybrid_view import SHOWN
from fluvial.audits.hybrids import hybrid
from fluvial.fields import ExactField, Guided, Hybrid, collapse_time
from fluvial.metrics import frechet_distance
from fluvial.paths import VP
from fluvial.progress import Progress
from fluvial.randomness import generator, noise
from fluvial.solvers import solve

N, STEPS = 24, 10


@pytest.fixture
def data() -> Tensor:
    """40 images whose first pixel is the same in all, as margins are."""
    x = 3 * torch.randn(40, 1, 2, 3, generator=generator(0), dtype=torch.float64)
    x[:, :, 0, 0] = 0
    return x


def smooth(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """Exact velocity of standard normal data, which knows no datum."""
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    return (2 * t - 1) * x / (t**2 + (1 - t) ** 2)


def drift(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """The same velocity everywhere, which follows nothing."""
    return torch.full_like(x, 2.0)


def run(field: Any, exact: Any, train: Tensor, **changes: Any) -> dict[str, Any]:
    return dict(hybrid(field, exact, train, **{"n": N, "steps": STEPS, **changes}).data)


def test_the_exact_field_as_learned_field_always_lands_where_it_ends(data: Tensor) -> None:
    exact = ExactField(data)
    found = run(exact, exact, data, taus=[0.0, 0.3, 0.6, 1.0])
    for way in ("exact_first", "learned_first"):
        assert found[way]["share"] == [1.0] * 4
        assert max(found[way]["distance"]) < 1e-6
    assert found["critical_tau"] == {"exact_first": 0.0, "learned_first": None}


def test_the_exact_field_of_other_data_ends_on_those(data: Tensor) -> None:
    """Without the exact field the samples are other data, at their distance; with it throughout, training data."""
    other = data + 10
    found = run(ExactField(other), ExactField(data), data, taus=[0.0, 0.5, 1.0])
    ends = solve(ExactField(other), noise(0, 0, N, (1, 2, 3), torch.float64), steps=STEPS, method="euler").x
    expected = cdist(ends.flatten(1), data.flatten(1)).min(1).mean()
    assert cdist(ends.flatten(1), other.flatten(1)).min(1).max() < 1e-6
    assert found["exact_first"]["distance"][0] == pytest.approx(expected)
    assert found["exact_first"]["distance"][-1] < 1e-6 and found["exact_first"]["share"][-1] == 1
    assert found["learned_first"]["distance"][-1] == pytest.approx(expected)


@pytest.mark.parametrize(("method", "labelled"), [("euler", True), ("heun", False)])
def test_every_sample_is_that_of_the_hybrid_field(data: Tensor, method: str, labelled: bool) -> None:
    """Against solve(Hybrid(...)) and brute force over the whole matrix of distances."""
    labels = torch.arange(40) % 2
    exact = ExactField(data, labels=labels)
    cond = torch.arange(N) % 2 if labelled else None
    held_out = torch.randn(30, 1, 2, 3, generator=generator(1), dtype=torch.float64)
    taus = [0.0, 0.3, 0.8, 1.0]
    found = run(smooth, exact, data, taus=taus, method=method, cond=cond, held_out=held_out)
    assert found["taus"] == taus
    x0 = noise(0, 0, N, (1, 2, 3), torch.float64)
    ends = cdist(solve(exact, x0, steps=STEPS, method=method, cond=cond).x.flatten(1), data.flatten(1)).argmin(1)
    for way, fields in (("exact_first", (exact, smooth)), ("learned_first", (smooth, exact))):
        for k, tau in enumerate(taus):
            x = solve(Hybrid(*fields, tau), x0, steps=STEPS, method=method, cond=cond).x
            distances = cdist(x.flatten(1), data.flatten(1))
            assert found[way]["share"][k] == pytest.approx((distances.argmin(1) == ends).mean())
            assert found[way]["distance"][k] == pytest.approx(distances.min(1).mean(), rel=1e-9, abs=1e-9)
            assert found[way]["frechet"][k] == pytest.approx(frechet_distance(x, held_out), rel=1e-9)


def test_a_guided_field_keeps_its_breakpoints() -> None:
    """Constant velocities: the sample moves by the integral of the guided velocity from tau on, to rounding."""
    train = torch.zeros(1, 2, dtype=torch.float64)

    def pull(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return torch.full_like(x, 0.0 if cond is None else 1.0)

    def still(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return torch.zeros_like(x)

    x0 = noise(0, 0, 4, (2,), torch.float64)
    cond, guided = torch.zeros(4), Guided(pull, 3.0, (0.25, 0.75))
    found = run(guided, still, train, n=4, cond=cond, taus=[0.0, 0.5, 0.75], kind="points", method="heun", steps=20)
    # velocity 1, and 3 between .25 and .75
    for k, length in enumerate((2.0, 1.0, 0.25)):
        expected = float((x0 + length).norm(dim=1).mean())
        assert found["exact_first"]["distance"][k] == pytest.approx(expected, rel=1e-9)


def test_equal_data_are_one_end(data: Tensor) -> None:
    twice = torch.cat([data, data])
    exact = ExactField(twice)
    assert run(exact, exact, twice, taus=[0.5])["exact_first"]["share"] == [1.0] * 3


def test_critical_taus_lie_between_the_neighbours_of_one_half(data: Tensor) -> None:
    found = run(drift, ExactField(data), data, n=100, taus=12)
    taus, share = found["taus"], found["exact_first"]["share"]
    assert share[0] < 0.5 and share[-1] == 1
    critical = found["critical_tau"]["exact_first"]
    assert np.interp(critical, taus, share) == pytest.approx(0.5)
    assert np.interp(found["midway_tau"], taus, share) == pytest.approx((share[0] + 1) / 2)
    reverse = found["critical_tau"]["learned_first"]
    assert np.interp(reverse, taus, found["learned_first"]["share"]) == pytest.approx(0.5)
    for way in ("exact_first", "learned_first"):
        for part, (low, high) in zip(found[way]["share"], found[way]["share_interval"], strict=True):
            assert 0 <= low <= part + 1e-12 and part - 1e-12 <= high <= 1


def test_share_intervals_are_scipys(data: Tensor) -> None:
    from scipy.stats import binomtest

    found = run(smooth, ExactField(data), data, taus=[0.6])["exact_first"]
    for part, interval in zip(found["share"], found["share_interval"], strict=True):
        expected = binomtest(round(part * N), N).proportion_ci(0.95, "wilson")
        np.testing.assert_allclose(interval, [expected.low, expected.high], atol=1e-4)


def test_taus_are_placed_around_the_collapse_time(data: Tensor) -> None:
    found = run(smooth, ExactField(data), data, collapse_time=0.4)
    assert found["taus"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1])
    share = found["exact_first"]["share"]
    assert found["early_change"] == max(abs(part - share[0]) for part in share[:3])
    assert found["late_share"] == min(share[6:])
    assert found["critical_over_collapse"]["exact_first"] == found["critical_tau"]["exact_first"] / 0.4
    assert run(smooth, ExactField(data), data, collapse_time=0.9, taus=4)["taus"] == [0, 0.5, 1]
    assert run(smooth, ExactField(data), data, taus=[0.501, 0.499])["taus"] == [0, 0.5, 1]


def test_references_are_those_of_fresh_data(data: Tensor) -> None:
    held_out = torch.randn(20, 1, 2, 3, generator=generator(1), dtype=torch.float64)
    found = run(smooth, ExactField(data), data, taus=[0.5], held_out=held_out, n=40)
    assert found["reference_distance"] == pytest.approx(cdist(held_out.flatten(1), data.flatten(1)).min(1).mean())
    assert found["reference_frechet"] == pytest.approx(frechet_distance(data, held_out))
    doubled = run(smooth, ExactField(data), data, taus=[0.5], held_out=held_out, features=lambda x: 2 * x.flatten(1))
    plain = run(smooth, ExactField(data), data, taus=[0.5], held_out=held_out)
    np.testing.assert_allclose(doubled["exact_first"]["frechet"], 4 * np.array(plain["exact_first"]["frechet"]))


def test_progress_counts_every_step(data: Tensor) -> None:
    reports: list[Progress] = []
    hybrid(smooth, ExactField(data), data, n=4, steps=10, taus=[0.3, 0.5], progress=reports.append)
    total = 2 * 10 + 2 * (7 + 5)
    assert [report.step for report in reports] == list(range(1, total + 1)) and reports[-1].fraction == 1


def test_finding_is_plain_json_and_draws_itself(data: Tensor) -> None:
    from matplotlib.figure import Figure

    held_out = data[:20] + 0.1
    finding = hybrid(drift, ExactField(data), data, n=12, steps=10, held_out=held_out, collapse_time=0.5)
    assert json.loads(json.dumps(finding.to_dict())) == finding.to_dict()
    assert f"t = {finding.data['critical_tau']['exact_first']:.2f}" in finding.verdict
    assert len(finding.drawings) == 3
    for drawing in finding.drawings:
        figure = Figure()
        drawing.fill(figure)
        figure.canvas.draw()
    left, right = figure.axes
    rows = len(finding.data["taus"])
    assert left.images[0].get_array().shape == (rows * 3 - 1, SHOWN * 4 - 1, 4)
    # both ends are shared: exact alone on the last row of one and the first of the other
    strips = [np.asarray(axes.images[0].get_array()) for axes in (left, right)]
    np.testing.assert_array_equal(strips[0][-2:], strips[1][:2])
    np.testing.assert_array_equal(strips[0][:2], strips[1][-2:])
    assert len(hybrid(smooth, ExactField(data), data, n=4, steps=5, kind="points").drawings) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "n must be an integer of at least 2, got 1"),
        ({"steps": 1}, "steps must be an integer of at least 2, got 1"),
        ({"method": "dopri5"}, "method must be one of euler, midpoint, heun, rk4, got 'dopri5'"),
        ({"kind": "picture"}, "kind must be one of image, points, table, got 'picture'"),
        ({"taus": [1.5]}, r"taus must be numbers in \[0, 1\], at least one, got \[1.5\]"),
        ({"taus": [float("nan")]}, r"taus must be numbers in \[0, 1\]"),
        ({"taus": []}, r"taus must be numbers in \[0, 1\]"),
        ({"taus": 2}, "taus must be an integer of at least 3, got 2"),
        ({"collapse_time": 1.0}, r"collapse_time must be in \(0, 1\), got 1.0"),
        ({"cond": torch.zeros(3)}, f"cond must have {N} rows, one for each noise, got 3"),
        ({"train": torch.zeros(0, 2)}, "train must have at least 1 row, got 0"),
        ({"train": torch.full((4, 2), torch.nan)}, "train must be finite, got NaN or infinity in 4 of 4 rows"),
        ({"train": torch.zeros(4, 3)}, r"exact must be a field of data of the shape of train's, \(3,\), got \(2,\)"),
        ({"held_out": torch.zeros(5, 3)}, r"train and held_out must have rows of the same shape, got \(2,\) and \(3,"),
        ({"field": ExactField(torch.zeros(4, 2), VP())}, r"field must be a field of the path CondOT.*got one of VP"),
        ({"field": lambda x, t, cond=None: x[:, :1]}, "field must return a tensor of the shape of x"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"field": smooth, "exact": ExactField(torch.zeros(4, 2)), "train": torch.zeros(4, 2)}
    with pytest.raises(ValueError, match=message):
        hybrid(**{**arguments, "n": N, "steps": 4, "kind": "points", **changes})


@pytest.mark.slow
def test_generalisation_is_decided_before_the_collapse(tmp_path: Path) -> None:
    """Bertrand et al. 2025, figure 3, on 1,437 digits: with the exact field until 1.5 t_c every sample is at home where
    the exact flow ends; with half of t_c the learned field is as free as on its own."""
    import fluvial as fv
    from fluvial.training import TrainConfig, Trainer

    digits = fv.load_dataset("digits")
    train, held_out = digits.train.x, digits.held_out.x
    net = Trainer(TrainConfig(data="digits", steps=800), tmp_path / "run").fit().net
    t_c = collapse_time(train).time
    found = hybrid(net, ExactField(train), train, held_out=held_out, collapse_time=t_c, taus=None).data
    assert found["late_share"] >= 0.95
    assert found["early_change"] <= 0.05
    assert found["exact_first"]["share"][0] < 0.6
    assert 0.7 < found["critical_tau"]["exact_first"] / t_c < 1.3
    assert found["exact_first"]["distance"][0] > 0.85 * found["reference_distance"]
