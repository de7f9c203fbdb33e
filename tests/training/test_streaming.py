"""A run whose data stay in their files is the run whose data are in memory, and takes the memory of a batch."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fluvial as fv
from fluvial.progress import Progress
from fluvial.training import Trainer
from fluvial.training.config import TrainConfig, read_config
from fluvial.training.settings import check_types
from fluvial.training.source import load_source


def _folder(place: Path) -> Path:
    random = np.random.default_rng(0)
    for i in range(40):
        (place / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (4, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"c{i % 2}" / f"{i}.png")
    return place


def _npy(path: Path) -> Path:
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8))
    return path


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("npy", {"objective": "efm"}),
        ("npy", {"flip": True}),
        ("folder", {"objective": "efm", "labels": True}),
        ("folder", {"objective": "cfm", "coupling": "ot"}),
    ],
)
def test_streamed_training_is_bit_identical(tmp_path, tiny, same_tensors, kind, changes) -> None:
    data = str(_npy(tmp_path / "x.npy")) if kind == "npy" else f"folder:{_folder(tmp_path / 'f')}"
    config = tiny(data=data, **changes)
    kept, streamed = (
        Trainer(dataclasses.replace(config, stream=stream), tmp_path / str(stream)).fit() for stream in (False, True)
    )
    assert kept.loss == streamed.loss and same_tensors(kept.checkpoint, streamed.checkpoint)
    assert load_source(read_config(tmp_path / "True")).streamed


def test_streamed_parquet_goes_on_bit_for_bit_from_a_checkpoint(tmp_path, tiny, same_tensors) -> None:
    pytest.importorskip("pyarrow")
    from data.parquet_examples import write

    write(tmp_path / "d" / "a.parquet", count=60, group=3)
    config = tiny(data=f"parquet:{tmp_path / 'd'}", stream=True, labels=True)
    whole = Trainer(config, tmp_path / "whole").fit()
    Trainer(config, tmp_path / "parts").fit()
    for folder in sorted((tmp_path / "parts" / "checkpoints").iterdir())[1:]:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    resumed = Trainer(read_config(tmp_path / "parts"), tmp_path / "parts").fit(resume=True)
    assert same_tensors(whole.checkpoint, resumed.checkpoint)


def test_a_picture_that_goes_while_training_stops_it_with_one_error(tmp_path, tiny) -> None:
    place = _folder(tmp_path / "f")

    def harm(report: Progress) -> None:
        if report.task.startswith("train") and report.step > 5:  # the first checkpoint's
            (place / "c0" / "0.png").unlink(missing_ok=True)

    with pytest.raises(ValueError, match=r"c0/0\.png cannot be read: No such file or directory"):
        Trainer(tiny(data=f"folder:{place}", stream=True, held_out=0, steps=40), tmp_path / "run", progress=harm).fit()
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_data_stay_in_their_files_where_they_would_take_too_much_memory(tmp_path, monkeypatch) -> None:
    npy, folder = str(_npy(tmp_path / "x.npy")), f"folder:{_folder(tmp_path / 'f')}"
    for needed, streams in ((4 * 640 - 1, True), (4 * 640, False)):
        monkeypatch.setattr("fluvial.data.memory.physical_memory", lambda needed=needed: needed)
        for spec in (npy, folder):
            assert fv.load_dataset(spec).streamed == streams
            assert fv.load_dataset(spec, stream=True).streamed and not fv.load_dataset(spec, stream=False).streamed


@pytest.mark.parametrize("data", ["digits", "moons", "x.npz", "table.csv", "celeba:f", "cifar10:f", "fashion-mnist"])
def test_what_can_only_be_read_whole_is_not_streamed(data) -> None:
    with pytest.raises(ValueError, match=f"stream is for X.npy, .* the data set is '{data}'"):
        TrainConfig(data=data, stream=True).check_values()
    TrainConfig(data=data, stream=False).check_values()


def test_stream_is_true_false_or_left_open() -> None:
    for value in (True, False, None):
        check_types({"stream": value}, {"stream": bool | None})
    for value in (1, "yes"):
        with pytest.raises(TypeError, match=r"stream must be bool \| None, got"):
            check_types({"stream": value}, {"stream": bool | None})
    with pytest.raises(TypeError, match="steps must be int, got True"):
        check_types({"steps": True}, {"steps": int})


def test_other_data_are_refused_with_a_word_about_streaming(tmp_path, tiny) -> None:
    place = _folder(tmp_path / "f")
    Trainer(tiny(data=f"folder:{place}", stream=False), tmp_path / "run").fit()
    config = dataclasses.replace(read_config(tmp_path / "run"), stream=True)
    with pytest.raises(ValueError, match=r"stream|another hash"):
        Trainer(config, tmp_path / "run").fit(resume=True)


def test_a_run_on_parquet_keeps_its_order(tmp_path, tiny, monkeypatch) -> None:
    """In files it goes by row groups; what a machine's memory would make of it plays no part in a resumption."""
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "d").mkdir()
    columns = {name: np.tile([-1.0, 1.0], 30) for name in "ab"}  # standardised they stay what they are
    parquet.write_table(pa.table(columns), tmp_path / "d" / "a.parquet", row_group_size=5)
    config = tiny(data=f"parquet:{tmp_path / 'd'}", held_out=0)
    Trainer(config, tmp_path / "run").fit()
    assert read_config(tmp_path / "run").stream is False
    monkeypatch.setattr("fluvial.data.memory.physical_memory", lambda: 3000)
    assert Trainer(config, tmp_path / "run").fit(resume=True).step == 12
    with pytest.raises(ValueError, match=r"stream cannot change once training has begun: .* stream = False"):
        Trainer(dataclasses.replace(config, stream=True), tmp_path / "run").fit(resume=True)


_MEASURE = r"""
import json, re, sys
from pathlib import Path
from fluvial.training import TrainConfig, Trainer
def kib(what): return int(re.search(what + r":\s+(\d+)", Path("/proc/self/status").read_text())[1])
def train(data, name):
    config = TrainConfig(data=data, stream=True, width=8, depth=1, steps=20, batch_size=64, checkpoint_every=100)
    Trainer(config, Path(sys.argv[3]) / name).fit()
train(sys.argv[1], "small")
Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of imports, does not hide a later one
before = kib("VmRSS")
train(sys.argv[2], "large")
print(json.dumps([before, kib("VmHWM")]))
"""


@pytest.fixture
def growth(tmp_path: Path) -> Callable[[str, str], float]:
    """MiB by which the peak memory of a process grows when it trains on large data after small ones."""

    def measure(small: str, large: str) -> float:
        command = [sys.executable, "-c", _MEASURE, small, large, str(tmp_path / "runs")]
        (tmp_path / "runs").mkdir()
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        before, peak = json.loads(done.stdout)
        return (peak - before) / 1024

    return measure


def _zeros(path: Path, count: int) -> Path:
    """A .npy file of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        head = {"descr": "<f4", "fortran_order": False, "shape": (count, 1, 32, 32)}
        np.lib.format.write_array_header_1_0(file, head)
        file.truncate(file.tell() + count * 4096)
    return path


@pytest.mark.slow
def test_an_array_of_300_mb_takes_the_memory_of_a_batch(tmp_path, growth) -> None:
    small, large = _zeros(tmp_path / "small.npy", 200), _zeros(tmp_path / "large.npy", 75_000)
    assert large.stat().st_size > 300e6
    assert growth(str(small), str(large)) < 60


@pytest.mark.slow
def test_parquet_of_100_mb_takes_the_memory_of_a_pool(tmp_path, growth) -> None:
    pytest.importorskip("pyarrow")
    from data.parquet_examples import write

    noise = np.random.default_rng(0)
    for part in range(10):  # 10 MB each: 2,000 pictures of 5 KB in row groups of 100, so that a pool has 4 MB
        cells = [{"bytes": _bmp(noise), "path": None} for _ in range(2000)]
        write(tmp_path / "large" / f"{part}.parquet", count=2000, group=100, image=cells, label=[0] * 2000)
    assert sum(file.stat().st_size for file in (tmp_path / "large").iterdir()) > 100e6
    small = write(tmp_path / "small.parquet", count=1000, group=100, image=cells[:1000], label=[0] * 1000)
    assert growth(str(small), f"parquet:{tmp_path / 'large'}") < 70


def _bmp(noise: np.random.Generator) -> bytes:
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(noise.integers(0, 256, (40, 44, 3), dtype=np.uint8)).save(file, "BMP")
    return file.getvalue()
