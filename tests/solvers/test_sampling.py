"""Samples drawn batch by batch."""

import pytest
import torch

from fluvial.fields import ExactField
from fluvial.solvers.sampling import Solver, draw_samples


def test_progress_ends_at_the_number_of_samples():
    reports = []
    field = ExactField(torch.zeros(1, 2))
    draw_samples(field, 10, (2,), solver=Solver("euler", 3), batch_size=8, progress=reports.append)
    steps = [report.step for report in reports]
    assert steps == sorted(steps) and steps[-1] == 10 and {report.total for report in reports} == {10}


def test_an_adaptive_solver_sees_no_rows_beside_those_asked_for():
    seen = set()

    def field(x, t, cond=None):
        seen.add(len(x))
        return -x

    draw_samples(field, 5, (2,), solver=Solver("dopri5", None), batch_size=3)
    assert seen == {3, 2}


def test_conditions_go_with_their_rows_whatever_the_batch():
    def field(x, t, cond=None):
        return cond[:, None].float().expand_as(x) - x / (1 - t)[:, None].clamp_min(0.5)

    cond = torch.arange(10)
    whole, _ = draw_samples(field, 10, (2,), solver=Solver("euler", 4), cond=cond, batch_size=64)
    parts, _ = draw_samples(field, 10, (2,), solver=Solver("euler", 4), cond=cond, batch_size=3)
    assert torch.equal(whole, parts) and float(whole[:, 0].diff().mean()) > 0.5
    with pytest.raises(ValueError, match="cond must have 10 rows, one for each sample, got 9"):
        draw_samples(field, 10, (2,), solver=Solver("euler", 4), cond=cond[:9])
