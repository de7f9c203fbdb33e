import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fluvial.audits.draws import choose_rows, crossing
from fluvial.audits.stochastic import stochasticity
from fluvial.paths import VP, CondOT, Cosine
from fluvial.progress import Progress
from fluvial.randomness import generator, noise

FEW = (0.0, 0.2, 0.5, 0.8, 0.95)


def run(train: Tensor, *arguments: Any, **changes: Any) -> dict[str, Any]:
    return dict(stochasticity(train, *arguments, **{"shape_kind": "points", "halvings": 0, **changes}).data)


@pytest.mark.parametrize("path", [CondOT(), Cosine(), VP()])
def test_one_datum_leaves_nothing_random(path: Any) -> None:
    found = run(torch.randn(1, 5, generator=generator(0), dtype=torch.float64), path, pairs=30, times=FEW)
    (whole,) = found["versions"]
    assert whole["aligned"] == [1.0] * 5 and whole["passage"] == 0 and whole["half_determined"] == 0
    np.testing.assert_allclose(whole["median"], 1, rtol=1e-9)
    assert [row[-1] for row in found["histogram"]] == [30] * 5


def test_two_points_have_their_closed_form() -> None:
    """Data -a and a: the mean is a tanh(t <x, a> / (1 - t)^2), and x1 - x0 is a sign times a, less x0."""
    a = torch.tensor([0.6, -0.8, 1.5], dtype=torch.float64)
    train, pairs = torch.stack([-a, a]), 200
    found = run(train, pairs=pairs, times=FEW, seed=4)
    x0, x1 = noise(4, 0, pairs, (3,), torch.float64), train[choose_rows(2, pairs, generator(4, 0))]
    for k, t in enumerate(FEW):
        x = (1 - t) * x0 + t * x1
        m = a * torch.tanh(t * (x @ a) / (1 - t) ** 2)[:, None]
        u, target = (m - x) / (1 - t), x1 - x0
        cosine = (u * target).sum(1) / (u.norm(dim=1) * target.norm(dim=1))
        whole = found["versions"][0]
        assert whole["aligned"][k] == float((cosine > 0.9).double().mean())
        assert whole["median"][k] == pytest.approx(float(cosine.quantile(0.5)), rel=1e-9)
        left = (x1 - m).square().sum(1).mean() / a.square().sum()
        assert whole["undetermined"][k] == pytest.approx(float(left), rel=1e-9)


@pytest.mark.parametrize("path", [CondOT(), Cosine()])
def test_many_gaussian_data_have_the_posterior_of_the_gaussian(path: Any) -> None:
    """Of N(0, s^2) given x_t the variance is s^2 sigma^2 / (alpha^2 s^2 + sigma^2), of which s^2 is the whole."""
    s = 1.5
    train = s * torch.randn(5_000, 2, generator=generator(1), dtype=torch.float64)
    found = run(train, path, pairs=1500, times=(0.0, 0.3, 0.6))
    for t, share in zip(found["t"], found["versions"][0]["undetermined"], strict=True):
        alpha, sigma = (float(f(torch.tensor(t, dtype=torch.float64))) for f in (path.alpha, path.sigma))
        assert share == pytest.approx(sigma**2 / (alpha**2 * s**2 + sigma**2), rel=0.08)


def test_passage_is_earlier_in_more_dimensions() -> None:
    train = torch.randn(500, 256, generator=generator(2))
    found = run(train, pairs=128, halvings=3, times=[k / 20 for k in range(18)])
    assert [version["dimension"] for version in found["versions"]] == [256, 128, 64, 32]
    halves = [version["half_determined"] for version in found["versions"]]
    assert halves == sorted(halves) and halves[0] < halves[-1] - 0.05


def test_images_shrink_by_averages_and_points_to_their_coordinates() -> None:
    train = torch.randn(20, 3, 10, 8, generator=generator(3))
    found = stochasticity(train, pairs=8, times=[0.5], halvings=9).data
    assert [version["dimension"] for version in found["versions"]] == [240, 60, 12]  # 10 x 8, 5 x 4, 2 x 2
    points = stochasticity(train, pairs=8, times=[0.5], halvings=9, shape_kind="points").data
    assert [version["dimension"] for version in points["versions"]] == [240, 120, 60, 30, 15, 7, 3]
    # a version is the finding of that version's data
    alone = stochasticity(train.reshape(20, 3, 5, 2, 4, 2).mean((3, 5)), pairs=8, times=[0.5], halvings=0).data
    assert alone["versions"][0]["median"] == pytest.approx(found["versions"][1]["median"])


def test_labels_restrict_the_mean_to_the_class() -> None:
    """One datum to a class leaves nothing random, where without labels there is."""
    train, times = 2 * torch.randn(10, 4, generator=generator(4), dtype=torch.float64), [0.1, 0.3]
    assert run(train, labels=torch.arange(10), pairs=50, times=times)["versions"][0]["aligned"] == [1.0, 1.0]
    assert run(train, pairs=50, times=times)["versions"][0]["aligned"][0] < 0.5


def test_crossing_is_the_last_rise_through_the_level() -> None:
    t = [0.0, 0.25, 0.5, 0.75]
    assert crossing(t, [0.9, 0.1, 0.3, 0.7], 0.5) == pytest.approx(0.625)
    assert crossing(t, [0.6, 0.5, 0.6, 0.7], 0.5) == 0
    assert crossing(t, [0.6, 0.5, 0.6, 0.4], 0.5) is None


def test_finding_is_plain_json_and_draws_itself() -> None:
    from matplotlib.figure import Figure

    reports: list[Progress] = []
    train = torch.randn(50, 1, 4, 4, generator=generator(5))
    finding = stochasticity(train, pairs=16, times=FEW, progress=reports.append)
    assert json.loads(json.dumps(finding.to_dict())) == finding.to_dict()
    assert [report.step for report in reports] == list(range(1, 11)) and reports[-1].fraction == 1
    assert [sum(row) for row in finding.data["histogram"]] == [16] * 5
    assert len(finding.data["bins"]) == len(finding.data["histogram"][0]) + 1
    assert "In 16 dimensions" in finding.verdict and finding.reservation
    for drawing in finding.drawings:
        figure = Figure()
        drawing.fill(figure)
        figure.canvas.draw()
        assert figure.axes[0].get_xlabel().startswith("t ") and figure.axes[0].get_ylabel()
    again = stochasticity(train, pairs=16, times=FEW)
    assert again.data == finding.data and stochasticity(train, pairs=16, times=FEW, seed=1).data != finding.data


def test_a_target_that_stays_random_is_said_so() -> None:
    finding = stochasticity(torch.randn(200, 2, generator=generator(6)), times=[0.0, 0.3], shape_kind="points")
    assert finding.rows[0][2] == "never" and "still random at t = 0.3" in finding.verdict


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": torch.zeros(0, 2)}, "train must have at least 1 row, got 0"),
        ({"train": torch.full((3, 2), torch.nan)}, "train must be finite, got NaN or infinity in 3 of 3 rows"),
        (
            {"shape_kind": "image"},
            r"train must hold images of shape \(N, C, H, W\) for .* got \(4, 2\)",
        ),
        ({"shape_kind": "photo"}, "shape_kind must be one of image, points, table, got 'photo'"),
        ({"pairs": 1}, "pairs must be an integer of at least 2, got 1"),
        ({"halvings": -1}, "halvings must be an integer of at least 0, got -1"),
        ({"times": [0.5, 1.0]}, r"times must be increasing numbers in \[0, 1\), at least one, got"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stochasticity(**{"train": torch.ones(4, 2), "shape_kind": "points", **changes})


def test_labels_must_fit() -> None:
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\) as train has rows, got \(3,\)"):
        inspect.unwrap(stochasticity)(torch.ones(4, 2), labels=torch.zeros(3, dtype=torch.long), shape_kind="points")
