import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import fluvial as fv
from fluvial.data.cifar10 import CLASS_NAMES, CONVERSION

BATCHES = [f"data_batch_{i}" for i in range(1, 6)]


def _batch(seed: int, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), random.integers(0, 10, count)


def _write_binary(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate([*BATCHES, "test_batch"]):
        images, labels = _batch(seed)
        records = np.concatenate([labels[:, None].astype(np.uint8), images.reshape(4, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def _png(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, format="png")
    return file.getvalue()


def _write_parquet(folder: Path, column: str = "img") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]):
        images, labels = _batch(seed)
        cells = [{"bytes": _png(image), "path": None} for image in images]
        pq.write_table(pa.table({column: cells, "label": labels}), folder / f"{name}.parquet")


def _check(data: fv.Dataset, train_batches: int) -> None:
    images, labels = zip(*(_batch(seed) for seed in range(train_batches + 1)), strict=True)
    assert (len(data.train), len(data.held_out), data.shape) == (4 * train_batches, 4, (3, 32, 32))
    assert np.array_equal(data.inverse(data.x), np.concatenate(images))
    assert data.labels.tolist() == np.concatenate(labels).tolist() and data.class_names == CLASS_NAMES
    assert np.array_equal(data.held_out.inverse(data.held_out.x), images[-1])


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin"])
def test_binary_version(tmp_path, below) -> None:
    _write_binary(tmp_path / below)
    _check(fv.load_dataset(f"cifar10:{tmp_path}"), 5)


@pytest.mark.parametrize(("below", "column"), [(".", "img"), ("plain_text", "img"), ("data", "image")])
def test_parquet_version(tmp_path, below, column) -> None:
    _write_parquet(tmp_path / below, column)
    _check(fv.load_dataset(f"cifar10:{tmp_path}"), 2)


def test_pickled_batches_are_refused_and_the_printed_conversion_works(tmp_path) -> None:
    for seed, name in enumerate([*BATCHES, "test_batch"]):
        images, labels = _batch(seed)
        batch = {b"labels": labels.tolist(), b"data": images.reshape(4, -1)}
        (tmp_path / name).write_bytes(pickle.dumps(batch))
    with pytest.raises(ValueError, match=r"data_batch_1 is pickled.*binary version") as caught:
        fv.load_dataset(f"cifar10:{tmp_path}")
    assert str(caught.value).endswith(CONVERSION) and "\n" not in str(caught.value)
    for name in [*BATCHES, "test_batch"]:
        exec(CONVERSION, {"pickle": pickle, "np": np, "f": str(tmp_path / name)})
    _check(fv.load_dataset(f"cifar10:{tmp_path}"), 5)


def test_the_pickled_archive_is_refused(tmp_path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="is pickled"):
        fv.load_dataset(f"cifar10:{tmp_path}")


def test_incomplete_folders_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"holds neither data_batch_1\.bin nor train-.*cifar-10-binary"):
        fv.load_dataset(f"cifar10:{tmp_path}")
    _write_binary(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(b"\x00" * 3072)
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is truncated or damaged: 3072 bytes"):
        fv.load_dataset(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_3.bin").write_bytes(b"\x0b" * 3073)
    with pytest.raises(ValueError, match=r"data_batch_3\.bin .* labels must be in 0\.\.9, row 1 has 11"):
        fv.load_dataset(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is missing"):
        fv.load_dataset(f"cifar10:{tmp_path}")


def test_parquet_files_that_do_not_fit_are_refused(tmp_path) -> None:
    def refused(table: pa.Table, fragment: str) -> None:
        pq.write_table(table, tmp_path / "train-00001-of-00002.parquet")
        with pytest.raises(ValueError, match=fragment):
            fv.load_dataset(f"cifar10:{tmp_path}")

    _write_parquet(tmp_path)
    refused(pa.table({"picture": [1], "label": [1]}), "'img' .or 'image'. and 'label', got 'picture', 'label'")
    refused(pa.table({"img": [1], "label": [1]}), "in each row of 'img'")
    refused(pa.table({"img": [{"bytes": b"no"}], "label": [1]}), r"parquet, row 1 is damaged or no image")
    wide = _png(np.zeros((3, 8, 8), np.uint8))
    refused(pa.table({"img": [{"bytes": wide}], "label": [1]}), "not 32x32")
    (tmp_path / "train-00001-of-00002.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read"):
        fv.load_dataset(f"cifar10:{tmp_path}")
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"test-\*\.parquet is missing"):
        fv.load_dataset(f"cifar10:{tmp_path}")
