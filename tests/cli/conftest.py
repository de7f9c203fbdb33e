"""Runs commands in this process and hands back what a shell would see."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fluvial.cli import main


@dataclass(frozen=True)
class Outcome:
    """Exit status, stdout and stderr of a command."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that an error must be."""
        assert self.status == 2, (self.status, self.err)
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("fluvial: error: "), self.err
        return lines[0].removeprefix("fluvial: error: ")


@pytest.fixture
def fluvial(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: object) -> Outcome:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


TINY = ["--steps", "4", "--width", "16", "--depth", "1", "--batch-size", "16"]


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, conditioned on labels; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--data", "digits", "--labels", "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture(scope="session")
def moons_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on points in the plane, without labels; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "moons"
    assert main(["train", "--data", "moons", "--out", str(folder), *TINY]) == 0
    return folder
