import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from fluvial.audits.collapsing import collapse
from fluvial.fields import collapse_time
from fluvial.paths import Cosine
from fluvial.progress import Progress
from fluvial.randomness import generator


def gaussian(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(0))


def test_two_points_collapse_where_their_logit_gap_is_what_it_is() -> None:
    """At x_t from the datum +a the odds are exp(2 a (a + h z) / h^2), so over half of the weight is always on one."""
    found = collapse(torch.tensor([[-1.0], [1.0]]), points=300).data
    assert found["time"] < 0.1  # one of two points always has half of the weight
    # median effective sample size against the closed form: 1 / (p^2 + (1 - p)^2)
    z = np.random.default_rng(0).normal(size=20_000)
    for t, size in zip(found["t"][5::5], found["effective_sample_size"][5::5], strict=True):
        h = (1 - t) / t
        p = 1 / (1 + np.exp(-2 * (1 + h * z) / h**2))
        assert size[2] == pytest.approx(np.median(1 / (p**2 + (1 - p) ** 2)), rel=0.1)


def test_it_says_what_the_measurement_says() -> None:
    data = gaussian(100, 8)
    finding, found = collapse(data, Cosine(), points=64, seed=3), collapse_time(data, Cosine(), points=64, seed=3)
    for name in ("time", "onset", "completion", "predicted_time"):
        assert finding.data[name] == getattr(found, name)
        t = finding.data[name]
        h = math.cos(math.pi * t / 2) / math.sin(math.pi * t / 2)
        assert finding.data["bandwidth"][name] == pytest.approx(h)
    assert finding.data["effective_sample_size"] == found.effective_sample_size.tolist()
    assert f"t = {found.time:.2f}" in finding.verdict and finding.reservation
    assert [row[1] for row in finding.rows] == [found.onset, found.time, found.completion, found.predicted_time]


def test_finding_is_plain_json_and_draws_itself() -> None:
    from matplotlib.figure import Figure

    reports: list[Progress] = []
    finding = collapse(gaussian(100, 3), points=16, progress=reports.append)
    assert json.loads(json.dumps(finding.to_dict())) == finding.to_dict()
    assert reports[-1].fraction == 1
    figure = Figure()
    finding.drawings[0].fill(figure)
    figure.canvas.draw()
    axes = figure.axes[0]
    assert axes.get_yscale() == "log" and axes.get_xlabel().startswith("t ") and axes.get_ylabel()
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [row[2] for row in finding.data["effective_sample_size"]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": torch.ones(5, 3)}, "train must hold at least two different data, got 5 equal ones"),
        ({"train": torch.ones(1, 3)}, "train must have at least 2 rows, got 1"),
        ({"train": torch.zeros(0, 3)}, "train must have at least 2 rows, got 0"),
        ({"train": torch.tensor([[0.0], [torch.inf]])}, "train must be finite, got NaN or infinity in 1 of 2 rows"),
        ({"points": 1}, "points must be an integer of at least 2, got 1"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collapse(**{"train": gaussian(5, 3), **changes})


@pytest.mark.slow
@pytest.mark.data
def test_fashion_mnist_collapses_at_a_third() -> None:
    import fluvial as fv

    found = collapse(fv.load_dataset("fashion-mnist").train.x, points=256).data
    assert 0.30 < found["time"] < 0.36 and 0.25 < found["predicted_time"] < 0.31
