"""What is refused, before the field is asked."""

import pytest
import torch

import fluvial as fv
from fluvial.solvers import ADAPTIVE_METHODS, FIXED_METHODS


def untouched(x, t, cond=None):
    raise RuntimeError("the field was evaluated")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "hein"}, "method must be one of .*'hein'; did you mean 'heun'"),
        ({"method": "dopri"}, "did you mean 'dopri5'"),
        ({"method": "dopri5", "steps": 50}, "steps must not be given with dopri5"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": -3}, "steps must be an integer of at least 1, got -3"),
        ({"method": "dopri5", "rtol": 0}, "rtol must be positive"),
        ({"method": "dopri5", "atol": -1e-5}, "atol must be positive"),
        ({"method": "dopri5", "rtol": float("nan")}, "rtol must be positive"),
        ({"rtol": 1e-3}, "rtol must not be given with midpoint, whose steps are fixed, got 0.001"),
        ({"t0": 0.5, "t1": 0.5}, "t0 and t1 must differ"),
        ({"t0": -0.1}, r"t0 must be in \[0, 1\], got -0.1"),
        ({"t1": 1.1}, r"t1 must be in \[0, 1\]"),
        ({"t1": float("nan")}, r"t1 must be in \[0, 1\]"),
        ({"save_at": [0.2, 1.2]}, "save_at must lie between"),
        ({"save_at": [0.1], "t0": 0.9, "t1": 0.2}, "save_at must lie between"),
        ({"save_at": [float("nan")]}, "save_at must lie between"),
        ({"save_at": []}, "save_at must be a sequence"),
        ({"save_at": torch.zeros(2, 2)}, "save_at must be a sequence"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        fv.solve(untouched, torch.zeros(2, 2), **arguments)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x0", "arguments", "message"),
    [
        (torch.zeros(2, 2, dtype=torch.int64), {}, "x0 must have a floating-point type, got torch.int64"),
        (torch.tensor(1.0), {}, "x0 must have shape"),
        (torch.zeros(0, 2), {}, "x0 must have shape"),
        (torch.tensor([[0.0], [float("nan")]]), {}, r"x0 must be finite.* 1 of 2 rows \(50 %\)"),
        (torch.tensor([[float("inf")]]), {"method": "dopri5"}, "x0 must be finite"),
    ],
)
def test_bad_states(x0, arguments, message):
    with pytest.raises(ValueError, match=message):
        fv.solve(untouched, x0, **arguments)


def test_too_few_steps_for_the_legs(recorded):
    field = recorded(lambda x, t: x, breakpoints=(0.2, 0.6))
    with pytest.raises(ValueError, match=r"steps must be at least 3, .*\(0\.2, 0\.6\), got 2"):
        fv.solve(field, torch.zeros(1, 1), steps=2, method="euler")
    assert fv.solve(field, torch.zeros(1, 1), steps=2, t1=0.5, method="euler").evaluations == 2


@pytest.mark.parametrize("method", [*FIXED_METHODS, *ADAPTIVE_METHODS])
@pytest.mark.parametrize("answer", [torch.zeros(2), None])
def test_a_field_of_the_wrong_shape(method, answer):
    with pytest.raises(ValueError, match="field must return a tensor of the shape of x"):
        fv.solve(lambda x, t, cond=None: answer, torch.zeros(2, 3), method=method)
