"""Bad input is one line on stderr and status 2, names the nearest valid name, and leaves what exists as it was."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fluvial.cli.errors import given_options, one_line, option_names
from fluvial.cli.sample import Sample
from fluvial.cli.train import Train


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (
            [],
            [
                "no command",
                "train, sample, likelihood, audit, audit scaling, features, retrieve, support train",
                "info, demo",
            ],
        ),
        (["trian"], ["'trian'", "did you mean 'train'?", "fluvial --help"]),
        (["--verison"], ["'--verison'", "did you mean '--version'?"]),
        (["train", "--stpes", "3"], ["'--stpes'", "did you mean '--steps'?", "fluvial train --help"]),
        (["train", "--stpes=3"], ["'--stpes'", "did you mean '--steps'?"]),
        (["train", "--steps"], ["--steps needs a value"]),
        (["train", "--steps", "many"], ["--steps must be a whole number, got 'many'"]),
        (["train", "--lr", "fast"], ["--lr must be a number, got 'fast'"]),
        (["train", "--held-out", "foo"], ["--held-out must be a number, got 'foo'"]),
        (["train", "--size", "3.5"], ["--size must be a whole number, got '3.5'"]),
        (["--json"], ["option '--json' was given before the command", "train, sample"]),
        (["--", "x"], ["unknown option '--'"]),
        (["--zzz"], ["unknown option '--zzz', expected one of train"]),
        (["sample"], ["argument RUN is missing"]),
        (["sample", "a", "b"], ["unexpected argument 'b'"]),
        (["sample", "a", "--solver", "huen"], ["--solver must be one of", "'huen'", "did you mean 'heun'?"]),
    ],
)
def test_parse_errors(fluvial, arguments, fragments):
    error = fluvial(*arguments).error
    assert all(fragment in error for fragment in fragments), error


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        ({"--data": "digit"}, ["'digit'", "'digits'"]),
        ({"--data": "absent.npy"}, ["absent.npy", "does not exist"]),
        ({"--objective": "cfn"}, ["'cfn'", "'cfm'"]),
        ({"--steps": "-5"}, ["steps", "-5"]),
        ({"--batch-size": "0"}, ["--batch-size must be at least 1, got 0"]),
        ({"--held-out": "-3"}, ["--held-out must not be negative"]),
        ({"--objective": "efm", "--coupling": "ot"}, ["--objective 'efm' needs --coupling 'independent'"]),
        ({"--lr": "nan"}, ["lr", "nan"]),
        ({"--seed": "-1"}, ["--seed must", "-1"]),
        ({"--held-out": "5000"}, ["--held-out 5000 leaves no training data"]),
    ],
)
def test_bad_settings_leave_no_folder(fluvial, tmp_path, options, fragments):
    out = tmp_path / "run"
    error = fluvial("train", "--out", out, *(word for pair in options.items() for word in pair)).error
    assert all(fragment in error for fragment in fragments), error
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--bank-size", "8"], "--bank-size needs --objective 'efm', got 'cfm'"),
        (
            ["train", "--objective", "efm", "--mean-share", "0.5"],
            "--mean-share needs --objective 'meanflow', got 'efm'",
        ),
        (["train", "--likelihood-adjoint"], "--likelihood-adjoint needs --objective 'likelihood', got 'cfm'"),
        (["train", "--encoder", "x"], "--encoder needs --captions"),
        (["train", "--drop-cond", "0.1"], "--drop-cond needs a condition"),
        (["train", "--objective", "likelihood", "--path", "condot"], "--path cannot be given with --objective"),
        (["train", "--labels", "--captions", "x"], "--captions cannot be given with --labels"),
        (["train", "--size", "8"], "--size is for folder:PATH"),
        (["train", "--data", "moons", "--flip"], "--flip needs images"),
        (["audit", "scaling", "--sizes", "4", "--bank-size", "8"], "--bank-size needs --objective 'efm'"),
        (["support", "experiments", "--budget", "1", "--only", "shells", "--real", "digits"], "--real needs 'real'"),
    ],
)
def test_options_without_effect_are_refused(fluvial, tmp_path, arguments, message):
    assert message in fluvial(*arguments, "--out", tmp_path / "out").error
    assert not (tmp_path / "out").exists()


def test_options_of_measurements_that_are_not_made(fluvial, tmp_path, moons_run, digits_run):
    cases = {
        ("audit", moons_run, "--only", "collapse", "--n", 50): "--n needs memorization or quality among --only",
        ("audit", moons_run, "--only", "collapse", "--extractors", "pixels"): "--extractors needs quality",
        ("audit", moons_run, "--weights", "x"): "--weights needs --extractors",
        ("audit", digits_run, "--guidance", "nan"): "--guidance must be finite",
        ("audit", "--samples", moons_run, "--train", "moons", "--held-out", "nan"): "--held-out must be a count",
        ("audit", "--samples", moons_run, "--train", "moons", "--size", 8): "--size is for folders",
    }
    for arguments, message in cases.items():
        assert message in fluvial(*arguments, "--out", tmp_path / "out").error


def test_errors_are_one_printable_line_of_bounded_length(fluvial):
    for word in ("x" * 100_000, "\x1b[31mred", "\udcff", "a\nb", "nul\0"):
        error = fluvial("info", word).error
        assert error.isprintable() and len(error) < 1100


def _array(values):
    return lambda path: np.save(path, values)


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        (np.full((20, 2), np.nan), "NaN"),
        (np.array([[0.0, np.inf]] * 20), "infinite"),
        (np.zeros((0, 2)), "no data"),
        (np.zeros((1, 2)), "1"),
    ],
)
def test_bad_data_leave_no_folder(fluvial, tmp_path, values, fragment):
    np.save(tmp_path / "x.npy", values)
    out = tmp_path / "run"
    assert fragment in fluvial("train", "--data", tmp_path / "x.npy", "--out", out).error
    assert not out.exists()


def test_bad_data_with_overwrite_leave_the_old_run(fluvial, tmp_path):
    out, data = tmp_path / "run", tmp_path / "x.npy"
    tiny = ["--steps", 2, "--width", 8, "--depth", 1, "--batch-size", 8]
    assert fluvial("train", "--data", "moons", "--out", out, *tiny).status == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    np.save(data, np.full((20, 2), np.nan))
    assert "NaN" in fluvial("train", "--data", data, "--out", out, "--overwrite").error
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_images_of_mixed_sizes(fluvial, tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for size in (8, 9):
        Image.new("L", (size, size)).save(folder / f"{size}.png")
    outcome = fluvial("train", "--data", f"folder:{folder}", "--out", tmp_path / "run")
    error = outcome.err.splitlines()[-1]  # after the progress of the look at each picture
    assert outcome.status == 2 and error.startswith("fluvial: error: ")
    assert "--size" in error or "size=" in error


def test_output_folder_with_another_run(fluvial, digits_run):
    error = fluvial("train", "--data", "moons", "--out", digits_run).error
    assert "run" in error and "--resume" in error and "--overwrite" in error


def test_overwrite_never_removes_a_foreign_folder(fluvial, tmp_path):
    keep = tmp_path / "thesis.tex"
    keep.write_text("years of work")
    assert "--overwrite never" in fluvial("train", "--data", "moons", "--out", tmp_path, "--overwrite").error
    assert keep.read_text() == "years of work"


def test_unwritable_folders(fluvial, tmp_path):
    (tmp_path / "file").write_text("")
    assert "not a folder" in fluvial("train", "--out", tmp_path / "file" / "run").error
    if Path("/proc/self").exists():
        assert "cannot write" in fluvial("train", "--out", "/proc/run").error


def test_resume_takes_no_other_option(fluvial, digits_run):
    error = fluvial("train", "--resume", digits_run, "--lr", 0.002).error
    assert "--lr" in error and "config.toml" in error


def test_new_run_needs_a_folder(fluvial):
    assert "--out" in fluvial("train", "--data", "moons").error


def test_missing_foreign_and_truncated_checkpoints(fluvial, moons_run, tmp_path):
    import shutil

    assert "no such folder" in fluvial("sample", tmp_path / "absent").error
    assert "config.toml" in fluvial("sample", tmp_path).error
    run = tmp_path / "run"
    shutil.copytree(moons_run, run)
    weights = next(run.glob("checkpoints/*/ema.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    for arguments in (("sample", run), ("info", run), ("train", "--resume", run)):
        assert "truncated" in fluvial(*arguments).error
    weights.write_bytes(bytes(len(whole)))
    assert "damaged" in fluvial("sample", run).error
    (weights.parent / "state.json").write_text("{}")
    assert "not a checkpoint of fluvial" in fluvial("sample", run).error
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint" in fluvial("sample", run).error


def test_sampling_options_that_do_not_fit(fluvial, digits_run, moons_run, tmp_path):
    cases = {
        ("--solver", "dopri5", "--steps", 50): "--steps",
        ("--rtol", 1e-3): "--rtol needs --solver dopri5",
        ("--n", 0): "--n must be at least 1",
        ("--steps", 0): "--steps must be at least 1",
        ("--hybrid-tau", 1.5): "--hybrid-tau",
        ("--guidance", 2): "--guidance needs --label",
        ("--label", 1): "trained without",
        ("--out", tmp_path / "x.jpg"): ".png",
        ("--out", tmp_path / "folder"): "only images",
    }
    for options, fragment in cases.items():
        assert fragment in fluvial("sample", moons_run, *options).error
    assert "below the number of classes, 10" in fluvial("sample", digits_run, "--label", 10).error


def test_changed_data_are_refused(fluvial, tmp_path):
    data, run = tmp_path / "x.npy", tmp_path / "run"
    rng = np.random.default_rng(0)
    np.save(data, rng.normal(size=(40, 2)))
    tiny = ["--steps", 2, "--width", 8, "--depth", 1, "--batch-size", 8]
    assert fluvial("train", "--data", data, "--out", run, *tiny).status == 0
    np.save(data, rng.normal(size=(40, 2)))
    assert "data have changed" in fluvial("train", "--resume", run).error
    assert "data have changed" in fluvial("sample", run, "--hybrid-tau", 0.5).error


def test_traceback_on_request(fluvial, monkeypatch):
    monkeypatch.setenv("FLUVIAL_DEBUG", "1")
    with pytest.raises(ValueError, match="trian"):
        fluvial("trian")


def test_one_line_names_the_file():
    assert one_line(PermissionError(13, "Permission denied", "runs/a")) == "Permission denied: runs/a"


def test_options_of_a_command():
    assert {"--batch-size", "--resume", "--help"} <= set(option_names(Train))
    assert "--run" not in option_names(Sample) and "--config" not in option_names(Train)
    assert given_options(["RUN", "--n=3", "--batch_size", "-4"]) == ("--n", "--batch-size")


def _process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fluvial", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}, check=False)


def test_errors_reach_the_shell():
    done = _process("train", "--data", "digit", "--out", "x")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("fluvial: error: ")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["sample", "--help"], ["retrieve", "--help"], ["demo", "--help"]]
)
def test_help_without_torch(fluvial, arguments):
    code = f"import sys; from fluvial.cli import main; status = main({arguments}); assert status == 0, status; "
    code += "print('heavy:', sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout and done.stdout.endswith("heavy: []\n") and done.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["train", "--data", "digit", "--out", "x"], ["sample", "absent"], ["train", "--stpes", "1"]]
)
def test_early_errors_without_torch(arguments):
    code = f"import sys; from fluvial.cli import main; assert main({arguments}) == 2; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_broken_pipe_is_silent():
    command = f"{sys.executable} -m fluvial --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
