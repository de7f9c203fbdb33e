"""Samples and held-out data take the units of the training data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fluvial.data import Dataset, load_dataset, save_images
from fluvial.data.comparable import check_samples_file, in_units_of, read_held_out, read_samples

RANDOM = np.random.default_rng(0)


@pytest.fixture
def images() -> Dataset:
    return Dataset(RANDOM.integers(0, 256, (6, 8, 8)).astype(np.uint8))


def _table(path: Path, rows: np.ndarray, header: str = "a,b") -> Path:
    path.write_text(header + "\n" + "\n".join(",".join(map(repr, row)) for row in rows.tolist()) + "\n")
    return path


def test_pictures_and_bytes_and_floats_give_the_same_samples(images: Dataset, tmp_path: Path) -> None:
    x = images.x
    save_images(x, tmp_path / "folder")
    np.savez(tmp_path / "floats.npz", x=x.numpy(), labels=np.zeros(6))
    np.save(tmp_path / "bytes.npy", images.inverse(x))
    for name in ("folder", "floats.npz", "bytes.npy"):
        assert torch.equal(read_samples(tmp_path / name, images), x), name


def test_bytes_of_few_grey_levels_are_read_by_their_levels(tmp_path: Path) -> None:
    digits = load_dataset("digits").train
    np.save(tmp_path / "a.npy", digits.inverse(digits.x[:5]))  # 256 levels: round(127.5 (x + 1))
    np.save(tmp_path / "b.npy", np.rint((digits.x[:5].numpy() + 1) * 8).astype(np.uint8))  # 17 levels, as stored
    assert torch.equal(read_samples(tmp_path / "b.npy", digits), digits.x[:5])
    assert float((read_samples(tmp_path / "a.npy", digits) - digits.x[:5]).abs().max()) < 1.01 / 255


def test_rows_of_a_table_come_in_its_own_units(tmp_path: Path) -> None:
    rows = RANDOM.normal(size=(40, 2)) * [3.0, 0.01] + [100.0, -5.0]
    train = load_dataset(str(_table(tmp_path / "train.csv", rows[:30])), held_out=0).train
    fresh = _table(tmp_path / "fresh.csv", rows[30:])
    expected = (rows[30:] - rows[:30].mean(0)) / rows[:30].std(0)
    np.savez(tmp_path / "fresh.npz", x=rows[30:])
    for found in (
        read_samples(fresh, train),
        read_samples(tmp_path / "fresh.npz", train),
        read_held_out(str(fresh), train).x,
    ):
        np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=2e-5)


def test_columns_and_shapes_must_match(images: Dataset, tmp_path: Path) -> None:
    rows = RANDOM.normal(size=(9, 2))
    train = load_dataset(str(_table(tmp_path / "train.csv", rows)), held_out=0).train
    other = _table(tmp_path / "other.csv", rows, "a,c")
    with pytest.raises(ValueError, match=r"must have the columns of the training data \(a, b\), got a, c"):
        read_samples(other, train)
    np.save(tmp_path / "flat.npy", np.zeros((3, 64), np.float32))
    with pytest.raises(ValueError, match=r"flat.npy.*must have|images must have shape"):
        read_samples(tmp_path / "flat.npy", images)
    with pytest.raises(ValueError, match=r"samples must have data of shape \(1, 8, 8\) .* got \(1, 4, 4\)"):
        in_units_of(images, Dataset(np.zeros((2, 4, 4), np.uint8)), "samples")


def test_files_that_are_no_samples(images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not exist"):
        check_samples_file(tmp_path / "nothing.npz")
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(ValueError, match=r"a folder of images or a file that ends in .npy, .npz, .csv, .parquet"):
        check_samples_file(tmp_path / "x.txt")
    np.savez(tmp_path / "y.npz", y=np.zeros((2, 1, 8, 8)))
    with pytest.raises(ValueError, match="must have samples under the key 'x', got 'y'"):
        read_samples(tmp_path / "y.npz", images)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(ValueError, match=r"broken.npz is damaged"):
        read_samples(tmp_path / "broken.npz", images)
    bad = np.zeros((2, 1, 8, 8), np.float32)
    bad[1, 0, 3, 3] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(ValueError, match="1 of 2 rows hold NaN"):
        read_samples(tmp_path / "bad.npy", images)
