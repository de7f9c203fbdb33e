import json
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fluvial.training.checkpoints import (
    CheckpointLeft,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    remove_partial_checkpoints,
    save_checkpoint,
    sealed,
)
from fluvial.training.optimizer import load_optimizer_tensors, optimizer_tensors

TENSORS = {name: {"a": torch.arange(6.0).reshape(2, 3)} for name in ("model", "ema", "optimizer")}


def save(run: Path, step: int, keep: int = 3, tensors: dict[str, dict[str, Tensor]] = TENSORS) -> Path:
    return save_checkpoint(run, step, tensors, {"data_hash": "ab"}, keep=keep)


def test_round_trip(tmp_path: Path) -> None:
    folder = save(tmp_path, 20)
    assert folder == tmp_path / "checkpoints" / "step-00000020"
    checkpoint = load_checkpoint(folder)
    assert checkpoint.step == 20
    assert checkpoint.state["data_hash"] == "ab"
    for name, group in TENSORS.items():
        assert torch.equal(checkpoint.tensors(name)["a"], group["a"])


def test_same_state_gives_the_same_bytes_and_hash(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", 1), save(tmp_path / "two", 1)
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()
    assert load_checkpoint(one).hash == load_checkpoint(two).hash
    other = save(tmp_path / "three", 1, tensors={**TENSORS, "ema": {"a": torch.zeros(2, 3)}})
    assert load_checkpoint(other).hash != load_checkpoint(one).hash


def test_adamw_state_round_trip() -> None:
    def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        return net, torch.optim.AdamW(net.parameters(), 0.1, betas=(0.9, 0.95), fused=True)

    def update(net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        net(torch.full((1, 3), float(step))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    net, optimizer = trained()
    names = [name for name, _ in net.named_parameters()]
    for step in range(3):
        update(net, optimizer, step)
    kept = {name: value.clone() for name, value in optimizer_tensors(optimizer, names).items()}
    assert set(kept) == {f"{name}.{entry}" for name in names for entry in ("step", "exp_avg", "exp_avg_sq")}
    other, fresh = trained()
    other.load_state_dict({key: value.clone() for key, value in net.state_dict().items()})
    load_optimizer_tensors(fresh, names, kept)
    update(net, optimizer, 3)
    update(other, fresh, 3)
    for expected, value in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(expected, value)


def test_foreign_optimizer_state_is_refused() -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    with pytest.raises(ValueError, match=r"'other.exp_avg' belongs to no parameter"):
        load_optimizer_tensors(optimizer, ["weight", "bias"], {"other.exp_avg": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'bias.exp_avg' has shape \(3,\), expected \(2,\)"):
        load_optimizer_tensors(optimizer, ["weight", "bias"], {"bias.exp_avg": torch.zeros(3)})


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for step in (5, 100, 20, 123_456_789):
        save(tmp_path, step, keep=2)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-00000100", "step-123456789"]
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-123456789"
    assert {child.name for child in (tmp_path / "checkpoints").iterdir()} == {"step-00000100", "step-123456789"}


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    remove_partial_checkpoints(tmp_path)


def test_partial_folders_are_never_taken_and_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    partial = tmp_path / "checkpoints" / ".partial-step-00000002"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    (tmp_path / "checkpoints" / ".partial-x").write_text("a file")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00000001"
    remove_partial_checkpoints(tmp_path)
    assert [child.name for child in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("name", ["model", "ema", "optimizer"])
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    file = folder / f"{name}.safetensors"
    content = file.read_bytes()

    file.write_bytes(content[:-1])
    with pytest.raises(
        ValueError, match=rf"{name}.safetensors is truncated: {len(content) - 1} bytes of {len(content)}"
    ):
        load_checkpoint(folder)

    file.write_bytes(content + b"x")
    with pytest.raises(ValueError, match=rf"{name}.safetensors is damaged: {len(content) + 1} bytes of {len(content)}"):
        load_checkpoint(folder)

    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{name}.safetensors is damaged: its sha256"):
        load_checkpoint(folder).tensors(name)
    with pytest.raises(ValueError, match=rf"{name}.safetensors is damaged: its sha256"):
        load_checkpoint(folder).check_hashes()

    file.unlink()
    with pytest.raises(ValueError, match=rf"{name}.safetensors is missing"):
        load_checkpoint(folder)

    file.mkdir()
    with pytest.raises(ValueError, match=rf"{name}.safetensors is not a file"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"step": 1}', b'{"fluvial": "0", "step": "1", "files": {}}', b"[" * 10**5],
)
def test_foreign_state_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    (folder / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a checkpoint of fluvial: state.json is damaged or"):
        load_checkpoint(folder)


def test_missing_state_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    (folder / "state.json").unlink()
    with pytest.raises(ValueError, match=r"state.json is missing"):
        load_checkpoint(folder)


def test_a_file_that_is_no_safetensors_but_has_the_right_hash(tmp_path: Path) -> None:
    import hashlib

    folder = save(tmp_path, 7)
    (folder / "ema.safetensors").write_bytes(b"\x80\x04not tensors")
    state = json.loads((folder / "state.json").read_bytes())
    state["files"]["ema.safetensors"] = {"bytes": 13, "sha256": hashlib.sha256(b"\x80\x04not tensors").hexdigest()}
    (folder / "state.json").write_bytes(sealed(state))
    with pytest.raises(ValueError, match=r"ema.safetensors is not a safetensors file"):
        load_checkpoint(folder).tensors("ema")


def test_full_disk_leaves_earlier_checkpoints_intact(tmp_path: Path) -> None:
    first = save(tmp_path, 1)
    large = {**TENSORS, "ema": {"a": torch.zeros(100_000)}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            OSError, match=r"checkpoint not written \(File too large\); earlier ones are intact"
        ) as caught:
            save(tmp_path, 2, tensors=large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "checkpoints" / "step-00000002")
    assert [child.name for child in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert torch.equal(load_checkpoint(first).tensors("ema")["a"], TENSORS["ema"]["a"])


def test_lost_folder_is_an_os_error_that_promises_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(OSError, match=r"checkpoint not written \((File exists|Not a directory)\)") as caught:
        save(tmp_path, 2)
    assert "intact" not in str(caught.value)
    with pytest.raises(ValueError, match="checkpoints is a file, expected the folder of the checkpoints"):
        latest_checkpoint(tmp_path)


def test_step_must_be_that_of_the_folder(tmp_path: Path) -> None:
    folder = save(tmp_path, 6)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_bytes(sealed({**state, "step": 5000}))
    with pytest.raises(ValueError, match="step-00000006 is not a checkpoint of fluvial"):
        load_checkpoint(folder)


def test_incomplete_optimizer_state_is_refused() -> None:
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match="optimizer state of 'weight' must have exp_avg, exp_avg_sq, step"):
        load_optimizer_tensors(optimizer, ["weight", "bias"], {"weight.exp_avg": torch.zeros(2, 2)})
    load_optimizer_tensors(optimizer, ["weight", "bias"], {})


def test_every_bit_of_state_json_counts(tmp_path: Path) -> None:
    """A digit that changed would be a valid file with another loss in it."""
    folder = save(tmp_path, 7)
    file = folder / "state.json"
    content, whole = file.read_bytes(), load_checkpoint(folder).state
    for position in range(0, len(content), 3):
        for bit in (1, 2, 16):
            file.write_bytes(content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :])
            try:
                found = load_checkpoint(folder).state
            except ValueError:
                continue
            # What was read as if nothing had happened: the name of the seal itself, and nothing else.
            assert {key: value for key, value in found.items() if key in whole and key != "sha256"} == {
                key: value for key, value in whole.items() if key != "sha256"
            }


def test_a_checkpoint_of_the_first_version_has_no_seal(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    state = json.loads((folder / "state.json").read_text())
    del state["sha256"]
    (folder / "state.json").write_text(json.dumps(state, indent=1))
    assert load_checkpoint(folder).state == state


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    for name in ("state.json", "ema.safetensors"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(ValueError, match=rf"{name} is not a file"):
            load_checkpoint(folder)
        save(tmp_path / "other", 7)
        shutil.rmtree(folder)
        shutil.move(tmp_path / "other" / "checkpoints" / folder.name, folder)


def test_a_state_too_large_to_be_one_is_not_read(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    os.truncate(folder / "state.json", 2**40)
    with pytest.raises(ValueError, match=r"state.json is damaged: it has 1099511627776 bytes, expected at most"):
        load_checkpoint(folder)


def test_a_file_that_grew_after_the_check_is_not_read(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    checkpoint = load_checkpoint(folder)
    os.truncate(folder / "ema.safetensors", 2**40)
    with pytest.raises(ValueError, match=r"ema.safetensors is damaged: it has 1099511627776 bytes, expected at most"):
        checkpoint.tensors("ema")


def test_a_run_folder_that_has_gone_is_not_made_anew(tmp_path: Path) -> None:
    """Its disk was lost: what is written under its name would lie on another one."""
    run = tmp_path / "run"
    with pytest.raises(OSError, match=r"checkpoint not written \(No such file or directory\)"):
        save_checkpoint(run, 1, TENSORS, {}, keep=1, make_run=False)
    assert not run.exists()
    save_checkpoint(run, 1, TENSORS, {}, keep=1)
    save_checkpoint(run, 2, TENSORS, {}, keep=1, make_run=False)


def test_a_removal_that_failed_before_is_made_up_for(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / ".partial-old-step-00000001" / "rest").mkdir(parents=True)
    save(tmp_path, 2, keep=1)
    assert [child.name for child in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("name", ["rename", "rmtree"])
def test_an_old_checkpoint_that_cannot_be_removed_is_no_failure_of_the_new_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, keep=3)
    place = Path if name == "rename" else shutil
    does = getattr(place, name)

    def refuse(path: Path, *rest: Any, **named: Any) -> Any:
        if "step-00000001" in str(path):
            raise OSError(13, "Permission denied", str(path))
        return does(path, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, refuse)
        with pytest.warns(
            CheckpointLeft, match=r"step-00000004 is written, .*Permission denied.*step-00000001"
        ) as told:
            save(tmp_path, 4, keep=1)
    assert len(told) == 1
    found = [folder.name for folder in list_checkpoints(tmp_path)]
    assert found == (["step-00000001", "step-00000004"] if name == "rename" else ["step-00000004"])
    save(tmp_path, 5, keep=1)
    remove_partial_checkpoints(tmp_path)
    assert [child.name for child in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]


def test_the_number_of_tensors_is_read_from_the_head_alone(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save(tmp_path, 7))
    assert checkpoint.count_tensors("ema") == len(checkpoint.tensors("ema"))
    file = checkpoint.folder / "ema.safetensors"
    for content in (b"", bytes(7), (2**60).to_bytes(8, "little"), b"\x02" + bytes(7) + b"{]"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"ema.safetensors is not a safetensors file"):
            checkpoint.count_tensors("ema")
    file.unlink()
    with pytest.raises(ValueError, match=r"ema.safetensors is missing"):
        checkpoint.count_tensors("ema")
