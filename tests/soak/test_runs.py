"""Shortened forms of the soak programs of runs; each is a process of its own, since some fork."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def soak(program: str, *arguments: object) -> dict[str, Any]:
    """What a program prints."""
    command = [sys.executable, str(HERE / program), *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["failures"] == []
    return found


@pytest.mark.slow
def test_kills() -> None:
    found = soak("kills.py", "--count", 8, "--seed", 1)
    assert found["kills"] == found["survived"] == 8
    assert found["runs"] == found["runs_bit_identical"] > 0
    assert found["resumptions"] == found["resumptions_bit_identical"] > 0


@pytest.mark.slow
def test_damage() -> None:
    found = soak("damage.py", "--count", 20, "--seed", 1)
    assert found["recovered"] + found["harmless"] + found["unchanged"] == found["cases"] == 20
    assert found["recovered"] >= 15 and found["damaged"] >= found["recovered"]


@pytest.mark.slow
def test_memory() -> None:
    """Too short to tell whether memory is flat; what is told by it is that the program works."""
    found = soak("memory.py", "--minutes", 0.1, "--limit", 0.2)
    assert found["interrupted_and_resumed"] == found["trainings"] > 0 and found["updates"] > 0
    for name in ("many trainings", "one training"):
        assert all(high >= low for low, high in zip(found[f"{name}, MB"], found[f"{name}, peaks in MB"], strict=True))
    assert 0 < found["measured_seconds"] < found["seconds"] - found["warm_up_seconds"] + 1
