"""Counter-based draws depend on their counters and on nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.randomness import generator, noise


@given(seed=st.integers(0, 2**40), counters=st.lists(st.integers(0, 2**20), max_size=3))
def test_equal_counters_give_equal_streams_and_others_do_not(seed: int, counters: list[int]) -> None:
    draw = torch.rand(4, generator=generator(seed, *counters))
    assert torch.equal(draw, torch.rand(4, generator=generator(seed, *counters)))
    for other in ((*counters, 1), (*counters, 0), (0, *counters)):
        assert not torch.equal(draw, torch.rand(4, generator=generator(seed, *other)))


def test_order_of_counters_matters() -> None:
    assert not torch.equal(torch.rand(4, generator=generator(0, 1, 2)), torch.rand(4, generator=generator(0, 2, 1)))


@settings(max_examples=20)
@given(seed=st.integers(0, 100), start=st.integers(0, 50), count=st.integers(0, 20))
def test_a_row_of_noise_depends_on_seed_and_position_alone(seed: int, start: int, count: int) -> None:
    shape = (64, 64, 2)  # eight rows to a block
    rows = noise(seed, start, count, shape)
    assert rows.shape == (count, *shape)
    assert torch.equal(rows, noise(seed, 0, 70, shape)[start : start + count])


def test_no_row_of_noise_comes_twice() -> None:
    """One generator a row repeated a row here: torch keeps 32 bits of a seed."""
    rows = noise(0, 0, 100_000, (2,))
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_noise_is_standard_normal() -> None:
    draws = noise(0, 0, 4000, (5,), torch.float64).flatten()
    assert abs(draws.mean()) < 4 / 20_000**0.5
    assert abs(draws.var() - 1) < 4 * (2 / 20_000) ** 0.5


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="non-negative, got \\(0, -1\\)"):
        generator(0, -1)
