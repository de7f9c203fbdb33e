"""Counter-based draws depend on their counters and on nothing else."""

import pytest
import torch
from hypothesis import given
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


@given(seed=st.integers(0, 100), start=st.integers(0, 50), count=st.integers(0, 20))
def test_a_row_of_noise_depends_on_seed_and_position_alone(seed: int, start: int, count: int) -> None:
    rows = noise(seed, start, count, (2, 3))
    assert rows.shape == (count, 2, 3)
    whole = noise(seed, 0, start + count, (2, 3))
    assert torch.equal(rows, whole[start:])


def test_noise_is_standard_normal() -> None:
    draws = noise(0, 0, 4000, (5,), torch.float64).flatten()
    assert abs(draws.mean()) < 4 / 20_000**0.5
    assert abs(draws.var() - 1) < 4 * (2 / 20_000) ** 0.5


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="non-negative, got \\(0, -1\\)"):
        generator(0, -1)
