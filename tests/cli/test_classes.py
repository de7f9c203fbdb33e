"""Classes by name and number, tables and what is left out of them: in train, info, sample and the sidecar."""

import json

import numpy as np
import pytest

from fluvial.cli.classes import class_number, list_classes

TINY = ["--steps", 2, "--width", 8, "--depth", 1, "--batch-size", 8]


@pytest.fixture
def pets(fluvial, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "pets.npz", x=rng.normal(size=(30, 2)), y=np.array(["cat", "dog", "owl"] * 10))
    assert fluvial("train", "--data", tmp_path / "pets.npz", "--labels", "--out", tmp_path / "run", *TINY).status == 0
    return tmp_path / "run"


def test_classes_are_known_by_name(fluvial, pets, tmp_path):
    assert "0 cat, 1 dog, 2 owl" in fluvial("info", pets).out
    assert json.loads(fluvial("info", pets, "--json").out)["class_names"] == ["cat", "dog", "owl"]
    sidecars = []
    for label in ("dog", 1):
        options = ["--n", 3, "--steps", 2, "--out", tmp_path / f"{label}.npz"]
        assert fluvial("sample", pets, "--label", label, *options).status == 0
        sidecars.append(json.loads((tmp_path / f"{label}.json").read_text()))
    assert all((sidecar["label"], sidecar["label_name"]) == (1, "dog") for sidecar in sidecars)
    with np.load(tmp_path / "dog.npz") as named, np.load(tmp_path / "1.npz") as numbered:
        assert np.array_equal(named["x"], numbered["x"]) and named["labels"].tolist() == [1, 1, 1]
    error = fluvial("sample", pets, "--label", "dgo").error
    assert "0 cat, 1 dog, 2 owl" in error and "did you mean 'dog'?" in error
    assert "below the number of classes, 3" in fluvial("sample", pets, "--label", 3).error
    assert "--label must be" in fluvial("sample", pets, "--label", -1).error


def test_a_name_goes_before_a_number():
    assert class_number("1", ["3", "1"], 2) == 1 and class_number("0", ["3", "1"], 2) == 0
    assert class_number("4", [], 5) == 4
    assert list_classes([str(i) for i in range(30)]).endswith("19, ... 30 in all")


def test_columns_that_are_left_out_are_said(fluvial, tmp_path):
    rows = [f"row {i},{i},{i * i},{i % 2 == 0}" for i in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["name,a,b,even", *rows]) + "\n")
    run, out = tmp_path / "run", tmp_path / "x.npz"
    first = fluvial("train", "--data", tmp_path / "t.csv", "--out", run, *TINY).err.splitlines()[0]
    assert "t.csv" in first and "left out" in first and "'name', 'even'" in first
    shown = fluvial("info", run).out
    assert "a, b" in shown and "name, even (not numeric)" in shown
    values = json.loads(fluvial("info", run, "--json").out)
    assert (values["columns"], values["columns_left_out"]) == (["a", "b"], ["name", "even"])
    assert fluvial("sample", run, "--n", 3, "--steps", 1, "--out", out).status == 0
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert (sidecar["columns"], sidecar["columns_left_out"]) == (["a", "b"], ["name", "even"])
    (tmp_path / "u.csv").write_text("a,b\n" + "\n".join(f"{i},{i * i}" for i in range(20)))
    assert "left out" not in fluvial("train", "--data", tmp_path / "u.csv", "--out", tmp_path / "u", *TINY).err
