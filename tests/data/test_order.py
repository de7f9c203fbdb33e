"""The order of data in chunks: every datum once an epoch, any step at once, a bounded part of the data at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fluvial as fv
from fluvial.data.order import ChunkedOrder

_CHUNKS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(_CHUNKS, st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
def test_each_epoch_visits_each_datum_once_and_any_step_can_be_had_at_once(chunks, batch_size, pool, seed) -> None:
    order, count = ChunkedOrder(chunks, batch_size, seed, pool), sum(chunks)
    steps = -(-3 * count // batch_size)
    all_at_once = torch.cat([order.batch(step) for step in range(steps)])
    for epoch in range(3):
        assert sorted(all_at_once[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))
    fresh = ChunkedOrder(chunks, batch_size, seed, pool)
    for step in reversed(range(steps)):
        assert torch.equal(fresh.batch(step), all_at_once[step * batch_size : (step + 1) * batch_size])
    assert torch.equal(fresh.positions(count // 2, 2 * count), all_at_once[count // 2 : count // 2 + 2 * count])


def test_epochs_and_seeds_differ() -> None:
    runs = [ChunkedOrder([50] * 8, 400, seed) for seed in (0, 1)]
    drawn = [tuple(order.batch(epoch).tolist()) for order in runs for epoch in (0, 1)]
    assert len(set(drawn)) == 4
    lone = ChunkedOrder([1] * 16, 16, 0, pool=1)  # what is left is the order of the chunks
    assert not torch.equal(lone.batch(0), lone.batch(1))


def test_a_batch_mixes_the_chunks_of_a_pool_and_touches_no_more_than_two_pools() -> None:
    chunks = [100] * 64
    order = ChunkedOrder(chunks, 128, 0, pool=8)
    batches = [np.unique(order.batch(step).numpy() // 100) for step in range(50)]
    assert min(map(len, batches)) >= 8 and max(map(len, batches)) <= 16


def test_a_bad_argument_is_named() -> None:
    with pytest.raises(ValueError, match="chunks must be one or more positive numbers"):
        ChunkedOrder([], 2, 0)
    with pytest.raises(ValueError, match="chunks must be one or more positive numbers"):
        ChunkedOrder([3, 0], 2, 0)
    with pytest.raises(ValueError, match="batch_size and pool must be at least 1, got 0 and 8"):
        ChunkedOrder([3], 0, 0)


def test_data_in_memory_have_no_chunks() -> None:
    assert fv.Dataset(np.zeros((4, 2))).chunks is None
