"""Jumps along average velocities."""

from typing import Any

import pytest
import torch
from torch import Tensor

import fluvial as fv
from fluvial.fields.base import knows_averages

SCALE = 0.6


def std(t: Tensor) -> Tensor:
    return ((1 - t) ** 2 + t**2 * SCALE**2).sqrt()


def average(x: Tensor, t: Tensor, cond: Any = None, r: Tensor | None = None) -> Tensor:
    assert r is not None
    return x * (std(r) / std(t) - 1)[:, None] / (r - t)[:, None]


def noise() -> Tensor:
    return torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_any_number_of_steps_ends_at_the_same_place(steps: int) -> None:
    found = fv.solve(average, noise(), steps=steps, method="meanflow")
    torch.testing.assert_close(found.x, SCALE * noise(), rtol=1e-13, atol=1e-13)
    assert found.evaluations == steps and found.rejected == 0


def test_saved_times_are_jumped_to_and_change_nothing() -> None:
    found = fv.solve(average, noise(), steps=2, method="meanflow", save_at=[0.0, 0.3, 0.5, 1.0])
    for t, state in zip(found.t, found.path, strict=True):
        torch.testing.assert_close(state, std(t) * noise(), rtol=1e-13, atol=1e-13)
    assert torch.equal(found.x, fv.solve(average, noise(), steps=2, method="meanflow").x)


def test_conditions_and_progress_arrive() -> None:
    seen, reports = [], []

    def field(x: Tensor, t: Tensor, cond: Any, r: Tensor) -> Tensor:
        seen.append(cond)
        return 0 * x

    fv.solve(field, noise(), steps=3, method="meanflow", cond="a", progress=reports.append)
    assert seen == ["a"] * 3 and [report.step for report in reports] == [1, 2, 3]


def test_fields_without_a_second_time_are_refused() -> None:
    for field in (lambda x, t, cond=None: -x, fv.nn.MLP((2,), width=8, depth=1), fv.ExactField(torch.zeros(1, 2))):
        with pytest.raises(ValueError, match="method 'meanflow' needs a field that takes a second time"):
            fv.solve(field, noise(), method="meanflow")
    assert knows_averages(fv.nn.MLP((2,), width=8, depth=1, gap=True)) and knows_averages(average)


def test_what_goes_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"field must return a tensor of the shape of x, \(8, 2\), got \(8, 1\)"):
        fv.solve(lambda x, t, c, r: x[:, :1], noise(), method="meanflow")
    with pytest.raises(ValueError, match="meanflow with 2 steps left the finite numbers"):
        fv.solve(lambda x, t, c, r: x / 0, noise(), steps=2, method="meanflow")
    with pytest.raises(ValueError, match="rtol must not be given with meanflow"):
        fv.solve(average, noise(), method="meanflow", rtol=1e-3)
