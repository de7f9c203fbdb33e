"""``fluvial audit`` as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fluvial.cli.audit import EXTRACTORS, MEASUREMENTS, Audit
from fluvial.cli.audit_subject import not_comparable
from fluvial.data import load_dataset, save_images
from fluvial.training.config import TrainConfig, write_config

QUICK = ["--quick", "--n", 60, "--steps", 3]


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits: training data, held-out data and fresh samples, as files of images and arrays."""
    folder = tmp_path_factory.mktemp("halves")
    digits = load_dataset("digits")
    np.savez(folder / "train.npz", x=digits.train.x.numpy(), y=digits.train.labels.numpy())
    np.savez(folder / "held.npz", x=digits.held_out.x[:180].numpy(), y=digits.held_out.labels[:180].numpy())
    np.savez(folder / "fresh.npz", x=digits.held_out.x[180:].numpy())
    np.savez(folder / "copies.npz", x=digits.train.x[:100].numpy())
    save_images(digits.train.x[:100], folder / "copies")
    return folder


def test_the_measurements_are_those_of_the_library() -> None:
    from fluvial.audits.runner import MEASUREMENTS as known
    from fluvial.metrics.extractors import EXTRACTORS as extractors

    assert known == MEASUREMENTS and extractors == EXTRACTORS
    assert all(f"  {name} " in Audit.EPILOGUE for name in known)


def test_a_run(fluvial, digits_run, tmp_path):
    out = tmp_path / "a"
    done = fluvial("audit", digits_run, *QUICK, "--only", "approximation,memorization", "--out", out)
    assert done.status == 0, done.err
    assert done.out.startswith("underfits: ") and f"report: {out / 'report.html'}" in done.out
    values = json.loads((out / "audit.json").read_text())
    assert values["verdict"] == "underfits" and set(values["findings"]) == {"approximation", "memorization"}
    assert values["provenance"]["command"].startswith(f"fluvial audit {digits_run} ")
    assert "step 4" in values["provenance"]["run"] and "heun, 3 steps" in values["provenance"]["solver"]
    page = (out / "report.html").read_text()
    assert "<b>underfits</b>" in page and "data:image/png" in page and "://" not in page
    again = fluvial("audit", digits_run, *QUICK, "--only", "memorization", "--out", out)
    assert "audit.json' already exists: give --overwrite or another --out" in again.error


def test_a_run_trained_by_likelihood_follows_no_path(fluvial, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_config(TrainConfig(objective="likelihood"), run, data_hash="x")
    for only in ([], ["--only", "quality,hybrid"]):
        assert "follows no path, so no exact field can be held" in fluvial("audit", run, *only).error
    assert "follows no path" not in fluvial("audit", run, "--only", "quality").error  # it has no checkpoint
    assert "trained with likelihood, which follows no path" in fluvial("sample", run, "--hybrid-tau", 0.5).error


def test_copies_of_another_model_are_found(fluvial, halves, tmp_path):
    common = ["--train", halves / "train.npz", "--held-out", halves / "held.npz", "--only", "memorization"]
    for name in ("copies.npz", "copies"):
        done = fluvial("audit", "--samples", halves / name, *common, "--out", tmp_path / name, "--json")
        values = json.loads(done.out)
        assert values["verdict"] == "memorises"
        assert values["findings"]["memorization"]["data"]["copied_train"] != []
        assert values["findings"]["memorization"]["data"]["copy_rate"] == 1.0
        assert json.loads((tmp_path / name / "audit.json").read_text()) == values


def test_fresh_data_of_another_model_generalise(fluvial, halves, tmp_path):
    sets = ["--samples", halves / "fresh.npz", "--train", halves / "train.npz", "--held-out", halves / "held.npz"]
    values = json.loads(fluvial("audit", *sets, "--out", tmp_path / "a", "--json").out)
    assert values["verdict"] == "generalises", values["sentence"]
    assert list(values["findings"]) == ["collapse", "memorization", "quality"]
    assert list(values["findings"]["quality"]["data"]["extractors"]) == ["pixels", "classifier"]


def test_samples_of_a_run_can_be_given_and_guidance_is_not_comparable(fluvial, digits_run, halves, tmp_path):
    done = fluvial("audit", digits_run, "--samples", halves / "copies.npz", "--only", "memorization", "--out", tmp_path)
    assert done.out.startswith("memorises: ")
    guided = ["--guidance", 2, "--quick", "--only", "approximation,collapse", "--out", tmp_path / "b", "--json"]
    values = json.loads(fluvial("audit", digits_run, *guided).out)
    assert values["findings"]["approximation"]["reservation"].startswith("not comparable: guidance 2")


def test_guidance_in_the_target_of_mean_flows_is_not_comparable():
    guided = TrainConfig(objective="meanflow", labels=True, mean_omega=1.5, mean_kappa=0.25)
    assert not_comparable(guided, None) == "not comparable: the run was trained with guidance 2 in its target"
    assert not_comparable(TrainConfig(objective="meanflow", labels=True), None) == ""


def test_a_run_with_references_is_audited_without_them_and_says_so(fluvial, tmp_path):
    tiny = ["--steps", 2, "--width", 8, "--depth", 1, "--batch-size", 16]
    assert fluvial("train", "--reference-size", 2, "--out", tmp_path / "run", *tiny).status == 0
    values = json.loads(fluvial("audit", tmp_path / "run", *QUICK, "--only", "memorization", "--json").out)
    assert values["provenance"]["run"].endswith("conditioned on references, audited without them")


def test_a_table_is_audited_in_its_own_units(fluvial, tmp_path):
    rows = np.random.default_rng(0).normal(size=(300, 3)) * [100.0, 1.0, 0.01]
    for name, part in {"train": rows[:200], "held": rows[200:250], "made": rows[:40]}.items():
        np.savetxt(tmp_path / f"{name}.csv", part, delimiter=",", header="a,b,c", comments="")
    sets = ["--samples", tmp_path / "made.csv", "--train", tmp_path / "train.csv", "--held-out", tmp_path / "held.csv"]
    values = json.loads(fluvial("audit", *sets, "--only", "memorization", "--out", tmp_path / "a", "--json").out)
    assert values["verdict"] == "memorises" and values["findings"]["memorization"]["data"]["kind"] == "table"


def test_grey_levels_against_unit_range_are_named(fluvial, halves, tmp_path):
    x = (torch.from_numpy(np.load(halves / "fresh.npz")["x"]) + 1) * 127.5
    np.savez(tmp_path / "grey.npz", x=x.numpy())
    sets = ["--samples", tmp_path / "grey.npz", "--train", halves / "train.npz", "--held-out", halves / "held.npz"]
    done = fluvial("audit", *sets, "--out", tmp_path / "a")
    said = done.out + done.err
    assert "127.5" in said and "255" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say what to audit: a RUN, or --samples PATH with --train SPEC"),
        (["--samples", "x.npz"], "say what to audit"),
        (["--samples", "no.npz", "--train", "digits"], "--samples 'no.npz' does not exist"),
        (["no/run"], "no/run is not a run folder"),
        (["RUN", "--train", "digits"], "--train cannot be given with a RUN"),
        (["RUN", "--only", "hybird"], "got 'hybird' (did you mean 'hybrid'?)"),
        (["RUN", "--extractors", "pixls"], "got 'pixls' (did you mean 'pixels'?)"),
        (["RUN", "--n", "0"], "--n must be at least 1, got 0"),
        (["RUN", "--seed", "-1"], "--seed must not be negative"),
        (["RUN", "--solver", "dopri5", "--steps", "4"], "--steps cannot be given with --solver dopri5"),
        (["RUN", "--weights", "no.pth"], "--weights needs --extractors inception or dinov2, got ''"),
        (["RUN", "--extractors", "dinov2", "--weights", "no.pth"], "--weights 'no.pth' is no file"),
        (["RUN", "--sedd", "1"], "unknown option '--sedd' of fluvial audit (did you mean '--seed'?)"),
        (["--samples", ".", "--train", "digits", "--only", "hybrid"], "--only hybrid needs a RUN"),
        (["--samples", ".", "--train", "digits", "--n", "4"], "--n needs a RUN"),
        (["--samples", ".", "--train", "digitz"], "did you mean 'digits'"),
    ],
)
def test_bad_arguments(fluvial, moons_run, options, message, tmp_path):
    words = [str(moons_run) if word == "RUN" else word for word in options]
    assert message in fluvial("audit", *words, "--out", tmp_path / "never").error
    assert not (tmp_path / "never").exists()
