"""Collapse and scarcity against closed forms and against what other parts of the library say."""

import math

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fluvial.fields import ExactField, collapse_time
from fluvial.paths import VP, CondOT, GaussianPath
from fluvial.randomness import generator
from fluvial.support.diagnosis.collapse import PAPER_TIME, _Task, measure_collapse, nested_dimensions
from fluvial.support.diagnosis.condensation import (
    bandwidth_leaving,
    condensation_bandwidth,
    expected_size,
    undetermined,
)
from fluvial.support.diagnosis.draws import Draws, draw_tasks
from fluvial.support.diagnosis.rates import fitted_rate, near_rate, usable
from fluvial.support.diagnosis.regimes import is_scarce
from fluvial.support.diagnosis.rows import ClassRows
from fluvial.support.diagnosis.scarcity import TIMES, _Measurement, batched_kernel_gap, measure_scarcity
from fluvial.support.diagnosis.scarcity_view import scarcity_finding
from fluvial.support.kernel.weighing import weights
from fluvial.support.tasks import GaussianMixtures, Shells

PATH = CondOT(sigma_min=0.01)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def gaussian(dim: int, m: int = 50, tasks: int = 8, seed: int = 0) -> Draws:
    rows = normal(1200, dim, seed=seed)
    return draw_tasks(ClassRows(rows, None, m=m), m, tasks, len(rows), generator(seed))


@pytest.mark.parametrize("dim", [2, 64])
def test_condensation_is_that_of_the_exact_field(dim: int) -> None:
    data = normal(200, dim) * torch.linspace(0.2, 2, dim, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(data.T, correction=0))[None]
    expected = collapse_time(data, points=2).predicted_bandwidth
    assert float(condensation_bandwidth(eigenvalues, 200)) == pytest.approx(expected, rel=1e-6)


def test_closed_forms_of_isotropic_data() -> None:
    dim, s, m = 5, 1.7, 40
    eigenvalues = torch.full((1, dim), s**2, dtype=torch.float64)
    h = condensation_bandwidth(eigenvalues, m)
    assert float(h) == pytest.approx(s / math.sqrt(m ** (2 / dim) - 1), rel=1e-9)
    assert float(undetermined(eigenvalues, h)) == pytest.approx(m ** (-2 / dim), rel=1e-9)
    assert float(bandwidth_leaving(eigenvalues, 0.25)) == pytest.approx(s / math.sqrt(3), rel=1e-9)


@pytest.mark.parametrize(
    ("m", "dim", "h", "simulated"), [(1000, 2, 0.5, 193.2), (1000, 4, 0.8, 130), (1000, 8, 1.5, 147)]
)
def test_expected_size_is_near_what_was_simulated(m: int, dim: int, h: float, simulated: float) -> None:
    found = expected_size(torch.ones(1, dim, dtype=torch.float64), m, torch.tensor([h], dtype=torch.float64))
    assert float(found) == pytest.approx(simulated, rel=0.04)


def test_expected_size_is_the_mean_of_the_ratio_of_kernel_moments() -> None:
    """(E k)^2 / E k^2 in the closed form of each query, averaged over queries, against the product formula."""
    lam, h = torch.tensor([2.0, 0.5, 0.1], dtype=torch.float64), 0.9
    x = normal(400_000, 3) * (lam + h**2).sqrt()
    a = h**2 / lam
    first = (0.5 * torch.log(a / (a + 1)) - x.square() / (2 * lam * (a + 1))).sum(1)
    second = (0.5 * torch.log(a / (a + 2)) - x.square() / (lam * (a + 2))).sum(1)
    ratio = (2 * first - second).exp().mean()
    found = expected_size(lam[None], 11, torch.tensor([h], dtype=torch.float64))
    assert float(found) == pytest.approx(1 + 10 * float(ratio), rel=5e-3)


@pytest.mark.parametrize("path", [CondOT(), CondOT(0.01), VP()])
def test_nearest_time_inverts_the_bandwidth(path: GaussianPath) -> None:
    t = torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64)
    torch.testing.assert_close(path.time_at_bandwidth(path.bandwidth(t)), t)


def test_weights_are_those_of_the_exact_field() -> None:
    support, x, t = normal(1, 30, 4), normal(1, 6, 4, seed=1), torch.tensor(0.7, dtype=torch.float64)
    w = weights(x, support, float(PATH.bandwidth(t)))[0]
    found = ExactField(support[0], path=PATH).posterior(t * x[0], t.expand(6))
    torch.testing.assert_close(w.square().sum(1).reciprocal(), found.effective_sample_size)
    torch.testing.assert_close(w.amax(1), found.top_weight)


@pytest.mark.parametrize("dim", [2, 6, 16])
def test_collapse_of_gaussians_is_where_it_is_predicted(dim: int) -> None:
    found = measure_collapse(gaussian(dim), PATH, generator(1)).data
    assert [row["dimension"] for row in found["nested"]] == nested_dimensions(dim, 50)
    for row in found["nested"][1:]:
        assert row["time"]["value"] == pytest.approx(row["predicted_time"], abs=0.09)
    assert found["size"][0] == pytest.approx(50, rel=0.01) and found["share"][0] == 0
    assert found["entropy"][0] == pytest.approx(math.log(50), rel=0.01)
    assert found["share"][-1] > (0.5 if dim == 2 else 0.95)
    assert found["time"]["value"] < found["late_time"]["value"]


def test_collapse_does_not_depend_on_the_scale_but_its_time_does() -> None:
    """Where a quarter of the variance is open is a place on the path, whatever the units."""
    rows = normal(600, 4)
    one, ten = (
        measure_collapse(
            draw_tasks(ClassRows(scale * rows, None, m=20), 20, 3, 600, generator(0)), CondOT(), generator(1)
        ).data
        for scale in (1.0, 10.0)
    )
    assert ten["open_size"]["value"] == pytest.approx(one["open_size"]["value"], rel=1e-6)
    assert ten["bandwidth"] == pytest.approx(10 * one["bandwidth"], rel=1e-6)
    assert ten["paper_size"]["value"] < one["paper_size"]["value"]


def test_mixtures_in_16_dimensions_have_the_papers_size() -> None:
    found = measure_collapse(draw_tasks(GaussianMixtures(16), 50, 12, None, generator(0)), PATH, generator(1)).data
    assert found["paper_time"] == PAPER_TIME == 0.56
    assert found["paper_size"]["value"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("known", [True, False])
def test_early_the_error_is_that_of_a_mean(known: bool) -> None:
    """At a bandwidth beyond all distances the kernel's mean is the support's, whose error is the variance over m."""
    draws = draw_tasks(GaussianMixtures(3), 10, 60, None, generator(0))
    measure = _Measurement(draws, PATH, draws.fresh[:, :16], normal(60, 16, 3, seed=1), known)
    h = torch.full((60,), 1e4, dtype=torch.float64)
    for size in draws.sizes:
        error = measure._errors(size, h, measure._true_mean(h))[0] / measure._variance
        assert float(error.mean()) == pytest.approx(1 / size, rel=0.35)


def test_the_velocitys_error_is_that_of_the_velocity() -> None:
    draws = draw_tasks(GaussianMixtures(2), 10, 3, None, generator(0))
    queries, noise = draws.fresh[:, :64], normal(3, 64, 2, seed=1)
    measure = _Measurement(draws, PATH, queries, noise, True)
    expected = torch.zeros(3, dtype=torch.float64)
    for time in TIMES:
        t = torch.full((3, 64), time, dtype=torch.float64)
        x = time * queries + PATH.sigma(t)[..., None] * noise
        truth = draws.truth.velocity(x, t, PATH)
        for b in range(3):
            found = ExactField(draws.pair[0, b, :10], path=PATH)(x[b], t[b])
            expected[b] += (found - truth[b]).square().sum(1).mean() / len(TIMES)
    torch.testing.assert_close(measure.over_time(10)["velocity"], expected, rtol=1e-6, atol=0)


def test_two_supports_tell_the_variance_over_supports() -> None:
    """Half the squared difference is, on average, the mean squared distance from the mean over many supports."""
    dim, m, h = 2, 10, 0.8
    x = normal(40, dim, seed=2)
    supports = normal(4000, m, dim, seed=3)
    means = weights(x.expand(4000, 40, dim), supports, h) @ supports
    variance = (means - means.mean(0)).square().sum(2).mean()
    half = 0.5 * (means[::2] - means[1::2]).square().sum(2).mean()
    assert float(half) == pytest.approx(float(variance), rel=0.05)


def test_rates_of_power_laws() -> None:
    sizes = (5, 10, 40, 100)
    errors = torch.tensor([[2.0, 3.0, 7.0]]) * torch.tensor([[float(k) ** -0.37] for k in sizes])
    rate = fitted_rate(sizes, errors)
    assert rate.value == pytest.approx(0.37, abs=1e-6) and rate.high - rate.low < 1e-6
    near, error = near_rate(sizes, errors, 20)
    assert near.value == pytest.approx(0.37, abs=1e-6) and error == pytest.approx(4.0 * 20**-0.37, rel=1e-5)


def test_rates_have_intervals_that_hold_them() -> None:
    held = 0
    for seed in range(40):
        random = torch.exp(0.4 * normal(4, 30, seed=seed)) * torch.tensor([[k**-0.5] for k in (5, 10, 20, 40)])
        rate = fitted_rate((5, 10, 20, 40), random)
        held += rate.low < 0.5 < rate.high
    assert 33 <= held <= 40


def test_kernel_gap_is_that_of_all_pairs() -> None:
    x = normal(2, 12, 3)
    found = batched_kernel_gap(x, torch.tensor([0.7, 2.0], dtype=torch.float64))
    for b, width in enumerate((0.7, 2.0)):
        pairs = [
            math.exp(-float((x[b, i] - x[b, j]).square().sum()) / (2 * width**2))
            for i in range(12)
            for j in range(12)
            if i != j
        ]
        assert float(found[b]) == pytest.approx(1 - sum(pairs) / len(pairs), rel=1e-10)


@pytest.mark.slow
def test_scarcity_of_gaussians_in_the_plane_falls_at_its_rate_and_mmd_at_its_own() -> None:
    found = measure_scarcity(gaussian(2, m=20, tasks=24), PATH, generator(1)).data
    assert found["rates"]["adapted"]["value"] == pytest.approx(found["local_rate"], abs=0.15)
    assert found["rates"]["adapted"]["value"] > found["minimax_rate"] + 0.1
    for value, line in zip(found["mmd2"][:4], found["mmd2_line"][:4], strict=True):
        assert value == pytest.approx(line, rel=0.35)


@pytest.mark.slow
def test_shells_fall_slowly_and_mmd_does_not_show_it() -> None:
    draws = draw_tasks(Shells(8), 50, 12, None, generator(0))
    known = measure_scarcity(draws, PATH, generator(1)).data
    assert known["known_truth"] and known["rates"]["adapted"]["value"] < 0.45
    assert known["rates"]["mmd2"]["value"] == pytest.approx(1, abs=0.25)
    blind = Draws(draws.support, draws.held_out, draws.pair, draws.fresh, draws.sizes, None)
    lower = measure_scarcity(blind, PATH, generator(1)).data
    assert all(a < b for a, b in zip(lower["error"], known["error"], strict=True))


def test_a_mean_that_is_not_positive_has_no_logarithm() -> None:
    """Unbiased squared MMDs may be below 0: such a size is left out of the rate, rather than clamped to 1e-300."""
    sizes = (5, 10, 20, 40)
    errors = torch.tensor([[1.0, 1.2], [0.5, 0.6], [0.25, 0.3], [-0.0021, -0.0001]])
    assert usable(errors) == [0, 1, 2]
    rate = fitted_rate(sizes, errors)
    assert (rate.value, rate.low, rate.high) == pytest.approx((1, 1, 1), abs=1e-6)
    near, error = near_rate(sizes, errors, 40)
    assert near.value == pytest.approx(1, abs=1e-6) and error == pytest.approx(1.1 / 8, rel=1e-5)
    none, error = near_rate(sizes, -errors[:, :1].expand(4, 2), 40)
    assert none.to_dict() == {"value": None, "low": None, "high": None} and error == pytest.approx(0.0021)


def test_undetermined_resamplings_widen_the_interval() -> None:
    """One task of eight is far below 0: resamplings that draw it often have no rate, and may be at either end."""
    errors = torch.ones(3, 8) * torch.tensor([[1.0], [0.5], [0.25]])
    assert fitted_rate((5, 10, 20), errors).text() == "1 [1, 1]"
    errors[2, 0] = -1.0
    rate = fitted_rate((5, 10, 20), errors)
    assert math.isfinite(rate.value) and rate.low == -math.inf and rate.high == math.inf
    rare = torch.cat([errors[:, :1], errors[:, 1:].repeat(1, 12)], 1)  # one of 85: too few to reach the ends
    rate = fitted_rate((5, 10, 20), rare)
    assert 0.9 < rate.low < rate.value < rate.high < 1.5


def test_a_size_that_is_left_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = gaussian(2, m=10, tasks=3)
    last = draws.sizes[-1]
    values = iter([torch.full((3,), -0.0011 if size == last else 1 / size).double() for size in draws.sizes])
    monkeypatch.setattr("fluvial.support.diagnosis.scarcity.batched_mmd2", lambda *_: next(values))
    found = measure_scarcity(draws, PATH, generator(1))
    assert found.data["rates"]["mmd2"]["value"] == pytest.approx(1, abs=1e-6)
    assert found.data["left_out"] == {"error": [], "velocity": [], "adapted": [], "mmd2": [last]}
    assert any(f"MMD² leaves out the sizes {last}, where the mean" in note for note in found.notes)


def test_a_rate_that_cannot_be_told_is_told_as_that() -> None:
    data = dict(measure_scarcity(gaussian(2, m=10, tasks=3), PATH, generator(1)).data)
    nothing = {"value": None, "low": None, "high": None}
    data |= {"rate_here": nothing, "rates": dict.fromkeys(data["rates"], nothing)}
    data |= {"velocity": [0.0] * len(data["sizes"]), "adapted": [0.0] * len(data["sizes"])}
    found = scarcity_finding(data)
    assert "falls at a rate that cannot be told" in found.verdict and "twice as many" not in found.verdict
    found.drawings[0].fill(Figure())
    assert not is_scarce(data)


def _task(support: Tensor, queries: Tensor) -> _Task:
    return _Task(support, queries, torch.zeros_like(queries), support)


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e9])
def test_the_bandwidth_of_collapse_is_found_wherever_it_is(factor: float) -> None:
    """Two of three examples at distances a and b: half of the weight is on the nearer where the odds are even."""
    support = torch.tensor([[[0.0], [3.0], [3.5]]], dtype=torch.float64)
    task = _task(support, torch.full((1, 4, 1), 1.0, dtype=torch.float64))
    guess = factor * torch.ones(1, dtype=torch.float64)
    h = task.bandwidth_at(0.5, guess)
    w = weights(task.queries, support, h).amax(-1)
    assert float(w[0, 0]) == pytest.approx(0.5, abs=2e-3)


def test_equal_nearest_examples_never_collapse() -> None:
    support = torch.tensor([[[0.0], [0.0], [5.0]], [[0.0], [1.0], [5.0]]], dtype=torch.float64)
    task = _task(support, torch.full((2, 4, 1), 0.3, dtype=torch.float64))
    h = task.bandwidth_at(0.5, torch.ones(2, dtype=torch.float64))
    assert float(h[0]) == 0 and float(h[1]) > 0.1
    assert CondOT().time_at_bandwidth(h)[0] == 1
    assert undetermined(torch.tensor([[1.0, 0.0]] * 2, dtype=torch.float64), h).isfinite().all()
