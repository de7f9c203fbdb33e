import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.data.splits import split_indices


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.booleans(),
    st.one_of(st.integers(0, 80), st.floats(0, 0.99)),
    st.integers(0, 2**63),
)
def test_both_parts_together_are_everything_once(classes, labelled, held_out, seed) -> None:
    labels = np.array(classes, np.int64) if labelled else None
    count = len(classes)
    kept_back = held_out if isinstance(held_out, int) else round(held_out * count)
    if kept_back >= count:
        with pytest.raises(ValueError, match=f"leaves no training data: there are {count} data"):
            split_indices(count, labels, held_out, seed)
        return
    train, held = split_indices(count, labels, held_out, seed)
    assert len(held) == kept_back
    assert sorted([*train, *held]) == list(range(count))
    assert (np.diff(train) > 0).all() and (np.diff(held) > 0).all()
    again = split_indices(count, labels, held_out, seed)
    assert np.array_equal(train, again[0]) and np.array_equal(held, again[1])


@given(st.lists(st.integers(10, 60), min_size=2, max_size=5), st.floats(0.2, 0.8), st.integers(0, 99))
def test_a_labelled_split_keeps_the_shares_of_the_classes(sizes, share, seed) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    _, held = split_indices(len(labels), labels, share, seed)
    counts = np.bincount(labels[held], minlength=len(sizes))
    assert (np.abs(counts - np.array(sizes) * len(held) / len(labels)) <= 1).all()


def test_the_seed_decides() -> None:
    splits = {tuple(split_indices(50, None, 10, seed)[1].tolist()) for seed in (0, 1, 2**32, 2**40)}
    assert len(splits) == 4


def test_a_class_with_one_member_does_not_prevent_a_split() -> None:
    train, held = split_indices(6, np.array([0, 0, 0, 0, 0, 1]), 2, 0)
    assert len(train) == 4 and len(held) == 2


@pytest.mark.parametrize("held_out", [1.0, -0.1, 1.5, float("nan"), -1])
def test_shares_outside_their_range_are_refused(held_out) -> None:
    with pytest.raises(ValueError, match="held_out must"):
        split_indices(10, None, held_out, 0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed must be a non-negative integer, got -1"):
        split_indices(10, None, 2, -1)
