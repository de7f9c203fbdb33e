"""``fluvial support diagnose`` as a user types it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fluvial.cli.support_diagnose import OUTPUTS, SupportDiagnose

QUICK = ["--m", 8, "--tasks", 2]


def test_the_outputs_are_those_of_the_library() -> None:
    from fluvial.support.diagnosis.pages import FILES
    from fluvial.support.tasks.names import SYNTHETIC

    assert FILES == OUTPUTS
    assert all(name in SupportDiagnose.EPILOGUE for name in SYNTHETIC)


@pytest.mark.slow
def test_mixtures(fluvial, tmp_path):
    done = fluvial("support", "diagnose", "gmm", "--dim", 3, *QUICK, "--out", tmp_path / "a")
    assert done.status == 0, done.err
    assert "gmm, 8 examples in dimension 3" in done.out.splitlines()[0] and "what to do" in done.out
    assert f"report: {tmp_path / 'a' / 'report.html'}" in done.out and "geometry  2/2" in done.err
    values = json.loads((tmp_path / "a" / "diagnosis.json").read_text())
    assert values["provenance"]["command"].startswith("fluvial support diagnose gmm --m 8 --dim 3 --tasks 2")
    assert values["findings"]["geometry"]["data"]["true_log_density"] is not None
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.count("<figure") == 3 and "://" not in page
    again = fluvial("support", "diagnose", "shells", *QUICK, "--out", tmp_path / "a")
    assert "diagnosis.json' already exists: give --overwrite or another --out" in again.error


def test_json_is_all_that_is_printed(fluvial):
    done = fluvial("support", "diagnose", "moons", *QUICK, "--json")
    values = json.loads(done.out)
    assert done.out.count("\n") > 10 and values["data"] == "moons" and values["m"] == 8


def test_features_without_labels_are_one_class(fluvial, tmp_path):
    features = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(tmp_path / "x.npz", features=np.concatenate([features, features[:30]]))
    values = json.loads(fluvial("support", "diagnose", tmp_path / "x.npz", *QUICK, "--json").out)
    assert values["dim"] == 3 and "30 of 90 rows repeat another" in values["notes"][0]
    assert "draws from one class" in values["notes"][1]


def test_features_are_taken_as_they_are_unless_a_dimension_is_asked_for(fluvial, tmp_path):
    spreads = [10, 1, 0.1, 0.1]
    np.savez(tmp_path / "x.npz", features=np.random.default_rng(0).normal(size=(200, 4)) * spreads)
    plain, projected = (
        json.loads(fluvial("support", "diagnose", tmp_path / "x.npz", "--m", 20, "--tasks", 3, *more, "--json").out)
        for more in ([], ["--dim", 4])
    )
    assert plain["verdict"] == "geometry mismatch" and "geometry mismatch" not in projected["regimes"]
    assert projected["notes"][0].startswith("Points are the 4 leading principal components of 4 features")
    assert not any("principal components" in note for note in plain["notes"])


@pytest.mark.slow
def test_digits(fluvial):
    values = json.loads(fluvial("support", "diagnose", "digits", "--dim", 3, *QUICK, "--json").out)
    assert values["findings"]["scarcity"]["data"]["known_truth"] is False
    assert "draws from 10 classes" not in " ".join(values["notes"])  # two tasks are of two classes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shels"], "unknown task family 'shels': did you mean 'shells'?"),
        (["shells", "--m", 0], "--m must be at least 2, got 0"),
        (["shells", "--tasks", 1], "--tasks must be at least 2, got 1"),
        (["shells", "--dim", 0], "--dim must be at least 1, got 0"),
        (["shells", "--seed", -1], "--seed must not be negative, got -1"),
        (["rings", "--dim", 3], "rings lie in the plane: dim must be 2, got 3"),
        (["absent.npz"], "feature file 'absent.npz' does not exist"),
        (["digits", "--m", 400], "label 0 has 178 members, a diagnosis with m = 400 needs at least 408"),
        (["digits", "--dim", 100], "dim must be at most 64"),
    ],
)
def test_bad_input(fluvial, arguments, message):
    assert message in fluvial("support", "diagnose", *arguments).error


def test_damaged_values_name_the_file(fluvial, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, features=np.full((40, 2), np.nan))
    error = fluvial("support", "diagnose", path, *QUICK).error
    assert str(path) in error and "NaN" in error
    np.savez(path, features=np.zeros((40, 2)))
    error = fluvial("support", "diagnose", path, *QUICK).error
    assert "features must differ from one another, got 40 equal rows" in error
    np.savez(path, features=np.arange(80.0).reshape(40, 2), labels=np.arange(40) // 20)
    assert "label 0 has 20 members" in fluvial("support", "diagnose", path, "--m", 15, "--dim", 1).error


def test_refusals_do_not_import_torch():
    code = (
        "import sys; from fluvial.cli.support_diagnose import SupportDiagnose\n"
        "try: SupportDiagnose('shels').validate()\n"
        "except ValueError as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unknown task family 'shels': did you mean 'shells'? False"
