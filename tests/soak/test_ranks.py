"""The soak program that kills ranks, with two kills."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("ranks.py")


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_which_resumes():
    command = [sys.executable, PROGRAM, "--count", "2", "--kills-per-run", "2", "--seed", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    record = json.loads(done.stdout)
    assert record["kills"] == record["survived"] == 2
    assert record["first_killed"] + record["other_killed"] == 2
    ends = ("resumed_in_1", "resumed_in_2", "begun_anew", "ended_before")
    assert sum(record[name] for name in ends) == record["runs_with_the_same_losses"] == record["runs"] == 1
