"""Data sets that `datasets` resolves: local ones alone, with the network out of reach."""

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fluvial as fv
from data.parquet_examples import CLASSES, write
from fluvial.data import parse_spec
from fluvial.data.hub import _source, hub_data
from fluvial.training.source import absolute_data

pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a test must not use the network")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write(tmp_path / "ds" / "data" / "train-00000-of-00002.parquet", 0, 20, noted=False)
    write(tmp_path / "ds" / "data" / "train-00001-of-00002.parquet", 20, 20, noted=False)
    write(tmp_path / "ds" / "data" / "test-00000-of-00001.parquet", 40, 9, noted=False)
    return tmp_path / "ds"


def test_splits_and_files_are_those_that_datasets_finds(place) -> None:
    whole = fv.load_dataset(f"hf:{place}", stream=True)
    assert len(whole) == 40 and whole.labels.tolist() == [i % 3 for i in range(40)] and whole.name == "ds"
    test = fv.load_dataset(f"hf:{place}:test", stream=True, held_out=0)
    assert len(test) == 9
    theirs = datasets.load_dataset(str(place), split="test", streaming=True)
    for row, (mine, other) in enumerate(zip(test.inverse(test.x), theirs, strict=True)):
        assert other["id"] == f"p{40 + row}"
        assert (mine.transpose(1, 2, 0) == np.asarray(_decoded(other["image"]))).all()
    one = fv.load_dataset(f"hf:{place / 'data' / 'test-00000-of-00001.parquet'}", held_out=0)
    assert torch.equal(one.x, test.x)


def _decoded(image: object) -> object:
    if isinstance(image, dict):
        from io import BytesIO

        from PIL import Image

        return Image.open(BytesIO(image["bytes"]))
    return image


def test_the_card_names_the_classes(place) -> None:
    names = "\n".join(f"          '{i}': {name}" for i, name in enumerate(CLASSES))
    (place / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: id\n    dtype: string\n  - name: image\n    dtype: image\n"
        f"  - name: label\n    dtype:\n      class_label:\n        names:\n{names}\n"
        "  splits:\n  - name: train\n    num_examples: 40\n  - name: test\n    num_examples: 9\n---\n"
    )
    assert fv.load_dataset(f"hf:{place}", stream=True).class_names == tuple(CLASSES)


def test_what_is_not_there_is_one_error(place, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"has no split 'valid'; expected one of .*train"):
        fv.load_dataset(f"hf:{place}:valid")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no data set"):
        fv.load_dataset(f"hf:{tmp_path / 'empty'}")
    with pytest.raises(ValueError, match=r"cannot be read: hf:nobody/nothing cannot be reached") as caught:
        fv.load_dataset("hf:nobody/nothing")
    assert "\n" not in str(caught.value)
    for bad in ("hf:", "hf::train", "hf:a/b/c", "hf:../../etc/none", "hf:a b"):
        with pytest.raises(ValueError, match="is neither a file or folder nor a name of the hub"):
            parse_spec(bad)


def test_remote_files_are_known_by_place_size_and_tag(place, monkeypatch) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    content = write(place / "a.parquet").read_bytes()
    system = fsspec.filesystem("memory")
    system.pipe("/fluvial/a.parquet", content)
    source = _source("memory://fluvial/a.parquet")
    assert source.stamp is None and source.open().read() == content
    about = MemoryFileSystem.info
    found = [source.identity()]
    assert found == [source.identity()] and str(len(content)) in found[0]
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path: {**about(self, path), "ETag": "abc"})
    found.append(source.identity())
    system.pipe("/fluvial/a.parquet", content + b"x")
    found.append(source.identity())
    system.pipe("/fluvial/b.parquet", content + b"x")
    found.append(_source("memory://fluvial/b.parquet").identity())
    assert len(set(found)) == 4


@pytest.mark.parametrize("kind", [OSError, FileNotFoundError, ValueError])
def test_an_error_is_told_in_printable_words(place, monkeypatch, kind) -> None:
    def broken(_: str) -> None:
        raise kind("red \x1b[31m text\nmore")

    monkeypatch.setattr(datasets, "load_dataset_builder", broken)
    with pytest.raises((OSError, ValueError), match=r"ds (cannot be|holds no).*red .x1b.31m text'$") as caught:
        hub_data(parse_spec(f"hf:{place}"))
    assert str(caught.value).isprintable()


def test_other_formats_and_code_are_not_read(tmp_path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"csv is not in Parquet, such as '.*train\.csv'"):
        fv.load_dataset(f"hf:{tmp_path / 'csv'}")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match="code"):
        fv.load_dataset(f"hf:{tmp_path / 'code'}")
    assert not (tmp_path / "ran").exists()


def test_without_datasets_the_extra_is_named(place, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs datasets: install it with `pip install 'fluvial\[hub\]'`"):
        fv.load_dataset(f"hf:{place}")


def test_a_run_names_the_same_data_from_any_directory(place, monkeypatch) -> None:
    monkeypatch.chdir(place.parent)
    assert absolute_data("hf:ds:test") == f"hf:{place}:test"
    assert absolute_data("hf:ds") == f"hf:{place}"
    assert absolute_data("hf:owner/name:test") == "hf:owner/name:test"
