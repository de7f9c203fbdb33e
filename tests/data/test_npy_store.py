"""A streamed .npy file gives what the same file in memory gives, or one error that names it."""

import copy
import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial.data import npy_store

_SHAPES = [(9,), (9, 2), (9, 2, 3), (9, 1, 4, 5), (9, 4, 5, 3)]
_KINDS = ["u1", "i1", "<i4", ">i8", "u2", "f2", "<f4", ">f4", "<f8", ">f8", "?"]


def _both(path: Path) -> tuple[fv.Dataset, fv.Dataset]:
    kept, streamed = (fv.load_dataset(str(path), seed=3, stream=stream) for stream in (False, True))
    assert streamed.streamed and streamed.train.streamed and not kept.streamed
    return kept, streamed


def test_it_is_the_same_data_set_as_in_memory(tmp_path) -> None:
    random, path = np.random.default_rng(0), tmp_path / "x.npy"
    for kind in _KINDS:
        for shape in _SHAPES if kind != "u1" else [(9, 4, 5), (9, 3, 4, 5), (9, 4, 5, 3)]:
            scale = random.choice([0.01, 100])  # values of an image, or not
            values = random.normal(size=shape) * scale if "f" in kind else random.integers(0, 100 * scale, shape)
            np.save(path, values.astype(kind))
            kept, streamed = _both(path)
            assert (streamed.shape, streamed.kind, streamed.levels) == (kept.shape, kept.kind, kept.levels)
            for ours, theirs in ((streamed, kept), (streamed.train, kept.train), (streamed.held_out, kept.held_out)):
                assert torch.equal(ours.x, theirs.x) and ours.content_hash == theirs.content_hash
            rows = random.integers(0, len(kept.train), 20)
            assert torch.equal(streamed.train.take(rows)[0], kept.train.take(rows)[0])


def test_mirror_images_and_copies_read_the_same_file(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    kept, streamed = _both(tmp_path / "x.npy")
    assert kept.with_mirror_images().train.content_hash == streamed.with_mirror_images().train.content_hash
    for other in (copy.deepcopy(streamed), pickle.loads(pickle.dumps(streamed))):
        assert torch.equal(other.x, kept.x)
    before = len(os.listdir("/proc/self/fd"))
    del other, streamed
    assert len(os.listdir("/proc/self/fd")) < before


def test_progress_is_told_while_values_are_checked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(npy_store, "_SCAN_BYTES", 64)
    np.save(tmp_path / "x.npy", np.zeros((20, 2)))
    reports = []
    fv.load_dataset(str(tmp_path / "x.npy"), stream=True, progress=reports.append)
    assert [report.step for report in reports] == [4, 8, 12, 16, 20] and reports[-1].total == 20


def test_reads_are_put_together_however_little_the_system_reads_at_once(tmp_path, monkeypatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 7))
    np.save(tmp_path / "x.npy", values)
    monkeypatch.setattr(npy_store, "_READ_BYTES", 13)
    data = fv.load_dataset(str(tmp_path / "x.npy"), stream=True)
    assert np.array_equal(data.x.numpy(), values.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_nan_is_found_before_any_work_and_the_row_is_named(tmp_path, monkeypatch, bad) -> None:
    monkeypatch.setattr(npy_store, "_SCAN_BYTES", 160)
    values = np.zeros((100, 2))
    values[[57, 99], 1] = bad
    np.save(tmp_path / "x.npy", values)
    for stream in (False, True):
        with pytest.raises(ValueError, match=r"'x\.npy': 2 of 100 rows hold NaN or infinite .* is row 57"):
            fv.load_dataset(str(tmp_path / "x.npy"), stream=stream)


def _header(shape: str, descr: str = "'<f8'", fortran: bool = False) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (_header("(1000000000000, 3)") + b"\0" * 24, "its header promises 24,000,000,000,000 bytes, there are 24"),
        (_header("(2, 3)") + b"\0" * 47, "its header promises 48 bytes, there are 47"),
        (_header("(2, 3)") + b"\0" * 49, "its header promises 48 bytes, there are 49"),
        (_header("(-2, 3)"), "is damaged or no .npy file"),
        (_header("(0, 3)"), "there are no data"),
        (_header("()") + b"\0" * 8, "there are no data"),
        (_header("(2, 0)"), "there are no data"),
        (_header("(2, 3)", fortran=True) + b"\0" * 48, r"is in Fortran order, .* \(stream=False"),
        (_header("(1,)", "'|O'") + b"\0" * 8, "holds Python objects"),
        (_header("(1,)", "'<c8'") + b"\0" * 8, "must be real numbers, got dtype complex64"),
        (_header("(2,)", "'|b1'") + b"\1\2", "holds truth values that are neither true nor false"),
        (_header("(1,)", "(" * 90), "is damaged or no .npy file"),
        (b"", "is damaged or no .npy file"),
        (b"\x93NUMPY\x03\x00" + b"\0" * 50, "is damaged or no .npy file"),
    ],
)
def test_files_that_lie_or_do_not_fit_are_refused(tmp_path, content, fragment) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=fragment) as caught:
        fv.load_dataset(str(tmp_path / "x.npy"), stream=True)
    assert str(tmp_path / "x.npy") in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def used(tmp_path: Path) -> tuple[Path, fv.Dataset]:
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(1000, 64)))
    return path, fv.load_dataset(str(path), stream=True)


def test_an_archive_under_the_name_of_an_array_is_not_streamed(tmp_path) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, x=np.zeros((3, 2)))
    assert len(fv.load_dataset(str(tmp_path / "x.npy"), stream=False)) == 3
    with pytest.raises(ValueError, match=r"x\.npy is damaged or no \.npy file"):
        fv.load_dataset(str(tmp_path / "x.npy"), stream=True)


def test_a_file_that_is_cut_short_in_use_is_one_error(used) -> None:
    path, data = used
    os.truncate(path, 1000)
    with pytest.raises(ValueError, match=r"x\.npy has been cut short since it was opened"):
        data.take([999])
    with pytest.raises(ValueError, match=r"x\.npy has changed since it was opened"):
        data.take([0])


def test_a_file_that_is_written_to_in_use_is_one_error(used) -> None:
    path, data = used
    os.utime(path, ns=(0, 0))
    with pytest.raises(ValueError, match=r"x\.npy has changed since it was opened"):
        data.take([0])


def test_a_file_that_is_replaced_in_use_goes_on_being_read(used) -> None:
    path, data = used
    before = data.x
    np.save(path.with_name("new.npy"), np.zeros((3, 3)))
    os.replace(path.with_name("new.npy"), path)
    assert torch.equal(data.x, before)


def test_a_disk_that_goes_away_is_one_error_that_names_the_file(used, monkeypatch) -> None:
    path, data = used

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(OSError, match="cannot be read: Input/output error") as caught:
        data.take([0])
    assert caught.value.errno == errno.EIO and caught.value.filename == str(path)
