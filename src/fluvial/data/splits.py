"""Dividing a data set into training and held-out data."""

import numpy as np
from numpy.typing import NDArray


def random_state(seed: int) -> int:
    """Seed in the range that scikit-learn accepts, [0, 2**32), made from any non-negative integer.

    Raises:
        ValueError: If ``seed`` is negative.

    Example:
        >>> random_state(0) == random_state(0), random_state(0) == random_state(2**40)
        (True, False)
    """
    if seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed}")
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def held_out_count(count: int, held_out: float | int) -> int:
    """How many of ``count`` data a share in [0, 1) (a float) or a number (an int) keeps back; a share is
    rounded.

    Raises:
        ValueError: If it is negative or would leave no training data.

    Example:
        >>> held_out_count(1797, 360), held_out_count(10, 0.25), held_out_count(1, 0.2)
        (360, 2, 0)
    """
    is_number = isinstance(held_out, int | np.integer)
    if not is_number and not 0 <= held_out < 1:
        raise ValueError(f"held_out must be a share in [0, 1) or a whole number of data, got {held_out}")
    if held_out < 0:
        raise ValueError(f"held_out must not be negative, got {held_out}")
    kept_back = int(held_out) if is_number else round(held_out * count)
    if kept_back >= count:
        raise ValueError(f"held_out={held_out} leaves no training data: there are {count} data")
    return kept_back


def split_indices(
    count: int, labels: NDArray[np.int64] | None, held_out: float | int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Disjoint indices of training and held-out data, both ascending, that depend on the seed alone.

    The split is stratified by label where that is possible: each class has two members or more, and both
    parts are at least as large as the number of classes.

    Args:
        count: Number of data.
        labels: Class of each datum, shape (count,), or None.
        held_out: Share in [0, 1) as a float, or number of data as an int.
        seed: Non-negative integer.

    Returns:
        ``(train, held_out)``: together all of ``range(count)``.

    Raises:
        ValueError: If ``held_out`` leaves no training data, or an argument is negative.

    Example:
        >>> train, held_out = split_indices(10, np.array([0] * 5 + [1] * 5), 0.4, seed=0)
        >>> len(train), int((held_out < 5).sum()), int((held_out >= 5).sum())
        (6, 2, 2)
    """
    from sklearn.model_selection import train_test_split

    kept_back, state = held_out_count(count, held_out), random_state(seed)
    everything = np.arange(count, dtype=np.int64)
    if kept_back == 0:
        return everything, everything[:0]
    stratify = labels
    if labels is not None:
        members = np.unique(labels, return_counts=True)[1]
        if members.min() < 2 or len(members) > min(kept_back, count - kept_back):
            stratify = None
    train, kept = train_test_split(everything, test_size=kept_back, random_state=state, stratify=stratify)
    return np.sort(train), np.sort(kept)
