"""Collapse of the posterior: prediction against measurement, and what must not change it."""

import pytest
import torch

import fluvial as fv


def gaussian(n: int, d: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(d))


@pytest.mark.parametrize(
    ("n", "d", "scale"),
    [(2000, 4, 1.0), (2000, 64, 1.0), (500, 1024, 0.5), pytest.param(5000, 4, 1.0, marks=pytest.mark.slow)],
)
def test_prediction_holds_on_gaussians(n: int, d: int, scale: float) -> None:
    found = fv.collapse_time(gaussian(n, d, scale), points=256)
    assert abs(found.predicted_time - found.time) < 0.03
    assert found.onset < found.time < found.completion


@pytest.mark.parametrize("n", [30, 300, 1437])
def test_prediction_holds_on_digits(n: int) -> None:
    found = fv.collapse_time(fv.load_dataset("digits").train.x[:n])
    assert abs(found.predicted_time - found.time) < 0.07


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("n", [1000, 10_000])
def test_prediction_holds_on_fashion_mnist(n: int) -> None:
    images = fv.load_dataset("fashion-mnist").train
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n]
    found = fv.collapse_time(images.take(chosen)[0], points=256)
    assert abs(found.predicted_time - found.time) < 0.07


def test_a_path_changes_the_time_and_not_the_bandwidth() -> None:
    data = gaussian(300, 8)
    straight, cosine = fv.collapse_time(data), fv.collapse_time(data, fv.Cosine())
    assert straight.predicted_bandwidth == cosine.predicted_bandwidth
    for name in ("time", "onset", "completion", "predicted_time"):
        bandwidths = [
            path.bandwidth(torch.tensor(getattr(found, name), dtype=torch.float64))
            for path, found in ((fv.CondOT(), straight), (fv.Cosine(), cosine))
        ]
        torch.testing.assert_close(*bandwidths, rtol=1e-6, atol=0)


def test_scale_moves_the_bandwidth_with_the_data() -> None:
    small, large = (fv.collapse_time(gaussian(300, 8, scale)) for scale in (1.0, 100.0))
    assert large.predicted_bandwidth == pytest.approx(100 * small.predicted_bandwidth, rel=1e-5)
    assert large.time < small.time


def test_the_curve_falls_from_all_data_to_one() -> None:
    found = fv.collapse_time(gaussian(300, 8))
    median = found.effective_sample_size[:, 2]
    assert median[0] > 250 and median[-1] == pytest.approx(1.0)
    assert (median.diff() < 1).all()
    assert (found.effective_sample_size.diff(dim=1) >= 0).all()


def test_equal_data_are_one_with_more_weight() -> None:
    data = gaussian(200, 8)
    once, twice = fv.collapse_time(data), fv.collapse_time(data.repeat(2, 1))
    assert once.predicted_bandwidth == pytest.approx(twice.predicted_bandwidth, rel=1e-6)
    assert twice.time == pytest.approx(once.time, abs=0.02)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least two different data, got 1"):
        fv.collapse_time(torch.ones(5, 3))
    with pytest.raises(ValueError, match="points must be at least 2, got 1"):
        fv.collapse_time(gaussian(10, 2), points=1)
