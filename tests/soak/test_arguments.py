"""The soak programs for arguments, with few of them; processes of their own, since types are not checked there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def _record(program: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / program), *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    record: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, record["failed"]
    return record


@pytest.mark.slow
def test_random_command_lines_end_with_their_output_or_one_line():
    record = _record("arguments.py", "--count", "150", "--seed", "3")
    assert record["cases"] == 150 == record["refused"] + record["succeeded"]
    assert record["refused"] > 75 and record["succeeded"] > 3


@pytest.mark.slow
def test_wrong_arguments_of_functions_are_named():
    record = _record("functions.py", "--count", "800", "--seed", "3")
    assert record["functions"] > 150 and record["refused"] > 200 and record["returned"] > 100
    assert record["crashed"] == record["slow"] == 0
