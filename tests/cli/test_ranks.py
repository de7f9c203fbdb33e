"""Commands in two processes: what they write is what one process writes, the first speaks, and errors are told once."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fluvial.cli import launched

WORKER = Path(__file__).with_name("ranks_worker.py")
SECONDS = 240

TRAIN = ["train", "--data", "digits", "--labels", "--steps", "4", "--width", "16", "--depth", "1", "--out", "run"]
SAMPLE = ["sample", "run", "--n", "60", "--batch-size", "16", "--steps", "2"]
WRITTEN = {
    "plain.npz": [*SAMPLE, "--label", "3", "--guidance", "2"],
    "picture.png": [*SAMPLE, "--hybrid-tau", "0.5"],
    "few.npz": ["sample", "run", "--n", "3", "--steps", "2"],
    "adaptive.npz": ["sample", "run", "--n", "40", "--batch-size", "16", "--solver", "dopri5"],
    "density.npz": [*SAMPLE, "--with-log-prob"],
    "classifier.npz": ["features", "digits", "--extractor", "classifier", "--batch-size", "20"],
    "pixels.npz": ["features", "digits", "--extractor", "pixels", "--batch-size", "100"],
}
ERRORS = {"alike": ["sample", "run", "--n", "0"], "undivided": ["info", "run"], "of one": ["sample", "run-{rank}"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What the first and the other process printed, by command."""
    commands = [TRAIN, *([*words, "--out", f"two-{name}"] for name, words in WRITTEN.items()), *ERRORS.values()]
    (folder / "commands.json").write_text(json.dumps(commands))
    (folder / "run-0").symlink_to(folder / "run")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    extra = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [*launch, str(WORKER), "commands.json", "."],
        cwd=folder,
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return dict(zip(["train", *WRITTEN, *ERRORS], map(list, zip(*found, strict=True)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_two_processes_write_what_one_does(name, folder, two, fluvial, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache-of-one"))
    assert fluvial(*WRITTEN[name], "--out", f"one-{name}").status == 0
    assert (folder / f"one-{name}").read_bytes() == (folder / f"two-{name}").read_bytes()
    records = [json.loads((folder / f"{which}-{name}").with_suffix(".json").read_text()) for which in ("one", "two")]
    for record in records:
        del record["file"]
        record.pop("seconds", None)
    assert records[0] == records[1]


@pytest.mark.slow
def test_the_first_process_speaks(two):
    for name in ("train", *WRITTEN):
        first, other = two[name]
        assert first["status"] == other["status"] == 0, (first["err"], other["err"])
        assert first["out"].count("\n") == 1 and other["out"] == other["err"] == ""


@pytest.mark.slow
def test_errors_are_told_by_whom_they_concern(two):
    assert all(found["status"] == 2 for name in ERRORS for found in two[name])
    assert two["alike"][0]["err"] == "fluvial: error: --n must be at least 1, got 0\n"
    assert two["undivided"][0]["err"].startswith(
        "fluvial: error: fluvial info runs in one process, and was launched in 2"
    )
    first, other = (found["err"] for found in two["of one"])
    assert other.startswith("fluvial: error: rank 1: ") and "run-1" in other
    assert first.startswith("fluvial: error: another process of this job has ended (")
    assert first.count("\n") == other.count("\n") == 1


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process as the second of two, which a launcher has started."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    return monkeypatch


def _terminate(after: float) -> None:
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGTERM)).start()


@pytest.mark.parametrize("lost", [False, True])
def test_an_error_of_all_is_left_to_the_first(lost, second, capsys):
    """The launcher ends this process; that another has ended is told all the same, since that may be the first."""
    _terminate(0.05)
    launched.tell_error("what is wrong", lost=lost)
    assert capsys.readouterr().err == ("fluvial: error: rank 1: what is wrong\n" if lost else "")


def test_an_error_of_one_is_told_with_its_rank(second, capsys):
    second.setattr(launched, "PATIENCE", 0.05)
    launched.tell_error("what is wrong")
    assert capsys.readouterr().err == "fluvial: error: rank 1: what is wrong\n"


def test_other_processes_are_silent(second, fluvial):
    outcome = fluvial("--version")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


@pytest.mark.parametrize("words", [["info", "x"], ["audit", "x"], ["demo"], ["likelihood", "x"], ["retrieve"]])
def test_what_is_not_divided_is_refused(words, monkeypatch, fluvial):
    monkeypatch.setenv("WORLD_SIZE", "2")
    if words == ["retrieve"]:
        words = ["retrieve", "--data", "x.npz", "--embeddings", "e.npz"]
    assert f"fluvial {words[0]} runs in one process, and was launched in 2" in fluvial(*words).error


def test_a_launched_command_ends_with_its_status_and_all_that_it_said():
    """Though it does not wait for its threads."""
    code = "import sys; from fluvial.cli.launched import end_launched; print('said', end=''); end_launched(7)"
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "said")
