"""Samples do not depend on the batch; every output form is whole, has its sidecar, and is never overwritten unasked."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

import fluvial as fv
from fluvial.cli import main
from fluvial.cli.sample import Sample
from fluvial.conditions import Embedding, Tokens
from fluvial.data import save_images, to_uint8
from fluvial.fields import ExactField, Guided, Hybrid
from fluvial.randomness import noise
from fluvial.solvers import ADAPTIVE_METHODS, FIXED_METHODS, JUMP_METHODS, solve
from fluvial.training import load_run


def _array(path):
    with np.load(path) as arrays:
        return arrays["x"]


def test_solver_choices_are_those_of_the_library():
    import typing

    choices = typing.get_args(typing.get_type_hints(Sample)["solver"])
    assert set(choices) == {*FIXED_METHODS, *ADAPTIVE_METHODS, *JUMP_METHODS}


def test_batch_size_and_number_change_no_bit(fluvial, digits_run, tmp_path):
    def draw(name, *options):
        assert fluvial("sample", digits_run, "--steps", 4, "--out", tmp_path / name, *options).status == 0
        return _array(tmp_path / name)

    whole = draw("whole.npz", "--n", 45)
    for size in (1, 7, 13, 44):
        assert np.array_equal(draw(f"{size}.npz", "--n", 45, "--batch-size", size), whole)
    assert np.array_equal(draw("few.npz", "--n", 5), whole[:5])
    assert not np.array_equal(draw("other.npz", "--n", 45, "--seed", 1), whole)


def test_samples_are_those_of_the_library(fluvial, digits_run, tmp_path):
    out = tmp_path / "x.npz"
    fluvial("sample", digits_run, "--n", 8, "--solver", "rk4", "--steps", 3, "--seed", 5, "--out", out)
    run = load_run(digits_run)
    expected = solve(run.net, noise(5, 0, 8, (1, 8, 8)), steps=3, method="rk4").x
    assert np.array_equal(_array(out), expected.numpy())


def test_sidecar(fluvial, digits_run, tmp_path):
    out = tmp_path / "deep" / "x.png"
    outcome = fluvial(
        "sample", digits_run, "--n", 9, "--steps", 3, "--label", 2, "--guidance", 1.5, "--json", "--out", out
    )
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert json.loads(outcome.out) == sidecar
    state = load_run(digits_run).checkpoint.folder / "state.json"
    assert sidecar["checkpoint_hash"] == hashlib.sha256(state.read_bytes()).hexdigest()
    known = {
        "step": 4,
        "n": 9,
        "solver": "midpoint",
        "steps": 3,
        "seed": 0,
        "label": 2,
        "guidance": 1.5,
        "file": "x.png",
    }
    assert known.items() <= sidecar.items()
    assert sidecar["evaluations"] == 6 and "127.5" in sidecar["uint8"]


def test_png_grid_shows_the_array(fluvial, digits_run, tmp_path):
    for name in ("a.npz", "b.png"):
        assert fluvial("sample", digits_run, "--n", 4, "--steps", 2, "--out", tmp_path / name).status == 0
    with Image.open(tmp_path / "b.png") as picture:
        grid = np.asarray(picture)
    first = to_uint8(torch.from_numpy(_array(tmp_path / "a.npz"))[0, 0]).numpy()
    scale = 6  # 8 pixels are enlarged to 48, after a line of 2
    assert np.array_equal(grid[2 : 2 + 48 : scale, 2 : 2 + 48 : scale], first)


def test_folder_of_images(fluvial, digits_run, tmp_path):
    out = tmp_path / "many"
    assert fluvial("sample", digits_run, "--n", 3, "--steps", 2, "--out", out).status == 0
    assert [file.name for file in sorted(out.iterdir())] == ["000000.png", "000001.png", "000002.png"]
    assert (tmp_path / "many.json").is_file()
    assert fluvial("sample", digits_run, "--n", 2, "--steps", 2, "--out", out, "--overwrite").status == 0
    assert len(list(out.iterdir())) == 2


def test_a_folder_of_other_files_is_never_replaced(fluvial, digits_run, tmp_path):
    out = tmp_path / "photos"
    out.mkdir()
    assert fluvial("sample", digits_run, "--n", 1, "--steps", 1, "--out", out).status == 0
    (out / "wedding.png").write_text("dear")
    (tmp_path / "photos.json").unlink()
    for option in ([], ["--overwrite"]):
        assert "'wedding.png'" in fluvial("sample", digits_run, "--n", 1, "--out", out, *option).error
    assert (out / "wedding.png").read_text() == "dear"
    assert fluvial("sample", digits_run, "--out", digits_run, "--overwrite").status == 2


def test_labels_are_stored(fluvial, digits_run, tmp_path):
    fluvial("sample", digits_run, "--n", 3, "--steps", 2, "--label", 7, "--out", tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["labels"].tolist() == [7, 7, 7] and arrays["x"].dtype == np.float32


def test_points_become_a_scatter_plot(fluvial, moons_run, tmp_path):
    assert fluvial("sample", moons_run, "--n", 20, "--steps", 2, "--out", tmp_path / "x.png").status == 0
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (1000, 1000)


def test_tables_return_in_their_own_units(fluvial, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3)) * [1, 10, 100] + [0, 1000, -5000]
    np.savetxt(tmp_path / "t.csv", rows, delimiter=",", header="a,b,c", comments="")
    run, out = tmp_path / "run", tmp_path / "x.npz"
    tiny = ["--steps", 2, "--width", 8, "--depth", 1, "--batch-size", 8]
    assert fluvial("train", "--data", tmp_path / "t.csv", "--out", run, *tiny).status == 0
    assert fluvial("sample", run, "--n", 50, "--hybrid-tau", 0.999, "--steps", 20, "--out", out).status == 0
    # with the exact field nearly to the end, all but samples midway between two rows lie on one
    distance = np.abs((_array(out)[:, None] - rows) / rows.std(0)).max(2).min(1)
    assert np.median(distance) < 0.01


def test_default_output_is_in_the_run(fluvial, tmp_path):
    run = tmp_path / "run"
    tiny = ["--steps", 2, "--width", 8, "--depth", 1, "--batch-size", 8]
    assert fluvial("train", "--data", "moons", "--out", run, *tiny).status == 0
    outcome = fluvial("sample", run, "--n", 4, "--steps", 2)
    (picture,) = (run / "samples").glob("*.png")
    assert str(picture) in outcome.out and picture.with_suffix(".json").is_file()
    assert "already exists" in fluvial("sample", run, "--n", 4, "--steps", 2).error
    assert fluvial("sample", run, "--n", 4, "--steps", 2, "--seed", 1).status == 0


def test_existing_files_need_overwrite(fluvial, digits_run, tmp_path):
    out = tmp_path / "x.npz"
    out.write_bytes(b"mine")
    assert "already exists" in fluvial("sample", digits_run, "--n", 2, "--steps", 1, "--out", out).error
    assert out.read_bytes() == b"mine"
    assert fluvial("sample", digits_run, "--n", 2, "--steps", 1, "--out", out, "--overwrite").status == 0
    assert len(_array(out)) == 2
    # another output with the same sidecar would take this one's record away
    assert "x.json" in fluvial("sample", digits_run, "--n", 2, "--steps", 1, "--out", tmp_path / "x.png").error


def test_hybrid_follows_the_exact_field_first(fluvial, digits_run, tmp_path):
    out = tmp_path / "x.npz"
    fluvial("sample", digits_run, "--n", 8, "--steps", 10, "--hybrid-tau", 0.6, "--out", out)
    run = load_run(digits_run)
    field = Hybrid(ExactField(run.dataset().train.x), run.net, 0.6)
    expected = solve(field, noise(0, 0, 8, (1, 8, 8)), steps=10, method="midpoint").x
    assert np.array_equal(_array(out), expected.numpy())


def test_guidance_is_the_librarys(fluvial, digits_run, tmp_path):
    out = tmp_path / "x.npz"
    options = ["--n", 8, "--steps", 5, "--label", 3, "--guidance", 4]
    fluvial("sample", digits_run, *options, "--out", out)
    field = Guided(load_run(digits_run).net, 4.0)
    expected = solve(field, noise(0, 0, 8, (1, 8, 8)), steps=5, method="midpoint", cond=torch.full((8,), 3)).x
    assert np.array_equal(_array(out), expected.numpy())


def test_samples_that_diverge_are_an_error(fluvial, digits_run, tmp_path):
    out = tmp_path / "x.npz"
    options = ["--n", 2, "--label", 3, "--guidance", "1e38"]
    assert fluvial("sample", digits_run, *options, "--out", out).status == 2
    assert not out.exists() and not out.with_suffix(".json").exists()
    assert list(tmp_path.iterdir()) == []


def test_tolerances_below_float32_are_refused(fluvial, digits_run):
    for option in ("--rtol", "--atol"):
        error = fluvial("sample", digits_run, "--n", 4, "--solver", "dopri5", option, "1e-30").error
        assert f"{option} must be at least 1e-07" in error and "rows" not in error


def test_help_names_the_files_that_are_written():
    assert "000000.png, 000001.png" in Sample.EPILOGUE


def test_adaptive_solver_matches_fixed_steps(fluvial, digits_run, tmp_path):
    fluvial("sample", digits_run, "--n", 4, "--solver", "dopri5", "--out", tmp_path / "a.npz")
    fluvial("sample", digits_run, "--n", 4, "--solver", "rk4", "--steps", 100, "--out", tmp_path / "b.npz")
    assert _array(tmp_path / "a.npz") == pytest.approx(_array(tmp_path / "b.npz"), abs=1e-3)


def test_mean_flows_sample_in_one_evaluation(fluvial, moons_run, tmp_path):
    run = tmp_path / "m"
    tiny = ["--steps", 4, "--width", 16, "--depth", 1, "--batch-size", 16]
    assert fluvial("train", "--data", "moons", "--objective", "meanflow", "--out", run, *tiny).status == 0
    values = json.loads(fluvial("sample", run, "--solver", "meanflow", "--out", tmp_path / "x.npz", "--json").out)
    assert values["steps"] == 1 and values["evaluations"] == 1
    more = fluvial("sample", run, "--solver", "meanflow", "--steps", 3, "--out", tmp_path / "y.npz", "--json").out
    assert json.loads(more)["evaluations"] == 3
    assert "share 0.5, power 0" in fluvial("info", run).out
    options = ["--solver", "meanflow", "--hybrid-tau", 0.5, "--out", tmp_path / "z.npz"]
    assert "--hybrid-tau changes the velocity" in fluvial("sample", run, *options).error
    assert "needs a run trained with --objective meanflow" in fluvial("sample", moons_run, "--solver", "meanflow").error


def test_every_class_in_one_grid(fluvial, digits_run, tmp_path):
    options = ["--steps", 2, "--label", "all", "--n", 3]
    assert fluvial("sample", digits_run, *options, "--out", tmp_path / "x.npz").status == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["labels"].tolist() == np.repeat(np.arange(10), 3).tolist()
        whole = arrays["x"]
    assert fluvial("sample", digits_run, *options, "--out", tmp_path / "grid.png").status == 0
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width < picture.height / 3  # three columns, ten rows
    run = load_run(digits_run)
    expected = solve(run.net, noise(0, 0, 32, (1, 8, 8)), steps=2, method="midpoint", cond=torch.arange(32) // 3 % 10).x
    assert np.array_equal(whole[:24], expected[:24].numpy())
    assert json.loads((tmp_path / "x.json").read_text())["label"] == "all"


@pytest.fixture(scope="module")
def reference_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "references"
    tiny = ["--steps", "4", "--width", "8", "--depth", "1", "--batch-size", "16"]
    options = ["--net", "unet", "--reference-size", "3", "--without-classes", "8,9"]
    assert main(["train", "--data", "digits", *options, "--out", str(folder), *tiny]) == 0
    return folder


def test_samples_in_the_likeness_of_a_folder(fluvial, reference_run, tmp_path):
    images = fv.load_dataset("digits").take(range(4))[0]
    save_images(images, tmp_path / "likes")
    out = tmp_path / "x.npz"
    options = ["--n", 8, "--steps", 2, "--reference", tmp_path / "likes", "--guidance", 1.5, "--out", out]
    assert fluvial("sample", reference_run, *options).status == 0
    likes = Tokens.of(to_uint8(images).float()[None].expand(8, -1, -1, -1, -1) / 127.5 - 1)
    field = Guided(load_run(reference_run).net, 1.5)
    with torch.no_grad():
        expected = solve(field, noise(0, 0, 8, (1, 8, 8)), steps=2, method="midpoint", cond=likes).x
    np.testing.assert_allclose(_array(out), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert json.loads(out.with_suffix(".json").read_text())["references"] == 4


def test_conditions_that_a_run_was_not_trained_for(fluvial, digits_run, reference_run, moons_run, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        (moons_run, "--label", 1): "--label needs a run trained with --labels",
        (digits_run, "--prompt", "a"): "--prompt needs a run trained with --captions",
        (digits_run, "--reference", tmp_path): "--reference needs a run trained with --reference-size",
        (digits_run, "--label", 1, "--reference", tmp_path): "give --label or --reference, not both",
        (reference_run, "--reference", tmp_path / "no"): "does not exist: give a folder of images",
        (reference_run, "--reference", tmp_path / "empty"): "holds no images",
        (reference_run, "--guidance", 2): "--guidance needs --reference",
    }
    for options, message in cases.items():
        assert message in fluvial("sample", *options, "--out", tmp_path / "x.png").error


def test_a_prompt_is_what_its_caption_was(fluvial, tmp_path, monkeypatch):
    from fluvial.data import text

    def embed(texts, encoder):
        return np.stack([np.eye(4, dtype=np.float32)[len(line) % 4] for line in texts])

    monkeypatch.setattr(text, "embed_sentences", embed)
    monkeypatch.setattr(text, "require_encoder", lambda encoder: None)
    pictures, run, out = tmp_path / "pictures", tmp_path / "run", tmp_path / "x.npz"
    files = save_images(fv.load_dataset("digits").take(range(12))[0], pictures)
    lines = [f"{file.name},{'a' * (1 + number % 4)}" for number, file in enumerate(files)]
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption", *lines]))
    tiny = ["--steps", 3, "--width", 8, "--depth", 1, "--batch-size", 4]
    captions = ["--captions", tmp_path / "captions.csv"]
    assert fluvial("train", "--data", f"folder:{pictures}", *captions, "--out", run, *tiny).status == 0
    options = ["--n", 8, "--steps", 2, "--guidance", 2, "--out", out]
    assert fluvial("sample", run, "--prompt", "a" * 6, *options).status == 0
    cond = Embedding.of(torch.eye(4)[2].expand(8, 4))
    with torch.no_grad():
        expected = solve(
            Guided(load_run(run).net, 2.0), noise(0, 0, 8, (1, 8, 8)), steps=2, method="midpoint", cond=cond
        ).x
    assert np.array_equal(_array(out), expected.numpy())
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert (sidecar["prompt"], sidecar["encoder"], sidecar["label"]) == ("aaaaaa", "all-MiniLM-L6-v2", None)
    assert "must hold a text" in fluvial("sample", run, "--prompt", " ").error
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption", *lines[1:]]))
    error = fluvial("train", "--data", f"folder:{pictures}", *captions, "--out", tmp_path / "other", *tiny).error
    assert "1 of 12 images have no caption, the first is '000000.png'" in error


def test_samples_with_log_prob_are_the_same_samples(fluvial, digits_run, moons_run, tmp_path):
    """Up to the rounding of float32: the points are carried in float64 between evaluations."""
    for run, shape in ((digits_run, (9, 1, 8, 8)), (moons_run, (9, 2))):
        options = ["--n", 9, "--steps", 6, "--seed", 2]
        for name, more in (
            ("plain", []),
            ("dense", ["--with-log-prob"]),
            ("parts", ["--with-log-prob", "--batch-size", 8]),
        ):
            out = tmp_path / f"{name}{len(shape)}.npz"
            assert fluvial("sample", run, *options, *more, "--out", out).status == 0
        found, parts = (dict(np.load(tmp_path / f"{name}{len(shape)}.npz")) for name in ("dense", "parts"))
        assert found["x"].shape == shape
        assert found["x"] == pytest.approx(_array(tmp_path / f"plain{len(shape)}.npz"), abs=1e-5)
        assert found["log_prob"] == pytest.approx(parts["log_prob"], abs=1e-3)
        assert found["bits_per_dim"] == pytest.approx(-found["log_prob"] / (found["x"][0].size * np.log(2)))
        assert ("log_prob_standard_error" in found) == (run is digits_run)


def test_log_prob_is_the_librarys(fluvial, moons_run, tmp_path):
    out = tmp_path / "x.npz"
    options = ["--n", 8, "--solver", "rk4", "--steps", 5, "--with-log-prob", "--out", out]
    assert fluvial("sample", moons_run, *options).status == 0
    expected = fv.sample_with_log_prob(load_run(moons_run).net, noise(0, 0, 8, (2,)), steps=5, method="rk4")
    with np.load(out) as arrays:
        assert arrays["log_prob"] == pytest.approx(expected.density.log_prob.numpy(), abs=1e-6)
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert sidecar["mean_log_prob"] == pytest.approx(float(expected.density.log_prob.mean()))
    assert (sidecar["divergence"], sidecar["probes"], sidecar["evaluations"]) == ("exact", None, 20)
    assert "log_prob" not in sidecar


def test_log_prob_beside_pictures_conditions_and_hybrids(fluvial, digits_run, moons_run, tmp_path):
    options = ["--n", 3, "--steps", 2, "--label", 4, "--guidance", 2, "--with-log-prob"]
    for name in ("x.png", "folder", "y.npz"):
        assert fluvial("sample", digits_run, *options, "--out", tmp_path / name).status == 0
    with np.load(tmp_path / "y.npz") as arrays:
        expected = arrays["log_prob"].tolist()
    for name in ("x.json", "folder.json"):
        values = json.loads((tmp_path / name).read_text())
        assert values["log_prob"] == pytest.approx(expected) and len(values["log_prob_standard_error"]) == 3
    out = tmp_path / "h.npz"
    command = ["--n", 8, "--steps", 10, "--solver", "rk4", "--hybrid-tau", 0.5, "--with-log-prob", "--out", out]
    assert fluvial("sample", moons_run, *command).status == 0
    run = load_run(moons_run)
    field = Hybrid(ExactField(run.dataset().train.x), run.net, 0.5)
    hybrid = fv.sample_with_log_prob(field, noise(0, 0, 8, (2,)), steps=10, method="rk4")
    with np.load(out) as arrays:
        assert arrays["log_prob"] == pytest.approx(hybrid.density.log_prob.numpy(), abs=1e-4)


def test_jumps_have_no_log_prob(fluvial, tmp_path):
    run = tmp_path / "m"
    tiny = ["--steps", 2, "--width", 16, "--depth", 1, "--batch-size", 16]
    assert fluvial("train", "--data", "moons", "--objective", "meanflow", "--out", run, *tiny).status == 0
    error = fluvial("sample", run, "--solver", "meanflow", "--with-log-prob").error
    assert error == "--with-log-prob needs another --solver: meanflow jumps along averages of the velocity"
    options = ["--n", 4, "--steps", 3, "--with-log-prob", "--out", tmp_path / "x.npz"]
    assert fluvial("sample", run, *options).status == 0
