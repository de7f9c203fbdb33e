"""Counter-based draws depend on their counters and on nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.randomness import ROWS_TOGETHER, RowGenerator, draw_rows, generator, noise
from fluvial.ranks import Ranks


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


@settings(max_examples=40)
@given(total=st.integers(1, 3 * ROWS_TOGETHER + 5), count=st.integers(1, 7), step=st.integers(0, 3))
def test_rows_dealt_to_processes_draw_what_one_process_would(total: int, count: int, step: int) -> None:
    count = min(count, total)

    def draws(ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        g = RowGenerator(3, step, total, ranks)
        rows = len(range(*ranks.rows(total).indices(total)))
        first = draw_rows(lambda n, g: torch.randn(n, 2, generator=g), rows, g)
        pair = draw_rows(lambda n, g: (torch.rand(n, generator=g), torch.rand(n, generator=g)), rows, g)
        return first, *pair, torch.randperm(9, generator=g)

    whole = draws(Ranks())
    for index in range(count):
        ranks = Ranks(index, count)
        *rows, shared = draws(ranks)
        assert torch.equal(shared, whole[3])
        for mine, all_rows in zip(rows, whole[:3], strict=True):
            assert torch.equal(mine, all_rows[ranks.rows(total)])


def test_small_batches_in_one_process_draw_from_the_stream_of_the_step() -> None:
    g, plain = RowGenerator(3, 5, ROWS_TOGETHER), generator(3, 5, 0)
    assert torch.equal(draw_rows(lambda n, g: torch.rand(n, generator=g), ROWS_TOGETHER, g),
                       torch.rand(ROWS_TOGETHER, generator=plain))  # fmt: skip
    assert torch.equal(torch.rand(3, generator=g.apart), torch.rand(3, generator=plain))


def test_what_a_process_draws_apart_is_its_own() -> None:
    values = [torch.rand((), generator=RowGenerator(0, 1, 8, Ranks(index, 3)).apart).item() for index in range(3)]
    values.append(torch.rand((), generator=RowGenerator(0, 1, 8)).item())
    assert len(set(values)) == 4


def test_another_number_of_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="the generator is that of 3 rows here, 5 in all, got 4 rows"):
        draw_rows(lambda n, g: torch.rand(n, generator=g), 4, RowGenerator(0, 0, 5, Ranks(0, 2)))
