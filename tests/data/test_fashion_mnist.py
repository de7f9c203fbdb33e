import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial.data.fashion_mnist import CLASS_NAMES, read_idx

REAL = Path(__file__).parents[2] / "data" / "fashion-mnist"


def _idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path) -> Path:
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(_idx(labels))
    return tmp_path


def test_the_own_split_is_kept(folder) -> None:
    data = fv.load_dataset(f"fashion-mnist:{folder}")
    assert (len(data.train), len(data.held_out), data.shape) == (30, 10, (1, 28, 28))
    assert data.class_names == CLASS_NAMES and data.levels == 256
    random = np.random.default_rng(0)
    train, test = (random.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (30, 10))
    assert np.array_equal(data.train.inverse(data.train.x)[:, 0], train)
    assert np.array_equal(data.held_out.inverse(data.held_out.x)[:, 0], test)
    assert data.held_out.labels.tolist() == list(range(10))


def test_what_is_held_out_on_request_is_split_off_the_training_set(folder) -> None:
    data = fv.load_dataset(f"fashion-mnist:{folder}", held_out=10)
    assert (len(data), len(data.train), len(data.held_out)) == (30, 20, 10)
    assert data.held_out.labels.bincount().tolist() == [1] * 10


def _corrupt(folder: Path, case: str) -> None:
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte"
    plain = gzip.decompress(images.read_bytes())
    contents = {
        "zipped half": images.read_bytes()[:5000],
        "no gzip": b"hello",
        "magic": gzip.compress(b"\x00\x00\x0d\x03" + plain[4:]),
        "axes": gzip.compress(b"\x00\x00\x08\x02" + plain[4:]),
        "header": gzip.compress(plain[:9]),
        "short": gzip.compress(plain[:-1]),
        "long": gzip.compress(plain + b"\x00"),
        "huge": gzip.compress(plain[:4] + b"\xff" * 12 + plain[16:]),
        "zero": gzip.compress(b""),
    }
    if case == "labels":
        labels.write_bytes(_idx(np.zeros(29, np.uint8)))
    elif case == "class":
        labels.write_bytes(_idx(np.full(30, 10, np.uint8)))
    elif case == "absent":
        labels.unlink()
    else:
        images.write_bytes(contents[case])


@pytest.mark.parametrize(
    ("case", "fragment"),
    [
        ("zipped half", r"train-images-idx3-ubyte\.gz is damaged .*: remove it and run `make data` again"),
        ("no gzip", "is damaged"),
        ("magic", "is no IDX file of uint8 with 3 axes: it begins with 00000d03"),
        ("axes", "it begins with 00000802"),
        ("header", "is truncated: it ends within its header"),
        ("short", "its header promises 23520 bytes, there are fewer"),
        ("long", "there are more"),
        ("huge", "there are fewer"),
        ("zero", "it begins with nothing"),
        ("labels", "train has 30 images but 29 labels"),
        ("class", r"labels up to 10, expected 0\.\.9"),
        ("absent", r"lacks train-labels-idx1-ubyte\(\.gz\): run `make data`, or give another path"),
    ],
)
def test_damaged_files_are_refused(folder, case, fragment) -> None:
    _corrupt(folder, case)
    with pytest.raises(ValueError, match=fragment) as caught:
        fv.load_dataset(f"fashion-mnist:{folder}")
    assert type(caught.value) is ValueError


def test_an_idx_file_is_its_array(tmp_path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(_idx(array))
    assert np.array_equal(read_idx(tmp_path / "a", 3), array)


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="run `make data` first")
def test_the_real_fashion_mnist() -> None:
    data = fv.load_dataset(f"fashion-mnist:{REAL}")
    assert (len(data.train), len(data.held_out)) == (60_000, 10_000)
    assert data.train.labels.bincount().tolist() == [6_000] * 10
    assert data.held_out.labels.bincount().tolist() == [1_000] * 10
    assert data.train.labels[:4].tolist() == [9, 0, 0, 3]  # the first: an ankle boot, two shirts, a dress
    mean = (data.train.x.double().mean() + 1) / 2
    torch.testing.assert_close(mean, torch.tensor(0.2860, dtype=torch.float64), atol=5e-5, rtol=0)
