"""A saved estimator is read whole or refused: its settings and arrays have one checksum."""

import pickle
from pathlib import Path

import pytest
import torch

from fluvial.estimators.saving import read_file, save_file

TENSORS = {"rows": torch.arange(6.0).reshape(2, 3), "scale": torch.tensor(0.5)}


def test_what_was_saved_is_read(tmp_path):
    values = {"a": 0.1, "b": [1, None], "c": {"d": "é"}}
    save_file(tmp_path / "e", "Kind", values, TENSORS)
    read, tensors = read_file(tmp_path / "e", "Kind")
    assert {key: read[key] for key in values} == values
    assert tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)


def test_the_same_estimator_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_file(tmp_path / name, "Kind", {"a": 1}, TENSORS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_changed_byte_is_noticed(tmp_path):
    file = tmp_path / "e"
    save_file(file, "Kind", {"a": 1}, TENSORS)
    whole = file.read_bytes()
    unnoticed = []
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            values, tensors = read_file(file, "Kind")
        except ValueError as error:
            if "e" not in str(error) or not str(error).isprintable():
                unnoticed.append(at)
        else:
            same = values["a"] == 1 and all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
            unnoticed += [] if same else [at]
    assert unnoticed == []


def test_a_pickle_in_its_place_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "marker"), "w")

    (tmp_path / "e").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="e is damaged"):
        read_file(tmp_path / "e", "Kind")
    assert not (tmp_path / "marker").exists()


def test_a_header_that_claims_too_much(tmp_path: Path):
    head = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    (tmp_path / "e").write_bytes(len(head).to_bytes(8, "little") + head + bytes(16))
    with pytest.raises(ValueError, match="e is damaged"):
        read_file(tmp_path / "e", "Kind")
    (tmp_path / "e").write_bytes(b"\xff" * 8 + head)
    with pytest.raises(ValueError, match="e is damaged"):
        read_file(tmp_path / "e", "Kind")
