"""The soak program for damaged files, with few of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("files.py")


@pytest.mark.slow
def test_damaged_files_are_read_whole_or_refused(tmp_path):
    command = [sys.executable, PROGRAM, "--count", "400", "--seed", "3", "--json", "--keep", tmp_path / "failures"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    record = json.loads(done.stdout)
    assert done.returncode == 0, record["failed"]
    assert record["files"] == 400 == record["refused"] + record["unchanged"] + record["other"]
    assert record["refused"] > 200 and record["formats"] > 30
