"""``fluvial support``: train, sample and evaluate from the command line, and what is refused in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial.cli import main
from fluvial.randomness import noise
from fluvial.support import load_support_run
from fluvial.training.logs import read_metrics

TINY = ["--width", "8", "--heads", "2", "--blocks", "1", "--steps", "4", "--batch-size", "3", "--points", "8"]
TINY += ["--bank", "12", "--m", "6"]


@pytest.fixture(scope="module")
def plane_run(tmp_path_factory):
    """A net of moons in the plane; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "plane"
    assert main(["support", "train", "--tasks", "moons", "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Five classes of 20 rows with 4 features."""
    file = tmp_path_factory.mktemp("features") / "features.npz"
    labels = np.repeat(np.arange(5), 20)
    values = np.random.default_rng(0).normal(size=(100, 4)) + labels[:, None]
    np.savez(file, features=values.astype(np.float32), labels=labels)
    return file


@pytest.fixture(scope="module")
def class_run(tmp_path_factory, features):
    """A net of the classes of ``features`` in 3 components."""
    folder = tmp_path_factory.mktemp("runs") / "classes"
    assert main(["support", "train", "--tasks", str(features), "--dim", "3", "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture
def examples(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, support=np.random.default_rng(1).normal(size=(7, 2)).astype(np.float32))
    return file


def test_training_writes_a_run_and_says_what_is_next(fluvial, tmp_path):
    outcome = fluvial("support", "train", "--tasks", "shells", "--dim", 4, "--out", tmp_path / "run", *TINY)
    assert outcome.status == 0 and f"next: fluvial support evaluate {tmp_path / 'run'}" in outcome.out
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [4]
    result = json.loads(
        fluvial("support", "train", "--resume", tmp_path / "run", "--json").out
    )  # finished: nothing is left to do
    assert result["step"] == 4 and result["checkpoint"].endswith("step-00000004")


def test_samples_are_those_of_the_library_and_have_a_sidecar(fluvial, plane_run, examples, tmp_path):
    out = tmp_path / "x.npz"
    outcome = fluvial("support", "sample", plane_run, "--support", examples, "--n", 20, "--steps", 3, "--out", out)
    assert outcome.status == 0 and "20 samples from 7 examples, 6 evaluations each" in outcome.out
    support = torch.from_numpy(np.load(examples)["support"])
    run = load_support_run(plane_run)
    with torch.no_grad():
        expected = fv.solve(run.net, noise(0, 0, 20, (2,))[None], steps=3, method="heun", cond=support[None]).x[0]
    with np.load(out) as arrays:
        assert np.array_equal(arrays["x"], expected.numpy())
        assert np.array_equal(arrays["support"], support.numpy())
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert (
        sidecar["m"] == 7 and sidecar["m_in_training"] == [6, 6] and sidecar["checkpoint_hash"] == run.checkpoint.hash
    )
    nearest = torch.cdist(expected, support).amin(1).mean()
    assert sidecar["nearest_example"] == pytest.approx(float(nearest))
    assert "already exists" in fluvial("support", "sample", plane_run, "--support", examples, "--out", out).error


def test_the_exact_field_copies_its_support(fluvial, plane_run, examples, tmp_path):
    out = tmp_path / "x.npz"
    fluvial("support", "sample", plane_run, "--support", examples, "--n", 400, "--exact", "--out", out)
    sidecar = json.loads(out.with_suffix(".json").read_text())
    # The mean of a chi with two degrees of freedom is sqrt(pi / 2).
    assert sidecar["nearest_example"] == pytest.approx(0.01 * (np.pi / 2) ** 0.5, rel=0.15)
    assert sidecar["nearest_other"] > 10 * sidecar["nearest_example"]


def test_points_in_the_plane_have_a_picture_and_others_have_none(fluvial, plane_run, class_run, examples, tmp_path):
    assert fluvial("support", "sample", plane_run, "--support", examples, "--out", tmp_path / "x.png").status == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    np.save(tmp_path / "three.npy", np.ones((5, 3)) * np.arange(5)[:, None])
    outcome = fluvial("support", "sample", class_run, "--support", tmp_path / "three.npy", "--out", tmp_path / "y.png")
    assert "points of dimension 3 have no picture" in outcome.error
    assert not (tmp_path / "y.png").exists() and not (tmp_path / "y.json").exists()


def test_features_are_projected_and_come_back_as_features(fluvial, class_run, features, tmp_path):
    rows = np.load(features)["features"][:8]
    np.savez(tmp_path / "mine.npz", features=rows)
    out = tmp_path / "x.npz"
    outcome = fluvial(
        "support", "sample", class_run, "--support", tmp_path / "mine.npz", "--exact", "--n", 50, "--out", out
    )
    assert outcome.status == 0
    with np.load(out) as arrays:
        x, support = arrays["x"], arrays["support"]
    assert x.shape == (50, 4) and np.array_equal(support, rows)
    # Copies of the support, up to the component that was left out and the noise of sigma_min.
    projection = load_support_run(class_run).family().projection
    kept = projection.decode(projection.encode(rows))
    assert np.linalg.norm(x[:, None] - kept[None], axis=2).min(1).max() < 0.3


@pytest.mark.slow
def test_evaluation_compares_with_the_plug_in(fluvial, plane_run, tmp_path):
    options = ["--tasks", 4, "--points", 60, "--steps", 3, "--out", tmp_path / "e.json"]
    outcome = fluvial("support", "evaluate", plane_run, *options)
    assert outcome.status == 0 and "plug-in / learned:" in outcome.out and "floor" in outcome.out
    assert "the plug-in copies its support: nearest example at 0.01" in outcome.out
    values = json.loads((tmp_path / "e.json").read_text())
    assert values["settings"]["family"] == "moons" and len(values["tasks"]["learned"]["mmd2"]) == 4
    options = ["--tasks", 4, "--points", 60, "--steps", 30, "--family", "rings", "--exact", "--json"]
    other = fluvial("support", "evaluate", plane_run, *options)
    values = json.loads(other.out)
    assert (values["settings"]["family"], values["field"]) == ("rings", "exact")
    assert values["ratio"]["plug_in"]["value"] == pytest.approx(1, abs=0.5)


def test_real_classes_are_evaluated_on_classes_that_the_net_has_not_seen(fluvial, class_run):
    outcome = fluvial("support", "evaluate", class_run, "--tasks", 3, "--points", 10, "--steps", 2)
    assert outcome.status == 0 and "all tasks come from one class" in outcome.out


@pytest.mark.slow
def test_experiments_go_on_from_what_is_there(fluvial, tmp_path):
    command = ["support", "experiments", "--budget", 0.001, "--only", "held-out", "--tasks", 2, "--out", tmp_path / "x"]
    first = fluvial(*command)
    assert first.status == 0 and "A family held out of training" in first.out
    written = {file.name: file.read_bytes() for file in (tmp_path / "x").glob("without-*.json")}
    assert sorted(written) == [f"without-{name}.json" for name in ("gmm", "moons", "rings", "spirals")]
    (tmp_path / "x" / "without-gmm.json").unlink()
    again = fluvial(*command, "--json")
    assert {file.name: file.read_bytes() for file in (tmp_path / "x").glob("without-*.json")} == written
    tables = json.loads(again.out)["tables"]
    assert [table["title"][:10] for table in tables] == ["Effective ", "A family h"]
    assert (tmp_path / "x" / "experiments.md").read_text().count("###") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--tasks", "shels", "--out", "r"], "unknown task family 'shels': did you mean 'shells'?"),
        (["train", "--m", "0", "--out", "r"], "--m must be at least 1, got 0"),
        (["train", "--m", "5", "--least-m", "6", "--out", "r"], "--least-m must be at most m = 5, got 6"),
        (["train", "--resume", "no", "--m", "5"], "--m cannot be given with --resume"),
        (["train", "--resume", "no"], "no is not a run folder: there is no such folder"),
        (["sample", "no", "--support", "x.npz"], "no is not a run folder: there is no such folder"),
        (["evaluate", "no", "--tasks", "1"], "--tasks must be at least 2, got 1"),
        (["experiments", "--budget", "0", "--out", "x"], "--budget must be a positive number of minutes, got 0"),
        (
            ["experiments", "--budget", "1", "--out", "x", "--only", "shell"],
            "unknown comparison 'shell' (did you mean 'shells'?)",
        ),
        (["trian", "--out", "r"], "unknown command 'support trian' (did you mean 'support train'?)"),
        ([], "unknown command 'support' (did you mean 'support train'?)"),
    ],
)
def test_mistakes_are_one_line(fluvial, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fluvial("support", *arguments).error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"support": np.zeros((0, 2))}, "examples must have shape (m, d), neither of them 0, got (0, 2)"),
        ({"support": np.eye(5)}, "examples have dimension 5, and"),
        ({"support": np.repeat(np.eye(2), 2, 0)}, "2 of 4 examples repeat another one: give each once"),
        ({"support": np.full((3, 2), np.nan)}, "3 of 3 examples hold NaN or infinite values"),
        ({"support": np.array([["a", "b"]])}, "examples must be real numbers"),
        ({"a": np.eye(2), "b": np.zeros((3, 2))}, "must have the key 'support', 'x' or 'features'"),
    ],
)
def test_examples_that_cannot_be_used_are_named(fluvial, plane_run, content, message, tmp_path):
    np.savez(tmp_path / "mine.npz", **content)
    outcome = fluvial("support", "sample", plane_run, "--support", tmp_path / "mine.npz", "--out", tmp_path / "x.npz")
    assert message in outcome.error
    assert not (tmp_path / "x.npz").exists()


def test_a_run_of_another_command_is_told(fluvial, moons_run, plane_run, examples):
    outcome = fluvial("support", "sample", moons_run, "--support", examples)
    assert "is a run of fluvial train, and one of fluvial support train is needed" in outcome.error
    assert "is a run of fluvial support train" in fluvial("sample", plane_run).error


def test_names_and_settings_are_refused_before_torch_is_imported():
    code = (
        "import sys; from fluvial.cli import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules, 'torch was imported'; sys.exit(status)"
    )
    arguments = ["support", "train", "--tasks", "rngs", "--out", "x"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "did you mean 'rings'?" in done.stderr


def test_info_tells_of_a_support_run(fluvial, plane_run):
    outcome = fluvial("info", plane_run)
    assert outcome.status == 0 and "moons, dimension 2" in outcome.out and "4 of 4" in outcome.out
    values = json.loads(fluvial("info", plane_run, "--json").out)
    assert (values["dim"], values["step"], values["finished"]) == (2, 4, True)


def test_doubts_about_samples_are_told(fluvial, plane_run, tmp_path):
    def warned(rows):
        np.save(tmp_path / "mine.npy", rows)
        out = tmp_path / "x.npz"
        return fluvial(
            "support", "sample", plane_run, "--support", tmp_path / "mine.npy", "--out", out, "--overwrite"
        ).err

    near = np.random.default_rng(0).normal(size=(6, 2)) * 3
    assert "fluvial:" not in warned(near)
    assert "was trained on supports of 6 examples, and 2 are given" in warned(near[:2])
    assert "the samples are far from the examples" in warned(near / 1000 + 50)


def test_what_would_never_end_is_refused(fluvial, plane_run, examples, tmp_path):
    outcome = fluvial("support", "sample", plane_run, "--support", examples, "--n", 10**13)
    assert outcome.error.startswith("--n 10000000000000 would take")
    assert "--points must be at most" in fluvial("support", "evaluate", plane_run, "--points", 10**12).error
    assert (
        "--dim must be at most"
        in fluvial("support", "train", "--tasks", "gmm", "--dim", 10**9, "--out", tmp_path / "r").error
    )
    assert (
        "which it would replace"
        in fluvial("support", "sample", plane_run, "--support", examples, "--out", examples, "--overwrite").error
    )


def test_real_families_are_loaded_before_the_first_training(fluvial, tmp_path):
    np.savez(tmp_path / "few.npz", features=np.random.default_rng(0).normal(size=(60, 20)), labels=np.arange(60) % 4)
    command = ["support", "experiments", "--budget", 0.001, "--only", "real", "--tasks", 2, "--out", tmp_path / "x"]
    outcome = fluvial(*command, "--real", f"digits,{tmp_path / 'few.npz'}")
    assert "few.npz: label 0 has 15 members, tasks with m = 50 need at least 51" in outcome.error
    assert list((tmp_path / "x").iterdir()) == []
    assert "--real takes classes of data" in fluvial(*command, "--real", "gmm").error


def test_a_run_of_a_file_works_from_any_directory(fluvial, features, tmp_path, monkeypatch):
    monkeypatch.chdir(features.parent)
    options = ["--tasks", features.name, "--dim", 3, "--out", tmp_path / "run", *TINY]
    assert fluvial("support", "train", *options).status == 0
    monkeypatch.chdir(tmp_path)
    assert load_support_run(tmp_path / "run").family().dim == 3


def test_a_run_without_a_name_is_named_after_its_tasks(fluvial, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fluvial("support", "train", "--tasks", "shells", "--dim", 3, *TINY).status == 0
    assert load_support_run("runs/shells-3-m6").dim == 3
    assert "already holds a run" in fluvial("support", "train", "--tasks", "shells", "--dim", 3, *TINY).error
