"""Fields without a velocity at the end: no evaluation there, and the landing is exact."""

import pytest
import torch

import fluvial as fv
from fluvial.solvers import ADAPTIVE_METHODS, FIXED_METHODS
from names import steady

DATUM = torch.tensor([[0.3, -1.7]], dtype=torch.float64)
PATHS = [fv.CondOT(), fv.VP(), fv.Cosine(), fv.Polynomial(2.0)]
STAGES = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


def noise(rows=4):
    return torch.randn(rows, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("path", PATHS, ids=steady)
@pytest.mark.parametrize("method", [*FIXED_METHODS, *ADAPTIVE_METHODS])
def test_ends_at_the_datum(method, path, one_datum):
    field = one_datum(DATUM, path)
    steps = None if method in ADAPTIVE_METHODS else 12
    end = fv.solve(field, noise(), steps=steps, method=method, t0=0.05).x
    assert (end - DATUM).abs().max() < 1e-9
    assert max(field.times) < 1


@pytest.mark.parametrize("method", FIXED_METHODS)
def test_the_last_step_costs_one_evaluation(method, one_datum):
    field = one_datum(DATUM)
    trajectory = fv.solve(field, noise(), steps=12, method=method)
    assert trajectory.evaluations == len(field.times) == 11 * STAGES[method] + 1


@pytest.mark.parametrize("method", [*FIXED_METHODS, *ADAPTIVE_METHODS])
def test_single_precision_never_rounds_to_the_end(method, one_datum):
    field = one_datum(DATUM.float())
    end = fv.solve(field, noise().float(), method=method).x
    assert (end - DATUM.float()).abs().max() < 1e-6


@pytest.mark.parametrize("method", [*FIXED_METHODS, *ADAPTIVE_METHODS])
def test_saved_states_lie_on_the_straight_path(method, one_datum):
    """CondOT's field of one datum moves each point on a straight line, which every method follows exactly."""
    x0, times = noise(), [0.2, 0.55, 0.97, 0.99995, 1.0]
    tolerances = {"rtol": 1e-8, "atol": 1e-8} if method in ADAPTIVE_METHODS else {}
    path = fv.solve(one_datum(DATUM), x0, method=method, save_at=times, **tolerances).path
    expected = torch.stack([(1 - t) * x0 + t * DATUM for t in times])
    assert (path - expected).abs().max() < 1e-7


def test_adaptive_from_beyond_the_landing(one_datum):
    field = one_datum(DATUM)
    trajectory = fv.solve(field, noise(), method="dopri5", t0=0.99999)
    assert trajectory.evaluations == 1
    assert (trajectory.x - DATUM).abs().max() < 1e-12


@pytest.mark.parametrize("method", [*FIXED_METHODS, *ADAPTIVE_METHODS])
def test_stopping_before_the_end_needs_no_landing(method, one_datum):
    x0 = noise()
    end = fv.solve(one_datum(DATUM), x0, method=method, t1=0.9).x
    assert (end - (0.1 * x0 + 0.9 * DATUM)).abs().max() < 1e-4


@pytest.mark.parametrize("method", [*FIXED_METHODS, *ADAPTIVE_METHODS])
def test_backwards_from_before_the_end(method, one_datum):
    x0 = noise()
    start = 0.1 * x0 + 0.9 * DATUM
    steps = None if method in ADAPTIVE_METHODS else 50
    end = fv.solve(one_datum(DATUM), start, steps=steps, method=method, t0=0.9, t1=0.0).x
    assert (end - x0).abs().max() < 1e-3


@pytest.mark.parametrize("method", [*FIXED_METHODS, *ADAPTIVE_METHODS])
@pytest.mark.parametrize("start", [1.0, 1 - 1e-9])
def test_starting_at_the_end_is_an_error(method, start, one_datum):
    with pytest.raises(ValueError, match="t0 must be < 1"):
        fv.solve(one_datum(DATUM.float()), noise().float(), method=method, t0=start, t1=0.0)


def test_a_singular_field_without_path_is_an_error(recorded):
    with pytest.raises(ValueError, match="GaussianPath"):
        fv.solve(recorded(lambda x, t: x, singular_at_end=True), noise())


def test_vp_lands_better_than_an_euler_step_in_time(one_datum):
    """VP's velocity grows like 1/sqrt(1 - t): an Euler step in time would keep half of the remaining noise."""
    end = fv.solve(one_datum(DATUM, fv.VP()), noise(), steps=10, method="euler").x
    assert (end - DATUM).abs().max() < 1e-12


@pytest.mark.slow
def test_the_exact_field_ends_in_its_support():
    g = torch.Generator().manual_seed(0)
    support = torch.randn(20, 3, generator=g, dtype=torch.float64)
    x0 = torch.randn(16, 3, generator=g, dtype=torch.float64)
    field = fv.ExactField(support)
    with torch.no_grad():
        reference = fv.solve(field, x0, method="dopri5", rtol=1e-8, atol=1e-8).x
        chosen = (reference[:, None] - support).norm(dim=-1).argmin(1)
        for method in ("heun", "rk4", "dopri5"):
            end = fv.solve(field, x0, method=method, steps=None if method == "dopri5" else 60).x
            nearest = (end[:, None] - support).norm(dim=-1).min(1)
            assert nearest.values.max() < 1e-6, method
            assert (nearest.indices == chosen).double().mean() >= 15 / 16, method


@pytest.mark.parametrize(
    "path",
    [
        fv.VP(1.0, 20.0),
        fv.FromBandwidth(lambda t: (1 - t).sqrt() / t, lambda t: -(2 - t) / (2 * (1 - t).sqrt() * t**2)),
    ],
)
def test_single_precision_lands_before_the_end_where_noise_falls_late(path):
    g = torch.Generator().manual_seed(0)
    support = torch.randn(20, 2, generator=g)
    end = fv.solve(fv.ExactField(support, path), torch.randn(30, 2, generator=g), method="dopri5").x
    assert torch.cdist(end, support).min(1).values.max() < 1e-2
