import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from fluvial.metrics.duplicates import APART, find_duplicates


def partition(groups: tuple[list[int], ...]) -> set[frozenset[int]]:
    return {frozenset(group) for group in groups}


def planted(seed: int) -> tuple[np.ndarray, set[frozenset[int]]]:
    """300 fresh rows, 10 of them stored three times bit by bit, and 10 four times with noise of 1e-3 of the spacing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 12))
    spacing = np.median(np.sort(cdist(x, x), 1)[:, 1])
    near = x[10:20].repeat(3, 0)
    near = near + 1e-3 * spacing * rng.normal(size=near.shape) / np.sqrt(12)
    whole = np.concatenate([x, x[:10].repeat(2, 0), near])
    groups = [frozenset([i, 300 + 2 * i, 301 + 2 * i]) for i in range(10)]
    groups += [frozenset([10 + i, *range(320 + 3 * i, 323 + 3 * i)]) for i in range(10)]
    order = rng.permutation(len(whole))
    place = np.argsort(order)
    return whole[order], {frozenset(int(place[i]) for i in group) for group in groups}


@pytest.mark.parametrize("seed", range(5))
def test_finds_planted_duplicates_and_the_neighbours_without_them(seed: int) -> None:
    x, groups = planted(seed)
    found = find_duplicates(x)
    assert partition(found.groups()) == groups
    assert (found.equal_rows, found.near_rows, found.merged_rows) == (20, 30, 30)
    rows = x[found.distinct.first[found.kept].numpy()]
    away = cdist(rows, rows)
    np.fill_diagonal(away, np.inf)
    np.testing.assert_array_equal(found.neighbours.indices, np.argsort(away, 1)[:, :2])
    np.testing.assert_allclose(found.neighbours.distances, np.sort(away, 1)[:, :2], rtol=1e-9)
    distinct = x[found.distinct.first.numpy()]
    away = cdist(distinct, distinct)
    np.fill_diagonal(away, np.inf)
    np.testing.assert_allclose(found.nearest, away.min(1), rtol=1e-6)
    assert found.threshold == pytest.approx(0.1 * np.sort(away.min(1))[(len(distinct) - 1) // 2])


@pytest.mark.parametrize("near", [0.3, 0.9])
def test_groups_are_the_components_of_pairs_below_the_threshold(near: float) -> None:
    """Against all pairs, where two neighbours of each row do not connect every group."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(200, 3)), 0.05 * rng.normal(size=(60, 3)) + 5])
    found = find_duplicates(x, near=near)
    count, labels = connected_components(cdist(x, x) < found.threshold)
    assert partition(found.groups()) == {
        frozenset(np.flatnonzero(labels == k).tolist()) for k in range(count) if (labels == k).sum() > 1
    }


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_dense_parts_stay_data_of_their_own(seed: int) -> None:
    """A cluster, and the core of a cloud that thins out: near-duplicates by the median, but each is a datum."""
    rng = np.random.default_rng(seed)
    cloud = rng.normal(size=(2000, 8)) * rng.uniform(size=(2000, 1))
    x = np.concatenate([cloud, 0.01 * rng.normal(size=(60, 8)) + 20])
    found = find_duplicates(x)
    assert found.near_rows > 59 and found.merged_rows <= 4
    twin = np.concatenate([x, x[:1] + 1e-5])
    assert find_duplicates(twin).merged_rows == found.merged_rows + 1
    assert 0 < APART < 1


def test_without_duplicates_everything_is_kept() -> None:
    x = torch.arange(10.0)[:, None] ** 1.5
    found = find_duplicates(x)
    assert found.groups() == () and found.equal_rows == found.near_rows == 0
    assert found.kept.tolist() == list(range(10)) and found.group.tolist() == list(range(10))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"x must have at least 4 distinct rows, got 1 among 9"):
        find_duplicates(torch.zeros(9, 2))
    with pytest.raises(ValueError, match=r"near must be in \[0, 1\), got 1"):
        find_duplicates(torch.randn(9, 2), near=1)
    with pytest.raises(ValueError, match="finite"):
        find_duplicates(torch.full((9, 2), torch.nan))
