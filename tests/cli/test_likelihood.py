"""Densities are the library's, in the data's own units; what does not fit is refused before torch is imported."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial.cli import main
from fluvial.cli.likelihood import Likelihood
from fluvial.data import save_images
from fluvial.densities import dequantized
from fluvial.training import load_run

TINY = ["--steps", 4, "--width", 16, "--depth", 1, "--batch-size", 16]
FIXED = ["--solver", "rk4", "--steps", 5]
FEW = ["--solver", "midpoint", "--steps", 2]  # where the divergence of images is taken in full


def _arrays(path):
    with np.load(path) as arrays:
        return dict(arrays)


def _library(run, x, cond=None, *, steps=5, method="rk4"):
    return fv.log_prob(load_run(run).net, x, cond, steps=steps, method=method).log_prob.numpy()


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    rows = np.random.default_rng(0).normal(size=(60, 3)) * [1, 10, 0.01] + [0, 1000, 5]
    np.savetxt(folder / "t.csv", rows, delimiter=",", header="a,b,c", comments="")
    assert main(["train", "--data", str(folder / "t.csv"), "--out", str(folder / "run"), *map(str, TINY)]) == 0
    return folder


def test_densities_are_the_librarys(fluvial, moons_run, tmp_path):
    out = tmp_path / "x.npz"
    assert fluvial("likelihood", moons_run, "--n", 20, *FIXED, "--out", out).status == 0
    arrays, data = _arrays(out), load_run(moons_run).dataset()
    whole = {row: x for part in (data.train, data.held_out) for row, x in zip(part.rows.tolist(), part.x, strict=True)}
    x = torch.stack([whole[index] for index in arrays["index"].tolist()])
    assert arrays["log_prob"] == pytest.approx(_library(moons_run, x), abs=1e-5)
    assert arrays["bits_per_dim"] == pytest.approx(-arrays["log_prob"] / (2 * math.log(2)))
    assert arrays["split"].tolist() == ["train"] * 20 + ["held-out"] * 20
    assert set(arrays["index"][:20].tolist()) <= set(data.train.rows.tolist())
    assert "standard_error" not in arrays
    assert out.with_suffix(".png").is_file() and not (tmp_path / "x-lowest.png").exists()


def test_record(fluvial, moons_run, tmp_path):
    out = tmp_path / "x.npz"
    found = fluvial("likelihood", moons_run, "--n", 30, *FIXED, "--seed", 3, "--json", "--out", out)
    values = json.loads(found.out)
    assert values == json.loads(out.with_suffix(".json").read_text())
    arrays = _arrays(out)
    train = arrays["log_prob"][:30]
    part = values["parts"]["train"]
    assert part["log_prob"]["value"] == pytest.approx(train.mean())
    assert part["log_prob"]["low"] < train.mean() < part["log_prob"]["high"]
    assert values["gap"]["log_prob"]["value"] == pytest.approx(train.mean() - arrays["log_prob"][30:].mean())
    assert part["lowest"][0]["log_prob"] == pytest.approx(train.min()) and len(part["lowest"]) == 8
    assert part["lowest"][0]["index"] == arrays["index"][train.argmin()]
    run = load_run(moons_run)
    known = {"checkpoint_hash": run.checkpoint.hash, "seed": 3, "evaluations": 20, "divergence": "exact", "n": 30}
    assert known.items() <= values.items()
    assert values["data_hashes"]["train"] == run.data_hash


def test_tables_are_scored_in_their_own_units(fluvial, table_run, tmp_path):
    """By hand: the density of a column is that of its standardised values over the column's deviation."""
    out = tmp_path / "x.npz"
    options = [*FIXED, "--data", table_run / "t.csv", "--out", out]
    assert fluvial("likelihood", table_run / "run", *options).status == 0
    rows = np.loadtxt(table_run / "t.csv", delimiter=",", skiprows=1)
    data = load_run(table_run / "run").dataset()
    mean, std = rows[data.train.rows].mean(0), rows[data.train.rows].std(0)
    z = torch.from_numpy(((rows - mean) / std).astype(np.float32))
    expected = _library(table_run / "run", z) - np.log(std).sum()
    found = _arrays(out)
    assert found["log_prob"] == pytest.approx(expected, abs=1e-4) and found["index"].tolist() == list(range(60))
    assert "3 columns in their original units" in json.loads(out.with_suffix(".json").read_text())["units"]


def test_a_table_s_columns_are_known_by_name(fluvial, table_run, tmp_path):
    rows = np.loadtxt(table_run / "t.csv", delimiter=",", skiprows=1)
    np.savetxt(tmp_path / "other.csv", rows[:1, ::-1], delimiter=",", header="c,b,a", comments="")
    for name, data in (("one", tmp_path / "other.csv"), ("all", table_run / "t.csv")):
        out = tmp_path / f"{name}.npz"
        assert fluvial("likelihood", table_run / "run", *FIXED, "--data", data, "--out", out).status == 0
    # a single row, which has no deviation of its own
    assert _arrays(tmp_path / "one.npz")["log_prob"] == pytest.approx(
        _arrays(tmp_path / "all.npz")["log_prob"][:1], abs=1e-4
    )
    np.savetxt(tmp_path / "d.csv", rows, delimiter=",", header="a,b,d", comments="")
    error = fluvial("likelihood", table_run / "run", "--data", tmp_path / "d.csv").error
    assert "must have the columns of the training data (a, b, c): it has no column 'c'" in error
    np.savetxt(tmp_path / "e.csv", np.c_[rows, rows], delimiter=",", header="a,b,c,d,e,f", comments="")
    assert "it also has 'd'" in fluvial("likelihood", table_run / "run", "--data", tmp_path / "e.csv").error


def test_samples_come_back_with_the_density_that_they_were_drawn_with(fluvial, table_run, tmp_path):
    options = ["--n", 8, "--solver", "rk4", "--steps", 40]
    sampled = tmp_path / "s.npz"
    assert fluvial("sample", table_run / "run", *options, "--with-log-prob", "--out", sampled).status == 0
    assert (
        fluvial("likelihood", table_run / "run", *options, "--data", sampled, "--out", tmp_path / "l.npz").status == 0
    )
    assert _arrays(sampled)["log_prob"] == pytest.approx(_arrays(tmp_path / "l.npz")["log_prob"], abs=1e-3)


def test_images_are_dequantised_and_given_their_labels(fluvial, digits_run, tmp_path):
    def score(name, *options):
        command = ["--n", 2, *FEW, "--divergence", "exact", "--out", tmp_path / f"{name}.npz", *options]
        assert fluvial("likelihood", digits_run, *command).status == 0
        return _arrays(tmp_path / f"{name}.npz")

    own, none, three = score("own"), score("none", "--label", "none"), score("three", "--label", 3)
    whole = fv.load_dataset("digits", held_out=0)
    index = own["index"].tolist()
    x, labels = whole.take(index)
    noisy = dequantized(x, 17, index)
    assert own["label"].tolist() == labels.tolist()
    for found, cond in ((own, labels), (none, None), (three, torch.full((4,), 3))):
        expected = _library(digits_run, noisy, cond, steps=2, method="midpoint")
        assert found["log_prob"] == pytest.approx(expected, abs=1e-3)
    assert own["bits_per_dim"] == pytest.approx(-own["log_prob"] / (64 * math.log(2)) + math.log2(8))
    assert (tmp_path / "own-lowest.png").is_file()
    record = json.loads((tmp_path / "own.json").read_text())
    assert record["condition"] == "own labels" and record["parts"]["train"]["bits_per_dim_is_upper_bound"]


def test_guidance_is_the_librarys(fluvial, digits_run, tmp_path):
    out = tmp_path / "x.npz"
    options = ["--label", 3, "--guidance", 2, "--divergence", "exact", "--n", 2, "--data", "digits", "--out", out]
    assert fluvial("likelihood", digits_run, *FEW, *options).status == 0
    found = _arrays(out)
    x = dequantized(fv.load_dataset("digits", held_out=0).take(found["index"])[0], 17, found["index"].tolist())
    field = fv.Guided(load_run(digits_run).net, 2.0)
    expected = fv.log_prob(field, x, torch.full((2,), 3), steps=2, method="midpoint").log_prob.numpy()
    assert found["log_prob"] == pytest.approx(expected, abs=1e-3)


def test_random_directions_above_32_numbers(fluvial, digits_run, tmp_path):
    out = tmp_path / "x.npz"
    found = fluvial("likelihood", digits_run, "--n", 5, *FIXED, "--out", out)
    arrays, record = _arrays(out), json.loads(out.with_suffix(".json").read_text())
    assert (record["divergence"], record["probes"]) == ("hutchinson", 8)
    assert arrays["standard_error"].shape == (10,) and (arrays["standard_error"] > 0).all()
    assert "8 random directions" in found.out and "upper bound" in found.out and "±" in found.out
    assert record["parts"]["train"]["error_from_directions"] == pytest.approx(
        np.sqrt((arrays["standard_error"][:5] ** 2).mean() / 5)
    )
    out = tmp_path / "y.npz"
    assert fluvial("likelihood", digits_run, "--n", 5, *FIXED, "--batch-size", 2, "--out", out).status == 0
    assert _arrays(out)["log_prob"] == pytest.approx(arrays["log_prob"], abs=1e-3)


def test_folders_are_listed_by_file(fluvial, digits_run, tmp_path):
    images, labels = fv.load_dataset("digits").take(range(4))
    for k in range(4):
        save_images(images[k : k + 1], tmp_path / "photos" / str(int(labels[k])))
    command = ["likelihood", digits_run, *FIXED, "--data", f"folder:{tmp_path / 'photos'}"]
    found = fluvial(*command, "--out", tmp_path / "x.npz")
    assert found.status == 0 and "/000000.png" in found.out
    arrays = _arrays(tmp_path / "x.npz")
    assert sorted(arrays["filename"].tolist()) == sorted(f"{label}/000000.png" for label in labels.tolist())
    (tmp_path / "photos" / "0").rename(tmp_path / "photos" / "zero")
    assert "not trained on the class 'zero'" in fluvial(*command, "--out", tmp_path / "y.npz").error
    assert fluvial(*command, "--label", "none", "--out", tmp_path / "y.npz").status == 0


def test_mean_flows_and_runs_without_held_out_data(fluvial, tmp_path):
    run = tmp_path / "m"
    command = ["train", "--data", "moons", "--objective", "meanflow", "--held-out", 0, "--out", run]
    assert fluvial(*command, *TINY).status == 0
    found = fluvial("likelihood", run, "--n", 7, *FIXED)
    assert found.status == 0 and "held-out" not in found.out
    (file,) = (run / "likelihood").glob("*.npz")
    arrays = _arrays(file)
    x = load_run(run).dataset().take(arrays["index"])[0]
    assert arrays["log_prob"] == pytest.approx(_library(run, x), abs=1e-5)
    assert json.loads(file.with_suffix(".json").read_text())["gap"] is None
    assert "already exists" in fluvial("likelihood", run, "--n", 7, *FIXED).error
    assert fluvial("likelihood", run, "--n", 7, *FIXED, "--overwrite").status == 0


def test_a_diverging_field_is_one_line_and_writes_nothing(fluvial, digits_run, tmp_path):
    options = ["--label", 3, "--guidance", "1e38", "--n", 3, *FIXED, "--out", tmp_path / "x.npz"]
    found = fluvial("likelihood", digits_run, *options)
    assert found.status == 2 and "3 of 3 rows" in found.err.splitlines()[-1] and "t = 1" in found.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_never_replaced_unasked(fluvial, moons_run, tmp_path):
    (tmp_path / "x.png").write_text("mine")
    command = ["likelihood", moons_run, "--n", 3, *FIXED, "--out", tmp_path / "x.npz"]
    assert "x.png' already exists" in fluvial(*command).error
    assert (tmp_path / "x.png").read_text() == "mine" and not (tmp_path / "x.npz").exists()
    (tmp_path / "x.json").write_text("{}")
    assert "is another file" in fluvial(*command, "--overwrite").error


def test_bad_arguments(fluvial, digits_run, moons_run, table_run, tmp_path):
    np.save(tmp_path / "three.npy", np.zeros((4, 3)))
    np.savez(tmp_path / "three.npz", x=np.zeros((4, 3)))
    np.savez(tmp_path / "y.npz", y=np.zeros((4, 2)))
    cases = {
        (moons_run, "--n", 0): "--n must be at least 1, got 0",
        (moons_run, "--probes", 0): "--probes must be at least 1, got 0",
        (moons_run, "--seed", -1): "--seed must not be negative",
        (moons_run, "--divergence", "exact", "--probes", 2): "--probes are random directions",
        (moons_run, "--divergence", "exat"): "must be",
        (moons_run, "--solver", "rk4", "--rtol", "1e-3"): "--rtol needs --solver dopri5, got --solver rk4",
        (moons_run, "--steps", 5): "--steps needs a --solver with fixed steps",
        (moons_run, "--atol", "1e-30"): "--atol must be at least 1e-07",
        (moons_run, "--label", 1): "--label needs a run trained with --labels",
        (digits_run, "--label", "11"): "--label must be below the number of classes, 10, got 11",
        (digits_run, "--label", "none", "--guidance", 2): "--label none takes it away",
        (moons_run, "--out", "x.csv"): "--out must end in .npz, got 'x.csv'",
        (moons_run, "--data", "moon"): "did you mean 'moons'?",
        (moons_run, "--data", tmp_path / "no.npy"): "does not exist",
        (moons_run, "--data", tmp_path / "three.npy"): "must have data of shape (2,)",
        (moons_run, "--data", tmp_path / "three.npz"): "must have data of shape (2,)",
        (moons_run, "--data", tmp_path / "y.npz"): "under the key 'x'",
        (moons_run, "--data", "digits"): "must have data of shape (2,)",
        (moons_run, "--data", table_run / "t.csv"): "is a table",
        (tmp_path,): "is not a run folder",
    }
    for options, message in cases.items():
        assert message in fluvial("likelihood", *options).error, options


def test_what_does_not_fit_is_refused_without_torch(moons_run, table_run, tmp_path):
    np.save(tmp_path / "three.npy", np.zeros((4, 3)))
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    cases = [
        [str(moons_run), "--data", str(tmp_path / "three.npy")],
        [str(table_run / "run"), "--data", str(tmp_path / "d.csv")],
    ]
    code = f"import sys; from fluvial.cli import main; [main(['likelihood', *case]) for case in {cases}]; "
    code += "print(sorted({'torch', 'scipy', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]" and found.stderr.count("fluvial: error: --data") == 2


def test_solver_choices_are_those_with_a_velocity():
    import typing

    from fluvial.solvers import ADAPTIVE_METHODS, FIXED_METHODS

    assert set(typing.get_args(typing.get_type_hints(Likelihood)["solver"])) == {*FIXED_METHODS, *ADAPTIVE_METHODS}


@pytest.mark.slow
def test_a_run_that_memorises_shows_a_gap(fluvial, tmp_path):
    run = tmp_path / "memo"
    small = ["--steps", 1500, "--width", 64, "--depth", 2, "--batch-size", 64]
    assert fluvial("train", "--data", "digits", "--held-out", 1733, "--out", run, *small).status == 0
    found = fluvial("likelihood", run, "--n", 64, "--rtol", "1e-3", "--atol", "1e-3", "--json")
    gap = json.loads(found.out)["gap"]
    assert gap["log_prob"]["low"] > 20 and gap["sentence"].startswith("A sign of memorising")
