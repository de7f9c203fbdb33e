"""What samples may replace, whatever --overwrite says; names that are links, in capitals or with dots; full disks."""

import json

import numpy as np
import pytest

from fluvial.cli.folders import written_aside

FEW = ["--n", 2, "--steps", 1]


@pytest.mark.parametrize("content", ['{"name": "package"}', '{"fluvial": "0.1.0"}', "[1]", "no json"])
def test_a_foreign_json_is_never_replaced(fluvial, digits_run, tmp_path, content):
    (tmp_path / "package.json").write_text(content)
    for option in ([], ["--overwrite"]):
        error = fluvial("sample", digits_run, *FEW, "--out", tmp_path / "package.png", *option).error
        assert "package.json" in error and "--out" in error
    assert [file.name for file in tmp_path.iterdir()] == ["package.json"]
    assert (tmp_path / "package.json").read_text() == content


def test_a_sidecar_is_replaced(fluvial, digits_run, tmp_path):
    for seed in (0, 1):
        options = ["--seed", seed, "--out", tmp_path / "x.png", "--overwrite"]
        assert fluvial("sample", digits_run, *FEW, *options).status == 0
        assert json.loads((tmp_path / "x.json").read_text())["seed"] == seed


def test_a_link_stays_and_leads_to_the_samples(fluvial, digits_run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    assert fluvial("sample", digits_run, *FEW, "--out", tmp_path / "link").status == 0
    assert (tmp_path / "link").is_symlink() and len(list((tmp_path / "elsewhere").iterdir())) == 2
    (tmp_path / "x.npz").symlink_to("elsewhere/data")
    assert fluvial("sample", digits_run, *FEW, "--out", tmp_path / "x.npz").status == 0
    assert (tmp_path / "x.npz").is_symlink() and len(np.load(tmp_path / "elsewhere" / "data")["x"]) == 2


def test_suffixes_in_capitals(fluvial, digits_run, tmp_path):
    for name in ("x.PNG", "y.NPZ"):
        assert fluvial("sample", digits_run, *FEW, "--out", tmp_path / name).status == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.PNG", "x.json", "y.NPZ", "y.json"]


def test_a_folder_may_have_a_dot(fluvial, digits_run, tmp_path):
    for name in ("digits.v1", "digits.v2"):
        assert fluvial("sample", digits_run, *FEW, "--out", tmp_path / name).status == 0
        assert len(list((tmp_path / name).glob("*.png"))) == 2 and (tmp_path / f"{name}.json").is_file()
    for name in ("x.jpg", "x.npy", "x.pgn"):
        assert "--out must end in .png, .npz" in fluvial("sample", digits_run, "--out", tmp_path / name).error


def test_a_full_disk_is_named(tmp_path):
    (tmp_path / "x.npz").write_text("old")
    with pytest.raises(OSError, match="not written") as caught, written_aside(tmp_path / "x.npz"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "x.npz") and caught.value.errno == 28
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"] and (tmp_path / "x.npz").read_text() == "old"
