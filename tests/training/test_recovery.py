"""A checkpoint is used as a whole or not at all, and whatever refuses a write leaves the run as it was."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fluvial.support import MetaTrainer, SupportConfig, load_support_run
from fluvial.training import TrainConfig, Trainer, load_run
from fluvial.training.checkpoints import list_checkpoints, save_checkpoint
from fluvial.training.recovery import (
    DamagedCheckpoint,
    load_intact,
    newest_intact,
    read_newest,
    recover_newest,
)

Make = Callable[..., TrainConfig]
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")
TENSORS = {name: {"a": torch.arange(6.0).reshape(2, 3)} for name in ("model", "ema", "optimizer")}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def zero_tail(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def foreign(file: Path) -> None:
    file.write_text('{"step": 3, "weights": [1, 2]}')


WAYS = [cut, empty, flip, zero_tail, Path.unlink, replace_by_folder, foreign]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints."""
    for step in (5, 10, 12):
        save_checkpoint(tmp_path / "run", step, TENSORS, {"a": step}, keep=3)
    return tmp_path / "run"


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", WAYS, ids=lambda way: way.__name__)
def test_the_checkpoint_before_a_damaged_one_is_used(damage: Callable[[Path], None], name: str, run: Path) -> None:
    folder = run / "checkpoints" / "step-00000012"
    damage(folder / name)
    before = content(run)
    with pytest.raises(ValueError, match=rf"step-00000012.*{name}|step-00000012 is not a checkpoint.*{name}"):
        load_intact(folder)
    found, damaged = newest_intact(run)
    assert found is not None and found.step == 10
    assert [(entry.folder, name in entry.reason) for entry in damaged] == [(folder, True)]
    with pytest.warns(DamagedCheckpoint, match=rf"{name}.*; step 10 is used instead of step-00000012$") as told:
        assert read_newest(run) == found
    assert len(told) == 1 and "\n" not in str(told[0].message)
    assert content(run) == before


def test_an_intact_run_is_read_in_silence(run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = recover_newest(run)
    assert found is not None and found.step == 12
    assert newest_intact(run)[1] == []


def test_damage_is_moved_aside_and_kept(run: Path) -> None:
    folder = run / "checkpoints" / "step-00000012"
    empty(folder / "ema.safetensors")
    with pytest.warns(DamagedCheckpoint):
        recover_newest(run)
    aside = run / "checkpoints" / ".damaged-step-00000012"
    assert sorted(file.name for file in aside.iterdir()) == sorted(FILES)
    # It happens once more, to a file in the folder's place, and to two checkpoints at once.
    folder.write_text("not a folder")
    flip(run / "checkpoints" / "step-00000010" / "state.json")
    with pytest.warns(DamagedCheckpoint) as told:
        found = recover_newest(run)
    assert found is not None and found.step == 5 and len(told) == 2
    names = {child.name for child in (run / "checkpoints").iterdir()}
    asides = {".damaged-step-00000010", ".damaged-step-00000012", ".damaged-step-00000012-2"}
    assert names == {"step-00000005", *asides}
    save_checkpoint(run, 12, TENSORS, {"a": 12}, keep=2)
    assert [folder.name for folder in list_checkpoints(run)] == ["step-00000005", "step-00000012"]
    assert aside.is_dir()


def test_all_damaged_is_one_error_and_nothing_is_moved(run: Path) -> None:
    for folder in list_checkpoints(run):
        cut(folder / "model.safetensors")
    before = content(run)
    for read in (read_newest, recover_newest):
        with pytest.raises(
            ValueError, match=r"step-00000012/model.safetensors is truncated.*; none of the 3 is intact: move .*resume"
        ):
            read(run)
    assert content(run) == before
    for folder in list_checkpoints(run)[1:]:
        shutil.rmtree(folder)
    with pytest.raises(ValueError, match="it is the only checkpoint"):
        read_newest(run)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(116, "Stale file handle")])
def test_what_may_not_be_read_is_not_called_damaged(error: OSError, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is away for a minute must not cost the newest checkpoint."""
    error.filename = "state.json"

    def refuse(_: Path) -> bytes:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(OSError, match=error.strerror):
            recover_newest(run)
    assert len(list_checkpoints(run)) == 3


def test_a_bad_sector_is_damage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def fail(file: Path) -> bytes:
        if "step-00000012" in str(file):
            raise OSError(5, "Input/output error", str(file))
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.warns(DamagedCheckpoint, match="state.json cannot be read: Input/output error; step 10 is used"):
        read_newest(run)


def test_a_checkpoint_that_a_training_removes_meanwhile_is_no_damage(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluvial.training import recovery

    def list_then_prune(folder: Path) -> list[Path]:
        found = list_checkpoints(folder)
        if len(found) == 3:
            save_checkpoint(run, 20, TENSORS, {}, keep=1)
        return found

    monkeypatch.setattr(recovery, "list_checkpoints", list_then_prune)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_newest(run)
    assert found is not None and found.step == 20


def test_checkpoints_that_are_always_removed_first_are_no_absence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a reader would be told that a run of many checkpoints has none yet."""
    from fluvial.training import recovery

    listed = []

    def list_one_that_goes(folder: Path) -> list[Path]:
        listed.append(folder)
        return [folder / "checkpoints" / f"step-{100 + len(listed):08d}"]

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "list_checkpoints", list_one_that_goes)
        for read in (newest_intact, read_newest, recover_newest):
            with pytest.raises(
                ValueError, match=r"run cannot be read: 5 times in a row a checkpoint was removed .*again"
            ):
                read(run)
    assert len(listed) == 15
    shutil.rmtree(run / "checkpoints")
    assert newest_intact(run) == (None, [])


def test_a_net_read_after_its_checkpoint_was_removed_says_so(tiny: Make, tmp_path: Path) -> None:
    """A run's weights are read when they are used, and a training that goes on removes old checkpoints."""
    Trainer(tiny(keep=1), tmp_path).fit()
    plain = load_run(tmp_path)
    save_checkpoint(tmp_path, 13, TENSORS, {}, keep=1)
    expected = r"step-00000012 was removed after the run had been read.*read the run again, .* step-00000013$"
    with pytest.raises(ValueError, match=expected):
        _ = plain.net
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ValueError, match=r"step-00000012/ema.safetensors is missing$"):
        _ = plain.net


def test_a_support_net_read_after_its_checkpoint_was_removed_says_so(tmp_path: Path) -> None:
    config = SupportConfig(width=8, heads=2, steps=1, batch_size=2, points=8, bank=8)
    MetaTrainer(config, tmp_path).fit()
    run = load_support_run(tmp_path)
    save_checkpoint(tmp_path, 2, TENSORS, {}, keep=1)
    with pytest.raises(ValueError, match=r"step-00000001 was removed .* step-00000002$"):
        _ = run.net


def test_training_goes_on_from_the_checkpoint_before(tiny: Make, tmp_path: Path) -> None:
    whole, run = Trainer(tiny(), tmp_path / "whole").fit(), tmp_path / "run"
    Trainer(tiny(), run).fit()
    flip(run / "checkpoints" / "step-00000012" / "optimizer.safetensors")
    with pytest.warns(DamagedCheckpoint, match="optimizer.safetensors is damaged: .*; step 10 is used instead"):
        assert load_run(run).step == 10
    with pytest.warns(DamagedCheckpoint):
        result = Trainer(tiny(), run).fit(resume=True)
    assert content(result.checkpoint) == content(whole.checkpoint)
    assert (run / "checkpoints" / ".damaged-step-00000012").is_dir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Trainer(tiny(), run).fit(resume=True).step == load_run(run).step == 12
    assert Trainer(tiny(), run).fit(overwrite=True).step == 12
    assert not (run / "checkpoints" / ".damaged-step-00000012").exists()


def test_meta_training_does_too(tmp_path: Path) -> None:
    config = SupportConfig(
        width=8, heads=2, steps=6, batch_size=2, points=8, bank=8, checkpoint_every=2, log_every=2, keep=3
    )
    whole, run = MetaTrainer(config, tmp_path / "whole").fit(), tmp_path / "run"
    MetaTrainer(config, run).fit()
    flip(run / "checkpoints" / "step-00000006" / "ema.safetensors")
    with pytest.warns(DamagedCheckpoint, match="step 4 is used instead of step-00000006"):
        assert load_support_run(run).step == 4
    with pytest.warns(DamagedCheckpoint):
        result = MetaTrainer(config, run).fit(resume=True)
    assert content(result.checkpoint) == content(whole.checkpoint)


@pytest.mark.parametrize(
    "arguments", [("sample", "--n", "4", "--out", "x.npz"), ("info",), ("train", "--resume")], ids=lambda a: a[0]
)
def test_commands_report_it_in_one_line(
    arguments: tuple[str, ...], tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from fluvial.cli import main

    monkeypatch.chdir(tmp_path)
    Trainer(tiny(), Path("run")).fit()
    cut(tmp_path / "run" / "checkpoints" / "step-00000012" / "ema.safetensors")
    given = [arguments[0], "run", *arguments[1:]] if arguments[0] != "train" else [*arguments, "run"]
    assert main(given) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == 1
    assert lines[0].startswith("fluvial: warning: run/checkpoints/step-00000012/ema.safetensors is truncated: ")
    assert lines[0].endswith("; step 10 is used instead of step-00000012")
