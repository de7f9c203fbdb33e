import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fluvial.training.checkpoints import (
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    remove_partial_checkpoints,
    save_checkpoint,
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

    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{name}.safetensors is damaged: its sha256"):
        load_checkpoint(folder).tensors(name)

    file.unlink()
    with pytest.raises(ValueError, match=rf"{name}.safetensors is missing; remove step-00000007"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"step": 1}', b'{"fluvial": "0", "step": "1", "files": {}}', b"[" * 10**5],
)
def test_foreign_state_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    (folder / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a checkpoint of fluvial: state.json .*; remove step-00000007 to use"):
        load_checkpoint(folder)


def test_missing_state_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    (folder / "state.json").unlink()
    with pytest.raises(ValueError, match=r"state.json cannot be read: No such file or directory"):
        load_checkpoint(folder)


def test_a_file_that_is_no_safetensors_but_has_the_right_hash(tmp_path: Path) -> None:
    import hashlib

    folder = save(tmp_path, 7)
    (folder / "ema.safetensors").write_bytes(b"\x80\x04not tensors")
    state = json.loads((folder / "state.json").read_bytes())
    state["files"]["ema.safetensors"] = {"bytes": 13, "sha256": hashlib.sha256(b"\x80\x04not tensors").hexdigest()}
    (folder / "state.json").write_text(json.dumps(state))
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
    (folder / "state.json").write_text(json.dumps({**state, "step": 5000}))
    with pytest.raises(ValueError, match="step-00000006 is not a checkpoint of fluvial"):
        load_checkpoint(folder)


def test_incomplete_optimizer_state_is_refused() -> None:
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match="optimizer state of 'weight' must have exp_avg, exp_avg_sq, step"):
        load_optimizer_tensors(optimizer, ["weight", "bias"], {"weight.exp_avg": torch.zeros(2, 2)})
    load_optimizer_tensors(optimizer, ["weight", "bias"], {})
