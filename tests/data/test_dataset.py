import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fluvial as fv
from fluvial.data import Standardization, from_uint8
from fluvial.data import dataset as dataset_module


def _images(count: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)


@given(st.lists(st.integers(0, 19), max_size=30), st.booleans())
def test_take_is_x_at_the_indices(indices, as_images) -> None:
    values = _images() if as_images else np.random.default_rng(1).standard_normal((20, 2, 3))
    data = fv.Dataset(values, np.arange(20) % 3)
    x, labels = data.take(indices)
    assert x.dtype == torch.float32 and labels.dtype == torch.int64
    assert torch.equal(x, data.x[indices]) and torch.equal(labels, data.labels[indices])
    for same in (torch.tensor(indices, dtype=torch.int64), np.array(indices, np.int32)):
        assert torch.equal(data.take(same)[0], x)
    part = data.subset(indices)
    assert len(part) == len(indices) and torch.equal(part.x, x)


def test_uint8_becomes_grey_levels_and_back() -> None:
    images = _images()
    data = fv.Dataset(images)
    assert (data.levels, data.kind, data.shape, data.labels) == (256, "image", (3, 4, 5), None)
    assert torch.equal(data.x, from_uint8(torch.from_numpy(images)))
    assert np.array_equal(data.inverse(data.x), images)
    assert data.take([0])[1] is None


def test_seventeen_levels_reach_both_ends() -> None:
    data = fv.Dataset(np.array([[[0, 8, 16]]], np.uint8), levels=17)
    assert data.x.flatten().tolist() == [-1, 0, 1]
    assert data.inverse(data.x).flatten().tolist() == [0, 128, 255]


def test_floats_are_taken_as_they_are() -> None:
    values = torch.randn(5, 2, dtype=torch.float64)
    data = fv.Dataset(values)
    assert (data.kind, data.levels, data.shape) == ("points", None, (2,))
    assert torch.equal(data.x, values.float())
    assert np.array_equal(data.inverse(data.x), values.float().numpy())
    assert fv.Dataset(np.arange(4)).shape == (1,)
    assert fv.Dataset(torch.ones(4, 2, dtype=torch.bfloat16)).x.dtype == torch.float32


def test_kind_follows_shape_and_range_unless_said() -> None:
    picture = np.zeros((2, 3, 4, 4), np.float32)
    assert fv.Dataset(picture).kind == "image"
    assert fv.Dataset(picture + 1.5).kind == "points"
    assert fv.Dataset(picture + 1.5, kind="image").kind == "image"
    assert fv.Dataset(picture, kind="points").kind == "points"
    assert fv.Dataset(np.zeros((2, 4, 4, 4), np.float32)).kind == "points"


def test_it_does_not_change_with_the_callers_array_nor_through_what_it_hands_out() -> None:
    values = np.zeros((3, 2), np.float32)
    tensor = torch.zeros(3, 2)
    for given_values in (values, tensor):
        data = fv.Dataset(given_values, [0, 1, 1])
        before = data.content_hash
        given_values += 1
        data.take([0, 1])[0].add_(1)
        data.x.add_(1)
        data.labels.add_(1)
        assert torch.equal(data.x, torch.zeros(3, 2)) and data.labels.tolist() == [0, 1, 1]
        assert data.subset([0, 1, 2]).content_hash == before


def test_one_datum_is_a_data_set() -> None:
    data = fv.Dataset(np.ones((1, 2))).split(0.2)
    assert len(data.train) == 1 and len(data.held_out) == 0


def test_an_unsplit_set_is_its_own_training_data() -> None:
    data = fv.Dataset(np.ones((3, 2)), ["a", "b", "a"])
    assert data.train is data and len(data.held_out) == 0
    assert data.held_out.x.shape == (0, 2) and data.held_out.labels.shape == (0,)
    split = data.split(1)
    assert split.train.train is split.train and len(split.train.held_out) == 0
    assert split.held_out.class_names == ("a", "b") and len(split) == 3


def test_a_split_of_a_subset_stays_within_it() -> None:
    part = fv.Dataset(np.arange(20.0)).subset([3, 5, 7, 11, 13]).split(2, seed=4)
    everything = torch.cat([part.train.x, part.held_out.x]).flatten().sort().values
    assert everything.tolist() == [3, 5, 7, 11, 13]


def test_a_given_split_must_be_disjoint() -> None:
    data = fv.Dataset(np.arange(4.0))
    assert data.with_split([2, 0], [1]).train.x.flatten().tolist() == [2, 0]
    with pytest.raises(ValueError, match="1 rows are in both"):
        data.with_split([0, 1], [1, 2])
    with pytest.raises(ValueError, match="train must not be empty"):
        data.with_split([], [1])


def test_the_hash_changes_with_any_change_and_with_nothing_else() -> None:
    values, labels = _images(), np.arange(20) % 2
    changed = values.copy()
    changed[3, 1, 2, 2] ^= 1
    units = Standardization(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    points = np.ones((4, 2), np.float32)
    different = [
        fv.Dataset(values, labels),
        fv.Dataset(values),
        fv.Dataset(changed, labels),
        fv.Dataset(values, 1 - labels),
        fv.Dataset(values[::-1], labels),
        fv.Dataset(values[:-1], labels[:-1]),
        fv.Dataset(values.reshape(20, 3, 5, 4), labels),
        fv.Dataset(values, labels, class_names=("a", "b")),
        fv.Dataset(values.astype(np.float32), labels),
        fv.Dataset(values // 2),
        fv.Dataset(values // 2, levels=128),
        fv.Dataset(points),
        fv.Dataset(points, table=units),
        fv.Dataset(points, table=Standardization(("a", "b"), (0.0, 0.0), (1.0, 2.0))),
    ]
    hashes = [data.content_hash for data in different]
    assert len(set(hashes)) == len(hashes) and all(len(h) == 64 for h in hashes)
    assert fv.Dataset(values.copy(), labels, name="other").content_hash == hashes[0]
    assert fv.Dataset(values, labels).split(3).content_hash == hashes[0]
    assert fv.Dataset(values, labels).subset(np.arange(19)).content_hash == hashes[5]


@pytest.mark.parametrize(
    ("values", "options", "fragment"),
    [
        (
            np.array([[1.0], [np.nan], [np.inf]]),
            {},
            "2 of 3 rows hold NaN or infinite values, the first is row 1",
        ),
        (np.array([[1e300]]), {}, "1 of 1 rows hold NaN or infinite"),
        (np.zeros((0, 2)), {}, r"there are no data: the values have shape \(0, 2\)"),
        (np.zeros((2, 0)), {}, "there are no data"),
        (np.array(1.0), {}, "there are no data"),
        (np.array([["a"]]), {}, "real numbers, got dtype <U1"),
        (np.array([[1j]]), {}, "real numbers, got dtype complex128"),
        (np.zeros((2, 2)), {"levels": 17}, "levels=17 is for uint8"),
        (np.full((1, 2, 2), 17, np.uint8), {"levels": 17}, "below levels=17, got 17"),
        (np.zeros((1, 2, 2), np.uint8), {"levels": 1}, r"levels must be in 2\.\.256, got 1"),
        (np.zeros((2, 2)), {"kind": "image"}, r"images must have shape \(N, 1 or 3, H, W\)"),
        (np.zeros((1, 2, 2), np.uint8), {"kind": "points"}, "convert them to float32"),
        (np.zeros((2, 3)), {"table": Standardization(("a",), (0.0,), (1.0,))}, r"shape \(N, 1\)"),
        (np.zeros((2, 3)), {"labels": [1]}, r"labels must have shape \(2,\)"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused_by_name(values, options, fragment) -> None:
    with pytest.raises(ValueError, match=f"data set 'mine': .*{fragment}"):
        fv.Dataset(values, name="mine", **options)


@pytest.mark.parametrize("indices", [[3], [-1], [0, 10**9]])
def test_indices_out_of_range_are_refused(indices) -> None:
    with pytest.raises(ValueError, match=r"indices must be in \[0, 3\)"):
        fv.Dataset(np.zeros((3, 1))).take(indices)


@pytest.mark.parametrize("indices", [np.array([0.0]), np.array([True, False, True]), torch.tensor([True]), np.array(1)])
def test_masks_and_fractions_are_no_indices(indices) -> None:
    with pytest.raises(TypeError, match="indices must be whole numbers"):
        fv.Dataset(np.zeros((3, 1))).take(indices)


def test_x_is_refused_above_its_limit(monkeypatch) -> None:
    monkeypatch.setattr(dataset_module, "MATERIALISED_BYTES", 4 * 20 * 60 - 1)
    data = fv.Dataset(_images())
    with pytest.raises(ValueError, match=r"read it in parts with take\(indices\)"):
        _ = data.x
    assert data.subset([0, 1]).x.shape == (2, 3, 4, 5) and len(data.take(range(20))[0]) == 20


def test_inverse_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(n, 2\), got \(5, 3\)"):
        fv.Dataset(np.zeros((3, 2))).inverse(torch.zeros(5, 3))
