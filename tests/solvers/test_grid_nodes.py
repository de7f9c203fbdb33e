"""Given nodes of time: the same walk as equal steps where they are equal, and the method's order where they are not."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fluvial as fv
from fluvial.fields import courses
from fluvial.solvers import FIXED_METHODS
from fluvial.solvers.grid import lay_steps, make_legs

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
STAGES = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


def graded(steps: int, start: float = 0.0, stop: float = 1.0) -> list[float]:
    """Nodes that are ten times as dense at one end as at the other."""
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return [start + (stop - start) * (math.expm1(math.log(10) * s) / 9) for s in share.tolist()]


def uniform(steps: int) -> list[float]:
    return [i / steps for i in range(steps + 1)]


def average(x: torch.Tensor, t: torch.Tensor, cond: Any = None, r: torch.Tensor | None = None) -> torch.Tensor:
    """Average velocity of dx/dt = -x."""
    assert r is not None
    return x * torch.expm1(t - r)[:, None] / (r - t)[:, None]


class Plain:
    """A field as any solver sees it, without its own way to walk."""

    def __init__(self, field: fv.ExactField) -> None:
        self.field, self.path, self.singular_at_end = field, field.path, field.singular_at_end

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        return self.field(x, t, cond)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", FIXED_METHODS)
def test_equal_nodes_are_equal_steps_bit_for_bit(method, dtype, riccati):
    x0 = torch.tensor([[0.7], [-0.6]], dtype=dtype)
    options = {"method": method, "save_at": [0.0, 0.31, 0.5, 1.0]}
    expected = fv.solve(riccati, x0, steps=10, **options)
    for grid in (uniform(10), np.array(uniform(10)), torch.tensor(uniform(10), dtype=torch.float64)):
        found = fv.solve(riccati, x0, grid=grid, **options)
        assert torch.equal(found.x, expected.x) and torch.equal(found.path, expected.path)
        assert found.evaluations == expected.evaluations


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, 0.0), (0.1, 0.8)])
@pytest.mark.parametrize("method", FIXED_METHODS)
def test_order_of_convergence_on_graded_nodes(method, start, stop, riccati, solution):
    x0 = torch.tensor([[0.7], [-0.6], [0.2]], dtype=torch.float64)
    exact, errors = solution(x0, start, stop), []
    for count in (100, 200):
        found = fv.solve(riccati, x0, grid=graded(count, start, stop), method=method, t0=start, t1=stop)
        assert found.evaluations == count * STAGES[method]
        errors.append(float((found.x - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[method], abs=0.15)


def test_the_field_is_asked_at_the_nodes(riccati):
    nodes = [0.0, 0.1, 0.15, 0.7, 1.0]
    fv.solve(riccati, torch.ones(1, 1, dtype=torch.float64), grid=nodes, method="euler")
    assert riccati.times == nodes[:-1]


def test_breakpoints_become_nodes_and_are_seen_from_both_sides(recorded):
    tau, rates = 0.3, (-1.0, 2.0)
    field = recorded(lambda x, t: torch.where(t >= tau, rates[1] * x, rates[0] * x), breakpoints=(tau, 0.5))
    x0 = torch.ones(1, 1, dtype=torch.float64)
    found = fv.solve(field, x0, grid=[0.0, 0.2, 0.5 + 1e-14, 1.0], method="euler")
    assert found.evaluations == 4  # .3 became a node, .5 was one
    expected = (1 - 0.2) * (1 - 0.1) * (1 + 2 * 0.2) * (1 + 2 * 0.5)
    assert abs(float(found.x) - expected) < 1e-12
    assert tau not in field.times


@given(
    nodes=st.lists(st.floats(1e-3, 1 - 1e-3), min_size=1, max_size=30, unique=True),
    jumps=st.lists(st.floats(0, 1, allow_subnormal=False), max_size=4),
    forward=st.booleans(),
)
def test_steps_are_those_between_nodes_and_breakpoints(nodes, jumps, forward):
    inside = sorted(nodes)
    if any(right - left < 1e-9 for left, right in pairwise(inside)):
        return
    t0, t1 = (0.0, 1.0) if forward else (1.0, 0.0)
    grid = [t0, *(inside if forward else inside[::-1]), t1]
    steps = lay_steps(make_legs(t0, t1, jumps, torch.float64), grid)
    assert steps[0].start == t0 and steps[-1].stop == t1
    assert all(left.stop == right.start for left, right in pairwise(steps))
    sign = 1 if forward else -1
    assert all(sign * (step.stop - step.start) > 0 for step in steps)
    stops = torch.tensor([step.stop for step in steps], dtype=torch.float64)
    wanted = torch.tensor([*grid[1:], *(j for j in jumps if 1e-6 < j < 1 - 1e-6)], dtype=torch.float64)
    assert (wanted[:, None] - stops).abs().min(1).values.max() < 1e-11
    assert len(steps) <= len(grid) - 1 + len(set(jumps))


@pytest.mark.parametrize("path", [fv.CondOT(), fv.VP(), fv.Cosine(), fv.Polynomial(2.0)], ids=lambda path: repr(path))
@pytest.mark.parametrize("method", FIXED_METHODS)
def test_the_last_step_lands(method, path, one_datum):
    datum = torch.tensor([[0.3, -1.7]], dtype=torch.float64)
    field = one_datum(datum, path)
    x0 = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = fv.solve(field, x0, grid=[0.05, 0.2, 0.3, 0.9, 1.0], t0=0.05, method=method)
    assert (found.x - datum).abs().max() < 1e-9
    assert found.evaluations == len(field.times) == 3 * STAGES[method] + 1


def test_a_node_that_rounds_to_the_end_is_refused(one_datum):
    datum = torch.tensor([[0.3]])
    with pytest.raises(ValueError, match=r"grid: the node 0\.999999999 is 1 in torch\.float32"):
        fv.solve(one_datum(datum), torch.ones(1, 1), grid=[0, 0.5, 1 - 1e-9, 1], method="euler")
    found = fv.solve(
        one_datum(datum.double()), torch.ones(1, 1, dtype=torch.float64), grid=[0, 0.5, 1 - 1e-9, 1], method="euler"
    )
    assert abs(float(found.x) - 0.3) < 1e-7


@pytest.mark.parametrize("method", FIXED_METHODS)
def test_saved_states_change_nothing(method, riccati):
    x0 = torch.tensor([[0.7], [-0.6]], dtype=torch.float64)
    nodes = [0.0, 0.3, 0.4, 1.0]
    alone = fv.solve(riccati, x0, grid=nodes, method=method)
    saved = fv.solve(riccati, x0, grid=nodes, method=method, save_at=[1.0, 0.4, 0.0, 0.35])
    assert torch.equal(saved.x, alone.x) and torch.equal(saved.path[2], x0)
    middle = fv.solve(riccati, x0, grid=[0.0, 0.3, 0.4], method=method, t1=0.4).x
    assert torch.equal(saved.path[1], middle)
    inside = fv.solve(riccati, x0, grid=[0.0, 0.3, 0.35], method=method, t1=0.35).x
    assert torch.equal(saved.path[3], inside)


@pytest.mark.parametrize(("method", "course"), [("euler", "SpanCourse"), ("heun", "SpanCourse"), ("euler", "Locking")])
def test_the_exact_fields_own_courses_take_the_same_steps(method, course, monkeypatch):
    g = torch.Generator().manual_seed(3)
    n, d = (20, 60) if course == "SpanCourse" else (40, 12)
    if course == "Locking":
        monkeypatch.setattr(courses, "span_pays", lambda *_: False)
        monkeypatch.setattr(courses, "_WORTH_LOCKING", 0)
        monkeypatch.setattr(courses, "MOST_DIMENSIONS", 0)
    data = 0.7 * torch.randn(n, d, generator=g, dtype=torch.float64)
    x0 = torch.randn(8, d, generator=g, dtype=torch.float64)
    field = fv.ExactField(data)
    for options in ({}, {"save_at": [0.0, 0.13, 0.5, 1.0]}):
        found, expected = (fv.solve(f, x0, grid=graded(15), method=method, **options) for f in (field, Plain(field)))
        assert found.evaluations == expected.evaluations
        torch.testing.assert_close(found.path, expected.path, rtol=1e-9, atol=1e-9)


def test_jumps_take_nodes():
    x0 = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    found = fv.solve(average, x0, grid=[0.0, 0.2, 0.9, 1.0], method="meanflow", save_at=[0.2, 0.5])
    assert found.evaluations == 4  # three steps, and one jump to .5
    torch.testing.assert_close(found.x, x0 * math.exp(-1), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.path[1], x0 * math.exp(-0.5), rtol=1e-13, atol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": [0.0, 1.0], "steps": 1}, "steps must not be given with grid"),
        ({"grid": [0.0, 1.0], "method": "dopri5"}, "grid must not be given with dopri5"),
        ({"grid": [0.0]}, r"at least two times, got shape \(1,\)"),
        ({"grid": torch.tensor([[0.0, 1.0]])}, r"got shape \(1, 2\)"),
        ({"grid": torch.tensor(0.5)}, r"got shape \(\)"),
        ({"grid": [0.1, 1.0]}, "grid must start at t0 = 0, got 0.1"),
        ({"grid": [0.0, 0.9]}, "grid must end at t1 = 1, got 0.9"),
        ({"grid": [1.0, 0.5, 0.0]}, "grid must start at t0 = 0, got 1"),
        ({"grid": [float("nan"), 1.0]}, "grid must start at t0"),
        ({"grid": [0.0, 0.5, 0.5, 1.0]}, "grid must be strictly monotone, got 0.5 after 0.5"),
        ({"grid": [0.0, 0.7, 0.5, 1.0]}, "grid must be strictly monotone, got 0.5 after 0.7"),
        ({"grid": [0.0, 1.5, 1.0]}, "grid must be strictly monotone, got 1 after 1.5"),
        ({"grid": [0.0, float("nan"), 1.0]}, "grid must be strictly monotone"),
        ({"grid": [1.0, 0.2, 0.6, 0.0], "t0": 1.0, "t1": 0.0}, "grid must be strictly monotone, got 0.6 after 0.2"),
    ],
)
def test_bad_grids(arguments, message):
    def untouched(x, t, cond=None):
        raise RuntimeError("the field was evaluated")

    with pytest.raises(ValueError, match=message):
        fv.solve(untouched, torch.zeros(2, 2), **arguments)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("grid", [{}, 0.5, [[0.0, 1.0]]])
def test_a_grid_that_is_no_sequence(grid):
    with pytest.raises(TypeError, match="grid must be a sequence of numbers or an array or a tensor or None, got"):
        fv.solve(lambda x, t, cond=None: x, torch.zeros(2, 2), grid=grid)


def test_single_precision_ends_are_the_intervals(riccati):
    grid = torch.tensor([0.1, 0.3, 0.7], dtype=torch.float32)
    x0 = torch.ones(1, 1, dtype=torch.float64)
    found = fv.solve(riccati, x0, grid=grid, t0=0.1, t1=0.7, save_at=[0.7], method="euler")
    assert riccati.times[0] == 0.1 and torch.equal(found.path[0], found.x)
