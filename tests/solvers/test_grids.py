"""Optimised nodes of time, against the density that the theory of equidistribution gives, and by what they bring."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fluvial as fv
from fluvial.progress import Progress
from fluvial.randomness import noise
from fluvial.solvers import FIXED_METHODS
from fluvial.solvers.grids import FLOOR, ORDERS, optimised_grid

F64 = torch.float64


LEFT = 0.15  # standard deviation of each of the mixture's Gaussians
CENTRES = 1.5 * noise(5, 0, 12, (2,), F64)


def mixture(x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
    """Marginal velocity of a mixture of twelve narrow Gaussians in the plane, on CondOT's path."""
    t = t[:, None]
    sigma = 1 - (1 - LEFT) * t
    squares = (x[:, None] - t[..., None] * CENTRES).square().sum(2)
    mean = torch.softmax(-squares / (2 * sigma**2), 1) @ CENTRES
    return (mean - (1 - LEFT) * x) / sigma


def spread(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float((x - truth).square().sum(1).mean().sqrt())


@pytest.mark.parametrize("method", FIXED_METHODS)
def test_nodes_follow_a_known_error_density(method):
    # With v = t^(2p+1) a step errs as t^(p+1) h^(p+1) to first order: the monitor function is t, and the floor.
    p, steps = ORDERS[method], 40
    found = optimised_grid(
        lambda x, t, cond=None: 0 * x + t[:, None] ** (2 * p + 1), torch.zeros(4, 1, dtype=F64), steps, method
    )
    t = np.array(found)
    np.testing.assert_allclose((t**2 + FLOOR * t) / (1 + FLOOR), np.arange(steps + 1) / steps, atol=6e-3)
    assert np.abs(t - np.arange(steps + 1) / steps).max() > 0.15


@pytest.mark.parametrize("rate", [4.0, -4.0])
def test_errors_weigh_as_the_flow_carries_them_to_the_end(rate):
    # x = t^2 / 2 solves x' = t + rate (t^2 / 2 - x); Euler's steps err by h^2 / 2 each, and the flow shrinks an error
    # at t by exp(-rate (1 - t)).
    def field(x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        return t[:, None] + rate * (t[:, None] ** 2 / 2 - x)

    steps = 32
    t = np.array(optimised_grid(field, torch.zeros(4, 1, dtype=F64), steps, "euler"))
    half, mean = rate / 2, math.expm1(rate / 2) / (rate / 2)
    cumulative = (np.expm1(half * t) / half + FLOOR * mean * t) / (mean * (1 + FLOOR))
    np.testing.assert_allclose(cumulative, np.arange(steps + 1) / steps, atol=0.015)


@settings(max_examples=10, deadline=None)
@given(
    steps=st.integers(4, 12),
    jumps=st.lists(st.floats(0.02, 0.98), max_size=3, unique=True),
    method=st.sampled_from(FIXED_METHODS),
    forward=st.booleans(),
)
def test_monotone_nodes_between_the_ends_with_the_breakpoints_among_them(steps, jumps, method, forward):
    if any(right - left < 1e-3 for left, right in pairwise(sorted(jumps))):
        return
    t0, t1 = (0.0, 1.0) if forward else (1.0, 0.0)

    def field(x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        return torch.sin(3 * x + sum(2 * (t >= jump) for jump in jumps)[:, None] if jumps else 3 * x)

    field.breakpoints = tuple(jumps)  # type: ignore[attr-defined]
    x0 = noise(0, 0, 4, (2,), F64)
    found = optimised_grid(field, x0, steps, method, t0=t0, t1=t1, rounds=2)
    assert len(found) == steps + 1 and found[0] == t0 and found[-1] == t1
    assert all((right - left) * (t1 - t0) > 0 for left, right in pairwise(found))
    assert set(jumps) <= set(found)
    assert fv.solve(field, x0, grid=found, method=method, t0=t0, t1=t1).evaluations % steps == 0


@pytest.mark.parametrize(("method", "steps", "share"), [("euler", 10, 0.9), ("heun", 10, 0.8), ("rk4", 12, 0.7)])
def test_it_errs_less_than_equal_steps_on_noise_it_has_not_seen(method, steps, share):
    fresh = noise(1, 0, 400, (2,), F64)
    grid = optimised_grid(mixture, noise(0, 0, 256, (2,), F64), steps, method, rounds=4)
    truth = fv.solve(mixture, fresh, method="dopri5", rtol=1e-9, atol=1e-9).x
    equal, optimised = (fv.solve(mixture, fresh, method=method, **way) for way in ({"steps": steps}, {"grid": grid}))
    assert equal.evaluations == optimised.evaluations
    assert spread(optimised.x, truth) < share * spread(equal.x, truth)


@pytest.mark.parametrize("method", FIXED_METHODS)
def test_the_order_of_convergence_is_kept(method, riccati, solution):
    x0 = torch.tensor([[0.7], [-0.6], [0.2]], dtype=F64)
    exact, errors = solution(x0, 0.0, 1.0), []
    for steps in (40, 80):
        grid = optimised_grid(riccati, x0, steps, method, rounds=3)
        errors.append(spread(fv.solve(riccati, x0, grid=grid, method=method).x, exact))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[method], abs=0.3)


@given(steps=st.integers(1, 9), seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_never_worse_than_equal_steps_on_its_own_rows(steps, seed):
    x0 = noise(seed, 0, 5, (2,), F64)
    grid = optimised_grid(mixture, x0, steps, "heun", rounds=2)
    truth = fv.solve(mixture, x0, steps=128, method="rk4").x
    equal, optimised = (fv.solve(mixture, x0, method="heun", **way).x for way in ({"steps": steps}, {"grid": grid}))
    assert spread(optimised, truth) <= spread(equal, truth) * (1 + 1e-9)


def test_a_field_without_errors_keeps_equal_steps():
    found = optimised_grid(lambda x, t, cond=None: torch.ones_like(x), torch.zeros(3, 2), 4)
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)])
def test_a_field_that_is_singular_at_the_end(shape, recorded):
    field = recorded(lambda x, t: (torch.tanh(4 * x) - x) / (1 - t), singular_at_end=True, path=fv.CondOT())
    found = optimised_grid(field, noise(0, 0, 16, shape), 6, "heun", rounds=2)
    assert max(field.times) < 1 and len(found) == 7
    assert torch.isfinite(fv.solve(field, noise(1, 0, 16, shape), grid=found, method="heun").x).all()


def test_condition_seed_and_progress():
    def field(x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        return torch.sin(4 * x + cond[:, None] * t[:, None] ** 2)

    x0, reports = noise(0, 0, 6, (3,), F64), list[Progress]()
    slow, fast = (torch.full((6,), rate, dtype=F64) for rate in (0.1, 12.0))
    first = optimised_grid(field, x0, 8, cond=fast, rounds=2, progress=reports.append)
    assert [(report.step, report.total) for report in reports] == [(1, 2), (2, 2)]
    assert reports[1].values["error"] <= reports[0].values["error"]
    assert first == optimised_grid(field, x0, 8, cond=fast, rounds=2)
    assert first != optimised_grid(field, x0, 8, cond=slow, rounds=2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be an integer of at least 1, got 0"),
        ({"steps": 2.5}, ValueError, "steps must be an integer of at least 1, got 2.5"),
        ({"steps": 2, "rounds": 0}, ValueError, "rounds must be an integer of at least 1, got 0"),
        ({"steps": 2, "method": "dopri5"}, ValueError, "method must be one of euler, .*, got 'dopri5'"),
        ({"steps": 2, "t0": 1.0}, ValueError, "t0 and t1 must differ"),
        ({"steps": 2, "t1": 2.0}, ValueError, r"t1 must be in \[0, 1\], got 2.0"),
        ({"steps": 2, "x0": [0.0]}, TypeError, "x0 must be a tensor, got list"),
        ({"steps": 2, "x0": torch.zeros(2, 2, dtype=torch.int64)}, ValueError, "x0 must have a floating-point type"),
        ({"steps": 2, "seed": -1}, ValueError, "seed .*must be non-negative, got"),
        ({"steps": 1}, ValueError, r"steps must be at least 2, one for each leg .* \(0.5\), got 1"),
    ],
)
def test_bad_input(arguments, error, message):
    def untouched(x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        raise RuntimeError("the field was evaluated")

    untouched.breakpoints = (0.5,)  # type: ignore[attr-defined]
    with pytest.raises(error, match=message):
        optimised_grid(untouched, **({"x0": torch.zeros(2, 2)} | arguments))


def test_a_field_that_explodes():
    with pytest.raises(ValueError, match="left the finite numbers between t = "):
        optimised_grid(lambda x, t, cond=None: torch.exp(20 * x), torch.ones(2, 2), 4)
