"""Files of weights from strangers run nothing, and nothing is built after sizes that they merely claim."""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fluvial.metrics.extractors.dinov2 import DINOv2
from fluvial.metrics.extractors.weights import fill, read_weights

TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.tensor([3, 4])}


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


class Call:
    """Unpickled, it is what a function returns."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _refusal(path: Path, read=read_weights) -> str:
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert path.name in message and message.isprintable() and len(message) < 600
    return message


@pytest.mark.parametrize("archive", [True, False])
def test_state_dictionaries_of_every_kind_are_read(tmp_path, archive):
    shared = torch.arange(6.0)
    parameter = torch.nn.Parameter(torch.ones(2))
    held = OrderedDict({**TENSORS, "c": shared[:3], "d": shared[3:], "e": parameter, "f": torch.ones(2).half()})
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    found = read_weights(tmp_path / "w.pth")
    assert found.keys() == held.keys() and all(torch.equal(found[key], value) for key, value in held.items())


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.filterwarnings("error")
def test_pickles_are_neither_run_nor_loaded(tmp_path, archive):
    marker, file = tmp_path / "marker", tmp_path / "w.pth"
    hostile = {
        "a call": Bomb(marker),
        "a name of code": {"a": Bomb(marker)},
        "room that is not in the file": {"a": Call(bytearray, 10**12)},
        "a storage made by a call": {"a": Call(torch.FloatStorage, 10**12)},
        "a tensor without numbers": {"a": torch.empty(10**12, device="meta")},
    }
    for value in hostile.values():
        torch.save(value, file, _use_new_zipfile_serialization=archive)
        assert "cannot be read (ValueError" in _refusal(file)
    for protocol in (0, 2, 4):
        file.write_bytes(pickle.dumps(Bomb(marker), protocol))
        assert "cannot be read" in _refusal(file)
    assert not marker.exists()


def _with_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Replaces bytes in the pickle of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)
    path.write_bytes(out.getvalue())


def test_a_storage_that_claims_more_than_the_file_has(tmp_path):
    file = tmp_path / "w.pth"
    for archive in (True, False):
        torch.save({"a": torch.zeros(77)}, file, _use_new_zipfile_serialization=archive)
        claimed = b"X\x03\x00\x00\x00cpu", b"J\xff\xff\xff\x7f"
        if archive:
            _with_pickle(file, b"K\x4d", claimed[1])
        else:
            file.write_bytes(file.read_bytes().replace(b"K\x4d", claimed[1]))
        assert "it promises 8,589,934,588 bytes of tensors" in _refusal(file)


def test_repeated_and_empty_numbers_are_refused(tmp_path):
    """A net built after the shape of either would take what the file does not have."""
    torch.save({"a": torch.ones(1).expand(10**12)}, tmp_path / "w.pth")
    assert "promise 4,000,000,000,000 bytes of numbers" in _refusal(tmp_path / "w.pth")
    save_file({"a": torch.empty(0, 10**9)}, tmp_path / "w.safetensors")
    assert "hold no numbers in 'a'" in _refusal(tmp_path / "w.safetensors")


def test_weights_that_are_not_finite_or_no_fractions_are_refused(tmp_path):
    net, file = torch.nn.Linear(2, 1), tmp_path / "w.pth"
    good = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
    for bad, fragment in (
        ({"weight": torch.tensor([[1.0, float("nan")]])}, "weight hold NaN"),
        ({"bias": torch.ones(1, dtype=torch.int64)}, "bias of type torch.int64"),
    ):
        with pytest.raises(ValueError, match=fragment):
            fill(net, {**good, **bad}, file, "a net")
    fill(net, good, file, "a net")
    assert torch.equal(net.weight, good["weight"])


def test_dinov2_takes_no_memory_for_a_size_that_two_small_tensors_claim(tmp_path):
    """Width and hidden size are linear in the file, and a net of both has their product: 2 TB."""
    wide, file = 700_000, tmp_path / "w.safetensors"
    tensors = {
        "cls_token": torch.zeros(1, 1, wide),
        "patch_embed.proj.weight": torch.zeros(1, 3, 1, 1),
        "pos_embed": torch.zeros(1, 2, 1),
        "blocks.0.mlp.fc2.weight": torch.zeros(1, wide),
    }
    save_file(tensors, file)
    (tmp_path / "config.json").write_text('{"num_attention_heads": 1}')
    assert "are not those of DINOv2" in _refusal(file, DINOv2.load)
    save_file({**tensors, **{f"blocks.{i}.x": torch.zeros(1) for i in range(101)}}, file)
    assert "have 101 blocks" in _refusal(file, DINOv2.load)


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '{"num_attention_heads": Infinity}', "{", "[]", '{"num_attention_heads": "3"}']
)
def test_a_strange_configuration_beside_the_weights_is_refused(tmp_path, text):
    tensors = {
        "cls_token": torch.zeros(1, 1, 8),
        "patch_embed.proj.weight": torch.zeros(8, 3, 2, 2),
        "pos_embed": torch.zeros(1, 2, 8),
        "blocks.0.mlp.fc2.weight": torch.zeros(8, 16),
    }
    save_file(tensors, tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json beside the weights must be JSON with num_attention_heads"):
        DINOv2.load(tmp_path / "w.safetensors")
