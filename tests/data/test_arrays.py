from pathlib import Path

import numpy as np
import pytest

import fluvial as fv


def _load(path: Path) -> fv.Dataset:
    return fv.load_dataset(str(path))


@pytest.mark.parametrize("shape", [(10, 6, 5), (10, 6, 5, 1), (10, 6, 5, 3), (10, 1, 6, 5), (10, 3, 6, 5)])
def test_uint8_arrays_are_images_in_any_order_of_axes(tmp_path, shape) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    data = _load(tmp_path / "x.npy")
    assert data.shape == ((3 if 3 in shape else 1), 6, 5) and data.levels == 256
    pixels = data.inverse(data.x)
    expected = images if shape[1] in (1, 3) else images.reshape(10, 6, 5, -1).transpose(0, 3, 1, 2)
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("shape", [(10,), (10, 2), (10, 4, 3), (10, 2, 3, 4, 5)])
def test_floats_keep_their_shape(tmp_path, shape) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(">f8")
    np.save(tmp_path / "x.npy", values)
    data = _load(tmp_path / "x.npy")
    assert data.shape == (shape[1:] or (1,)) and data.levels is None and data.name == "x.npy"
    assert np.array_equal(data.x.numpy().reshape(shape), values.astype(np.float32))
    assert (len(data.train), len(data.held_out)) == (8, 2)


def test_npz_with_labels_of_text(tmp_path) -> None:
    names = np.array(["dog", "cat"] * 10)
    np.savez_compressed(tmp_path / "x.npz", x=np.arange(20.0), y=names)
    data = _load(tmp_path / "x.npz")
    assert data.class_names == ("cat", "dog")
    assert [data.class_names[c] for c in data.labels] == names.tolist()
    assert data.held_out.labels.bincount().tolist() == [2, 2]
    np.savez(tmp_path / "bare.npz", x=np.arange(20.0))
    assert _load(tmp_path / "bare.npz").labels is None


@pytest.mark.parametrize(
    ("arrays", "fragment"),
    [
        ({"data": np.ones(3)}, "must have the key 'x' and may have 'y', got 'data'"),
        ({"x": np.ones(3), "labels": np.ones(3)}, "got 'labels', 'x'"),
        ({"x": np.ones(3), "y": np.ones(2)}, r"labels must have shape \(3,\), one per datum, got \(2,\)"),
        ({"x": np.array([object()])}, "holds Python objects"),
        ({"x": np.array([1, np.nan])}, "1 of 2 rows hold NaN or infinite values, the first is row 1"),
        ({"x": np.ones((0, 2))}, "there are no data"),
        ({"x": np.array(1.0)}, "there are no data"),
        ({"x": np.ones((2, 784), np.uint8)}, "convert them to float32 if they are not images"),
        ({"x": np.ones((2, 5, 5, 4), np.uint8)}, "alpha channel"),
    ],
)
def test_npz_files_that_do_not_fit_are_refused(tmp_path, arrays, fragment) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=fragment) as caught:
        _load(tmp_path / "x.npz")
    assert "x.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_object_arrays_and_damaged_files_are_refused(tmp_path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="holds Python objects, which are not read"):
        _load(tmp_path / "objects.npy")
    np.save(tmp_path / "x.npy", np.ones((100, 2)))
    np.savez(tmp_path / "x.npz", x=np.ones((100, 2)))
    for name in ("x.npy", "x.npz"):
        whole = (tmp_path / name).read_bytes()
        for damaged in (b"", b"hello", whole[:60], whole[: len(whole) // 2]):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{name} is damaged or no .np. file") as caught:
                _load(tmp_path / name)
            assert "pickle" not in str(caught.value) and "trust" not in str(caught.value)
