"""dopri5: accuracy, independence of rows, jumps, and errors in place of assertions."""

import math

import pytest
import torch

import fluvial as fv


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, 0.0), (0.9, 0.1)])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-9])
def test_keeps_its_tolerance(start, stop, tolerance, riccati, solution):
    x0 = torch.tensor([[0.7], [-0.6], [0.2]], dtype=torch.float64)
    end = fv.solve(riccati, x0, method="dopri5", t0=start, t1=stop, rtol=tolerance, atol=tolerance).x
    assert (end - solution(x0, start, stop)).abs().max() < 20 * tolerance


def test_linear_field_against_the_matrix_exponential():
    rates = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x0 = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    end = fv.solve(lambda x, t, cond=None: x @ rates.T, x0, method="dopri5", rtol=1e-10, atol=1e-10).x
    assert (end - x0 @ torch.linalg.matrix_exp(rates).T).abs().max() < 1e-8


def test_counts_evaluations_and_rejections(recorded):
    field = recorded(lambda x, t: 30 * torch.cos(60 * t**2) * torch.ones_like(x))
    trajectory = fv.solve(field, torch.zeros(2, 1), method="dopri5")
    assert trajectory.evaluations == len(field.times)
    assert trajectory.rejected > 0
    assert (trajectory.evaluations - 2) % 6 == 0  # two to begin with, six a step, accepted or not


def test_never_leaves_the_interval(recorded):
    field = recorded(lambda x, t: 1e-3 * torch.ones_like(x))  # a slow field invites large first steps
    fv.solve(field, torch.ones(1, 1), method="dopri5", t0=0.2, t1=0.7)
    assert min(field.times) >= 0.2 - 1e-7 and max(field.times) <= 0.7 + 1e-7


def test_a_difficult_row_keeps_its_accuracy_among_easy_ones():
    def field(x, t, cond=None):
        return torch.sin(cond[:, None] * t[:, None]) * cond[:, None]  # x(1) = x0 + 1 - cos(rate)

    def error(rates, row):
        x0 = torch.zeros(len(rates), 1, dtype=torch.float64)
        end = fv.solve(field, x0, method="dopri5", cond=rates, rtol=1e-6, atol=1e-6).x[row]
        return float((end - (1 - torch.cos(rates[row]))).abs())

    difficult = torch.tensor([40.0], dtype=torch.float64)
    easy = torch.full((1000,), 0.01, dtype=torch.float64)
    alone = error(difficult, 0)
    assert alone < 1e-5
    assert error(torch.cat([difficult, easy]), 0) < 2 * alone + 1e-9


@pytest.mark.parametrize("direction", [1, -1])
def test_a_jump_is_a_node(direction, recorded):
    tau = 0.3
    field = recorded(lambda x, t: torch.where(t >= tau, 2 * x, -x), breakpoints=(tau,))
    x0 = torch.ones(2, 1, dtype=torch.float64)
    ends = (0.0, 1.0) if direction == 1 else (1.0, 0.0)
    trajectory = fv.solve(field, x0, method="dopri5", t0=ends[0], t1=ends[1], rtol=1e-8, atol=1e-8)
    assert (trajectory.x - math.exp(direction * (2 * 0.7 - 0.3))).abs().max() < 1e-7
    assert trajectory.rejected == 0
    assert tau not in field.times
    undeclared = recorded(field.function)
    fv.solve(undeclared, x0, method="dopri5", t0=ends[0], t1=ends[1], rtol=1e-8, atol=1e-8)
    assert len(field.times) < 0.7 * len(undeclared.times)


def test_saved_states_are_those_of_separate_solves(riccati):
    x0 = torch.tensor([[0.7], [-0.6]], dtype=torch.float64)
    options = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9}
    times = [0.8, 0.0, 0.31, 1.0]
    saved = fv.solve(riccati, x0, save_at=torch.tensor(times), **options)
    alone = fv.solve(riccati, x0, **options)
    assert saved.evaluations == alone.evaluations and torch.equal(saved.x, alone.x)
    assert torch.equal(saved.path[1], x0)
    for t, state in zip(times, saved.path, strict=True):
        if t > 0:
            assert (fv.solve(riccati, x0, t1=t, **options).x - state).abs().max() < 1e-6


def test_images(riccati, solution):
    x0 = 0.5 * torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(fv.solve(riccati, x0, method="dopri5").x, solution(x0, 0.0, 1.0), atol=1e-4)


def test_gradient_of_a_linear_flow():
    x0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    fv.solve(lambda x, t, cond=None: -1.3 * x, x0, method="dopri5", rtol=1e-9, atol=1e-9).x.sum().backward()
    assert torch.allclose(x0.grad, torch.full_like(x0, math.exp(-1.3)), atol=1e-8)


def test_progress_reaches_the_total(riccati):
    seen = []
    fv.solve(riccati, torch.ones(2, 1), method="dopri5", t0=1.0, t1=0.0, progress=seen.append)
    fractions = [report.fraction for report in seen]
    assert fractions == sorted(fractions) and fractions[-1] > 0.998 and 0 < fractions[0] < 1


def test_nan_from_the_start_names_the_rows(recorded):
    field = recorded(lambda x, t: torch.where(torch.arange(4).reshape(4, 1) == 2, torch.nan, x))
    with pytest.raises(ValueError, match=r"not finite at t = 0, in 1 of 4 rows \(25 %\)"):
        fv.solve(field, torch.ones(4, 2), method="dopri5")


def test_nan_on_the_way_names_the_time(recorded):
    field = recorded(lambda x, t: torch.where(t > 0.5, torch.nan, torch.ones_like(x)))
    with pytest.raises(ValueError, match=r"not finite at t = 0\.\d+, in 2 of 2 rows \(100 %\)"):
        fv.solve(field, torch.ones(2, 2), method="dopri5")


def test_a_solution_that_explodes_names_time_and_rows():
    start = torch.tensor([[2.0], [0.1]], dtype=torch.float64)  # the first reaches infinity at t = 1/2
    with pytest.raises(ValueError, match=r"t = 0\.5.* 1 of 2 rows \(50 %\)"):
        fv.solve(lambda x, t, cond=None: x**2, start, method="dopri5")


def test_an_assertion_of_the_field_stays_what_it_is():
    def field(x, t, cond=None):
        raise AssertionError("mine")

    with pytest.raises(AssertionError, match="mine"):
        fv.solve(field, torch.ones(1, 1), method="dopri5")


def test_too_many_steps(recorded, monkeypatch):
    monkeypatch.setattr("fluvial.solvers.adaptive.MAX_STEPS", 5)
    field = recorded(lambda x, t: 30 * torch.cos(60 * t**2) * torch.ones_like(x))
    with pytest.raises(ValueError, match=r"took 5 steps and is still at t = 0\.\d+"):
        fv.solve(field, torch.ones(1, 1), method="dopri5")
