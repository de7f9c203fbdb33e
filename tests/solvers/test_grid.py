"""The nodes of time: exact step counts, breakpoints as nodes, each leg on its own side."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fluvial.solvers.grid import make_legs, make_steps

times = st.floats(0, 1, allow_subnormal=False)


@given(t0=times, t1=times, jumps=st.lists(times, max_size=4), count=st.integers(6, 200))
def test_steps_cover_the_way(t0, t1, jumps, count):
    if abs(t1 - t0) < 1e-6:
        return
    legs = make_legs(t0, t1, jumps, torch.float64)
    steps = make_steps(legs, count)
    assert len(steps) == count
    assert steps[0].start == t0 and steps[-1].stop == t1
    assert all(left.stop == right.start for left, right in pairwise(steps))
    nodes = {step.stop for step in steps}
    low, high = min(t0, t1), max(t0, t1)
    assert all(jump in nodes for jump in jumps if low < jump < high)
    shortest, total = min(abs(leg.stop - leg.start) for leg in legs), abs(t1 - t0)
    longest = max(abs(step.stop - step.start) for step in steps)
    if shortest * count > 2 * total:  # no leg is too short for its share
        assert longest < 2 * total / count


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (1.0, 0.0), (0.2, 1.0), (0.2, 0.0)])
def test_each_leg_stays_on_its_side_of_a_breakpoint(dtype, t0, t1):
    for leg in make_legs(t0, t1, (0.2,), dtype):
        for t in (leg.clamp(leg.start), leg.clamp(leg.stop)):
            assert float(torch.tensor(t, dtype=dtype)) == t or t in (t0, t1)
            middle = (leg.start + leg.stop) / 2
            assert (t < 0.2) == (middle < 0.2) and t != 0.2


def test_a_uniform_grid_is_exact():
    steps = make_steps(make_legs(0.0, 1.0, (), torch.float32), 50)
    assert [step.stop for step in steps] == [i / 50 for i in range(1, 51)]
