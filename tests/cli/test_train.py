"""Training from the command line: results, resuming bit for bit, replacing a run, signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from fluvial.training import load_run

TINY = ["--data", "moons", "--width", 8, "--depth", 1, "--batch-size", 8]


def _weights(run):
    return load_file(load_run(run).checkpoint.folder / "ema.safetensors")


def _equal(a, b):
    return a.keys() == b.keys() and all(bool((a[name] == b[name]).all()) for name in a)


def test_result_and_next_step(fluvial, tmp_path):
    run = tmp_path / "run"
    outcome = fluvial("train", *TINY, "--steps", 3, "--out", run)
    assert outcome.status == 0
    assert str(run) in outcome.out and "final loss" in outcome.out and f"fluvial sample {run}" in outcome.out
    assert "3/3" in outcome.err and "loss" in outcome.err


def test_json(fluvial, tmp_path):
    outcome = fluvial("train", *TINY, "--steps", 3, "--out", tmp_path / "run", "--json")
    values = json.loads(outcome.out)
    assert values["step"] == 3 and values["loss"] > 0


def test_overwrite_replaces_the_run(fluvial, tmp_path):
    run = tmp_path / "run"
    assert fluvial("train", *TINY, "--steps", 3, "--out", run).status == 0
    (run / "samples").mkdir(exist_ok=True)
    (run / "samples" / "old.png").write_text("old")
    assert fluvial("train", *TINY, "--steps", 2, "--out", run, "--overwrite").status == 0
    assert load_run(run).step == 2 and not (run / "samples" / "old.png").exists()


def test_resume_without_a_checkpoint_starts_anew(fluvial, tmp_path):
    for name in ("a", "b"):
        assert fluvial("train", *TINY, "--steps", 3, "--out", tmp_path / name).status == 0
    import shutil

    shutil.rmtree(tmp_path / "b" / "checkpoints")
    assert fluvial("train", "--resume", tmp_path / "b").status == 0
    assert _equal(_weights(tmp_path / "a"), _weights(tmp_path / "b"))


def _start(*arguments):
    command = [sys.executable, "-m", "fluvial", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})


def _interrupt_at(process, log, step, number):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and f'"step": {step}' in log.read_text()):
        time.sleep(0.02)
    process.send_signal(number)
    return process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_leaves_a_resumable_run(fluvial, tmp_path, number, status):
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = [*TINY, "--steps", 1000, "--checkpoint-every", 100000]
    process = _start("train", *options, "--out", run)
    out, err = _interrupt_at(process, run / "metrics.jsonl", 20, number)
    assert process.returncode == status, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("fluvial: interrupted") and f"fluvial train --resume {run}" in last
    assert "Traceback" not in err and out == ""
    assert 0 < load_run(run).step < 1000
    assert fluvial("train", "--resume", run).status == 0
    assert fluvial("train", *options, "--out", whole).status == 0
    assert _equal(_weights(run), _weights(whole))


@pytest.mark.slow
def test_interrupt_elsewhere_is_quiet(digits_run, tmp_path):
    process = _start("sample", digits_run, "--n", 100000, "--out", tmp_path / "x.npz")
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
