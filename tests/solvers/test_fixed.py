"""Fixed-step methods: orders, agreement with independent implementations, counting, saves."""

import math
from itertools import pairwise

import pytest
import torch
from torchdiffeq import odeint
from torchdiffeq._impl.rk_common import rk4_step_func

import fluvial as fv
from fluvial.solvers import FIXED_METHODS

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
STAGES = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


def observed_order(field, x0, exact, method, counts, **options):
    errors = [float((fv.solve(field, x0, steps=n, method=method, **options).x - exact).abs().max()) for n in counts]
    return math.log(errors[0] / errors[1]) / math.log(counts[1] / counts[0])


def test_every_method_is_covered():
    assert set(FIXED_METHODS) == set(ORDERS)


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, 0.0), (0.1, 0.8)])
@pytest.mark.parametrize("method", FIXED_METHODS)
def test_order_of_convergence(method, start, stop, riccati, solution):
    x0 = torch.tensor([[0.7], [-0.6], [0.2]], dtype=torch.float64)
    order = observed_order(riccati, x0, solution(x0, start, stop), method, (80, 160), t0=start, t1=stop)
    assert order == pytest.approx(ORDERS[method], abs=0.15)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("method", FIXED_METHODS)
@pytest.mark.parametrize("inclusive", [True, False])
def test_order_survives_a_jump(method, direction, inclusive, recorded):
    tau, rates = 0.3, (-1.0, 2.0)

    def velocity(x, t):
        late = t >= tau if inclusive else t > tau
        return torch.where(late, rates[1] * x, rates[0] * x)

    field = recorded(velocity, breakpoints=(tau,))
    x0 = torch.ones(2, 1, dtype=torch.float64)
    exact = x0 * math.exp(direction * (rates[0] * tau + rates[1] * (1 - tau)))
    ends = {"t0": 0.0, "t1": 1.0} if direction == 1 else {"t0": 1.0, "t1": 0.0}
    assert observed_order(field, x0, exact, method, (40, 80), **ends) == pytest.approx(ORDERS[method], abs=0.15)
    assert tau not in field.times


def test_a_jump_that_is_not_declared_costs_the_order(recorded):
    field = recorded(lambda x, t: torch.where(t >= 0.3, 2 * x, -x))
    x0 = torch.ones(1, 1, dtype=torch.float64)
    assert observed_order(field, x0, x0 * math.exp(1.1), "heun", (42, 82)) < 1.3


@pytest.mark.parametrize("method", FIXED_METHODS)
def test_agrees_with_torchdiffeq(method):
    x0 = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mixing = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def velocity(t, x):
        return torch.sin(x @ mixing + 3 * t)

    grid = torch.linspace(0, 1, 14, dtype=torch.float64)
    if method == "rk4":  # torchdiffeq's method of that name is Kutta's 3/8 rule
        theirs = x0
        for left, right in pairwise(grid):
            theirs = theirs + rk4_step_func(
                lambda t, x, perturb=None: velocity(t, x), left, right - left, right, theirs
            )
    else:
        theirs = odeint(velocity, x0, grid, method={"heun": "heun2"}.get(method, method))[-1]
    ours = fv.solve(lambda x, t, cond=None: velocity(t[:, None], x), x0, steps=13, method=method).x
    assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("method", FIXED_METHODS)
def test_counts_every_evaluation(method, riccati):
    trajectory = fv.solve(riccati, torch.ones(2, 1), steps=7, method=method)
    assert trajectory.evaluations == len(riccati.times) == 7 * STAGES[method]
    assert trajectory.rejected == 0


def test_fifty_steps_by_default(riccati):
    assert fv.solve(riccati, torch.ones(2, 1)).evaluations == 50  # 25 steps of the midpoint method


def test_times_reach_the_field_in_order_and_in_range(riccati):
    fv.solve(riccati, torch.ones(2, 1), steps=10, method="euler")
    assert riccati.times == pytest.approx([i / 10 for i in range(10)], abs=1e-7)


def test_steps_are_shared_among_legs(recorded):
    field = recorded(lambda x, t: x, breakpoints=(0.2, 0.9))
    fv.solve(field, torch.ones(1, 1, dtype=torch.float64), steps=10, method="euler")
    assert field.times == pytest.approx([i / 10 for i in range(10)], abs=1e-12)


@pytest.mark.parametrize("method", FIXED_METHODS)
def test_saved_states_are_those_of_separate_solves(method, riccati):
    x0 = torch.tensor([[0.7], [-0.6]], dtype=torch.float64)
    alone = fv.solve(riccati, x0, steps=10, method=method)
    saved = fv.solve(riccati, x0, steps=10, method=method, save_at=[1.0, 0.0, 0.5, 0.3, 0.47])
    assert torch.equal(saved.x, alone.x)
    assert torch.equal(saved.path[0], alone.x)
    assert torch.equal(saved.path[1], x0)
    assert torch.equal(saved.t, torch.tensor([1.0, 0.0, 0.5, 0.3, 0.47], dtype=torch.float64))
    half = fv.solve(riccati, x0, steps=5, method=method, t1=0.5).x
    assert (saved.path[2] - half).abs().max() < 1e-14
    left = fv.solve(riccati, x0, steps=4, method=method, t1=0.4).x
    inside = fv.solve(riccati, left, steps=1, method=method, t0=0.4, t1=0.47).x
    assert (saved.path[4] - inside).abs().max() < 1e-14
    # one time inside a step: one more step, which shares its first stage
    assert saved.evaluations == alone.evaluations + STAGES[method] - 1


def test_saves_backwards(riccati, solution):
    x0 = torch.tensor([[0.7]], dtype=torch.float64)
    trajectory = fv.solve(riccati, x0, steps=100, method="rk4", t0=1.0, t1=0.2, save_at=[0.9, 0.2, 0.555])
    expected = torch.stack([solution(x0, 1.0, t) for t in (0.9, 0.2, 0.555)])
    assert (trajectory.path - expected).abs().max() < 1e-6


def test_without_save_at_the_path_is_the_end(riccati):
    trajectory = fv.solve(riccati, torch.ones(2, 1), steps=3, t1=0.5, method="euler")
    assert torch.equal(trajectory.path, trajectory.x[None])
    assert trajectory.t.tolist() == [0.5]


def test_images_keep_their_shape_and_type():
    x0 = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    trajectory = fv.solve(lambda x, t, cond=None: -x, x0, steps=20, method="rk4", save_at=[0.5, 1.0])
    assert trajectory.path.shape == (2, 2, 3, 4, 5)
    assert trajectory.x.dtype == torch.float32
    assert torch.allclose(trajectory.x, x0 * math.exp(-1), atol=1e-6)


def test_half_precision_fields_leave_the_type_of_the_state():
    trajectory = fv.solve(lambda x, t, cond=None: (-x).bfloat16(), torch.ones(2, 1), steps=5, method="heun")
    assert trajectory.x.dtype == torch.float32


def test_condition_is_passed_as_it_is():
    labels = torch.tensor([0, 3])
    end = fv.solve(lambda x, t, cond: cond[:, None] + 0 * x, torch.zeros(2, 1), steps=4, cond=labels, method="euler").x
    assert torch.allclose(end, labels[:, None].float())


@pytest.mark.parametrize("method", FIXED_METHODS)
def test_gradient_of_a_linear_flow(method):
    x0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(-1.3, dtype=torch.float64, requires_grad=True)
    fv.solve(lambda x, t, cond=None: rate * x, x0, steps=2, method=method).x.sum().backward()
    z, order = rate.item() / 2, ORDERS[method]
    growth = sum(z**k / math.factorial(k) for k in range(order + 1))
    slope = sum(z ** (k - 1) / math.factorial(k - 1) for k in range(1, order + 1)) / 2
    assert torch.allclose(x0.grad, torch.full_like(x0, growth**2), rtol=1e-12)
    assert float(rate.grad) == pytest.approx(6 * 2 * growth * slope, rel=1e-12)


def test_progress_after_each_step(riccati):
    seen = []
    fv.solve(riccati, torch.ones(2, 1), steps=4, progress=seen.append, method="euler")
    assert [(report.task, report.step, report.total) for report in seen] == [("solve", k, 4) for k in range(1, 5)]


def test_error_names_the_step_and_the_rows(recorded):
    def velocity(x, t):
        broken = (t > 0.45) & (torch.arange(8).reshape(8, 1) < 3)
        return torch.where(broken, torch.nan, x)

    with pytest.raises(ValueError, match=r"between t = 0\.5 and t = 0\.6; 3 of 8 rows \(37\.5 %\)"):
        fv.solve(recorded(velocity), torch.ones(8, 2), steps=10, method="euler")
