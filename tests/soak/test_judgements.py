"""What the soak programs must not count as survived: each of these once was."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import damage
import kills
import memory
import ranks
from launches import Launch
from trainings import CASES, STEPS, Training

REPORT = "[{rank}]:\n  rank      : {rank} (local_rank: {rank})\n  exitcode  : {status} (pid: {pid})\n"


def half_written(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f".partial-step-{step:08d}"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "ema.safetensors"):
        (folder / name).write_bytes(b"x")
    return folder


def log(run: Path, steps: range) -> None:
    """As a training does: aside, then renamed."""
    aside = run / ".partial-metrics.jsonl"
    aside.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in steps))
    aside.replace(run / "metrics.jsonl")


def test_what_an_earlier_kill_left_is_no_write(tmp_path):
    left = half_written(tmp_path, 6)
    with Launch(tmp_path) as launch:
        (left / "model.safetensors").unlink()  # its removal at the start changes its time
        half_written(tmp_path / "elsewhere", 9)
        (tmp_path / "checkpoints" / ".partial-old-step-00000003").mkdir()
        assert not launch.writes()
        shutil.rmtree(left)
        half_written(tmp_path, 6)
        assert launch.writes()


def test_only_what_this_launch_has_logged_counts(tmp_path):
    (tmp_path / "checkpoints" / "step-00000006").mkdir(parents=True)
    log(tmp_path, range(1, 9))
    with Launch(tmp_path) as launch:
        assert launch.checkpoint == 6 and launch.logged() == 0  # step 8 was logged before
        log(tmp_path, range(1, 7))
        assert launch.logged() == 0  # cut to the checkpoint, and no update yet
        log(tmp_path, range(1, 8))
        assert launch.logged() == 7
    with Launch(tmp_path / "new") as launch:
        assert launch.checkpoint is None and launch.logged() == 0


_HEAVY = """
import numpy as np
from soak.peaks import peak, reset_peak, resident
size = 2**26
reset_peak()
before = resident()
np.ones(2 * size, dtype=np.uint8).sum()
assert peak() - before > 1.5 * size
reset_peak()
before = peak()
assert before - resident() < size // 4
np.ones(size, dtype=np.uint8).sum()
assert 0.75 * size < peak() - before < 1.5 * size
"""


def test_a_heavy_case_hides_no_later_one():
    """In a process of its own: a large one takes arrays from memory that it had already."""
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", _HEAVY], check=True, env={**os.environ, "PYTHONPATH": tests})


@pytest.mark.parametrize(
    ("signum", "status", "logged", "said", "broken"),
    [
        (signal.SIGKILL, -9, 5, "", ""),
        (signal.SIGKILL, 2, 5, "fluvial: error: no", "status 2 after signal 9"),
        (signal.SIGTERM, 143, 0, "fluvial: terminated", ""),
        (signal.SIGTERM, 143, 5, "fluvial: terminated", "nothing was saved"),
        (signal.SIGTERM, 143, 5, "saved step 5 in run", "newest checkpoint is of step -1"),
        (signal.SIGTERM, 1, 0, "Traceback", "status 1 after signal 15"),
    ],
)
def test_a_kill_that_left_nothing_is_survived_only_where_nothing_was_due(
    tmp_path, signum, status, logged, said, broken
):
    found = kills.problem_of(Training("cfm", tmp_path / "run"), kills.Kill(signum, status, logged, said))
    assert broken in found and bool(found) == bool(broken)


def test_trainings_know_their_length():
    assert {case: Training(case, Path("run")).steps for case in CASES} == {
        case: STEPS // 2 if case == "dropout" else STEPS for case in CASES
    }


@pytest.mark.parametrize(
    ("signum", "ends", "logged", "said", "broken"),
    [
        (signal.SIGKILL, {7: -9, 8: 2}, 5, "", ""),
        (signal.SIGKILL, {7: -9, 8: -15}, 5, "", ""),
        (signal.SIGKILL, {8: 2}, 5, "", "process 7 was sent signal 9"),
        (signal.SIGKILL, {7: 1, 8: -15}, 5, "", "process 7 was sent signal 9"),
        (signal.SIGKILL, {7: -9, 8: -11}, 5, "", "failed in its own way"),
        (signal.SIGKILL, {7: -9, 8: -15}, 5, "terminate called without", "aborted at its end"),
        (signal.SIGTERM, {7: -15, 8: -15}, 0, "", ""),
        (signal.SIGTERM, {7: 143, 8: 143}, 5, "fluvial: terminated", "has saved nothing"),
        (signal.SIGTERM, {7: 2, 8: -15}, 0, "", "process 7 was sent signal 15"),
        (signal.SIGTERM, {7: 143, 8: 143}, 5, "saved step 5 in run", "newest checkpoint is of step -1"),
    ],
)
def test_a_job_must_end_by_the_kill_alone(tmp_path, signum, ends, logged, said, broken):
    report = "".join(REPORT.format(rank=pid - 7, status=status, pid=pid) for pid, status in ends.items())
    found = ranks.problem_of(tmp_path / "run", ranks.Kill(signum, 7, logged, said + report))
    assert broken in found and bool(found) == bool(broken)


def test_only_state_that_reads_as_before_is_no_damage():
    state = {"step": 20, "rate": 1e-5, "files": {}, "sha256": "ab"}
    text = json.dumps(state).encode()

    def changed(new: bytes, other: bytes = b"weights") -> bool:
        return damage.matters(
            {"state.json": text, "model.safetensors": b"weights"}, {"state.json": new, "model.safetensors": other}
        )

    assert not changed(text)
    assert not changed(text.replace(b"1e-05", b"1E-05")) and not changed(text.replace(b", ", b",\t"))
    assert not changed(text.replace(b"sha256", b"sha254"))
    assert changed(text.replace(b"20", b"21")) and changed(text.replace(b'"ab"', b'"aB"'))
    assert changed(text.replace(b"rate", b"rite")) and changed(text.replace(b"sha256", b"sha254").replace(b"20", b"21"))
    without = {name: value for name, value in state.items() if name != "sha256"}
    assert changed(json.dumps(without).encode()) and changed(json.dumps({**state, "x": "ab"}).encode())
    assert changed(b"[]") and changed(b"{") and changed(text, b"Weights")
    assert damage.matters({"state.json": text}, {})


def test_damage_must_be_reported(tmp_path):
    hurt = damage.Hurt(tmp_path / "step-00000020", {"state.json": b"{}"}, {})
    line = f"{hurt.folder}/state.json is missing; step 15 is used instead of step-00000020"
    used = tmp_path / "step-00000015"
    assert damage.report_problem([hurt], used, [line]) == ""
    assert damage.report_problem([hurt], used, []) and damage.report_problem([], hurt.folder, [line])
    assert damage.report_problem([hurt], tmp_path / "step-00000010", [line])


def test_a_lost_signal_is_no_interruption():
    with pytest.raises(RuntimeError, match="did not interrupt"):
        memory.interrupted(lambda: None, 24)


def test_a_peak_stands_beside_the_medians():
    readings = [(float(at), 100.0, 150.0 if at == 70 else 101.0) for at in range(91)]
    found = memory.measure(readings)
    assert found.flatness == 0 and max(found.peaks) == 150 and found.peaks.count(101) == memory.WINDOWS - 1
    assert (found.warm_up, found.measured) == (30, 60)
