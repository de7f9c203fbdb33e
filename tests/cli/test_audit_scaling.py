"""The command over a sweep: what it refuses, what it writes, and how it goes on after an interrupt."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from fluvial.cli.audit_scaling import AuditScaling
from fluvial.cli.errors import given_options

SMALL = ["--steps", 6, "--depth", 1, "--batch-size", 8, "--samples", 16, "--held-out", 20]


def parsed(*arguments: object) -> AuditScaling:
    words = [str(argument) for argument in arguments]
    command = tyro.cli(AuditScaling, args=words, config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone))
    command.validate(given_options(words))
    return command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file: Path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(file, np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32))
    return file


@pytest.fixture(scope="module")
def swept(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("sweep") / "out"
    assert parsed("--data", data, "--sizes", "6,all", "--widths", "8,16", "--out", out, *SMALL).execute() == 0
    return out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--out FOLDER is required"),
        (("--out", "{out}"), "--sizes N,N,... is required"),
        (("--out", "{out}", "--sizes", "10,x"), "--sizes must be whole numbers separated by commas or, last, all"),
        (("--out", "{out}", "--sizes", "30,10"), "--sizes must increase, got 30, 10"),
        (("--out", "{out}", "--sizes", "10", "--widths", "8,12"), "--widths must be positive multiples of 8, got 12"),
        (("--out", "{out}", "--sizes", "10", "--widths", "all"), "--widths must be whole numbers"),
        (("--out", "{out}", "--sizes", "10", "--steps", "0"), "--steps must be at least 1, got 0"),
        (("--out", "{out}", "--sizes", "10", "--steps", "0", "--quick"), "--steps must be at least 1, got 0"),
        (("--out", "{out}", "--sizes", "10", "--samples", "2"), "--samples must be at least 16, got 2"),
        (("--out", "{out}", "--sizes", "10", "--data", "digit"), "did you mean 'digits'"),
        (("--out", "{out}", "--sizes", "10", "--seed", "-1"), "--seed must be at least 0, got -1"),
        (("--out", "{taken}", "--sizes", "10"), "holds 'mine.txt' and no sweep; give another --out"),
        (("--out", "{file}", "--sizes", "10"), "is a file, not a folder"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    (tmp_path / "file").touch()
    places = {name: str(tmp_path / name) for name in ("out", "taken", "file")}
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parsed(*(argument.format(**places) for argument in arguments))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_can_be_refused_is_refused_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fluvial.cli.audit_scaling import AuditScaling\n"
        f"AuditScaling(sizes='10', out=Path({str(tmp_path / 'out')!r})).validate()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_files(swept: Path) -> None:
    values = json.loads((swept / "scaling.json").read_text())
    assert values["command"] == "audit scaling" and values["name"] == "scaling"
    cells = values["data"]["cells"]
    assert [(cell["width"], cell["n"]) for cell in cells] == [(8, 6), (8, 40), (16, 6), (16, 40)]
    assert [cell["updates"] for cell in cells] == [8, 8, 6, 6]
    assert values["seconds"] == pytest.approx(sum(cell["seconds"] for cell in cells), abs=0.01)
    assert {child.name for child in swept.iterdir()} == {"scaling.json", "report.html", "sweep.json", "cells", ".lock"}


@pytest.mark.slow
def test_report_needs_nothing_else(swept: Path) -> None:
    page = (swept / "report.html").read_text()
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert "://" not in text and "<script" not in text and "<link" not in text
    assert text.count("<img") == 3 and text.index('class="verdicts"') < text.index("<table")


@pytest.mark.slow
def test_json_on_stdout_is_the_file(swept: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (swept / "scaling.json").read_text()
    again = ["--data", data, "--sizes", "6,all", "--widths", "8,16", "--out", swept, *SMALL]
    assert parsed(*again, "--json").execute() == 0
    captured = capsys.readouterr()
    assert captured.out == before == (swept / "scaling.json").read_text()
    assert captured.err == ""  # nothing was left to do
    assert parsed(*again).execute() == 0
    out = capsys.readouterr().out
    assert "8, 40" in out and out.endswith(f"report: {swept / 'report.html'}\n")


@pytest.mark.slow
def test_other_settings_are_refused(swept: Path, data: Path) -> None:
    for change in (["--seed", 1], ["--widths", "8"], ["--compute", "updates"]):
        arguments = ["--data", data, "--sizes", "6,all", "--widths", "8,16", "--out", swept, *SMALL, *change]
        with pytest.raises(ValueError, match=r"holds a sweep with \w+ .*: give another --out"):
            parsed(*arguments)


def test_quick_does_a_tenth(tmp_path: Path) -> None:
    quick = parsed("--sizes", "10,all", "--steps", 500, "--out", tmp_path / "out", "--quick").settings()
    assert (quick.steps, quick.samples, quick.sizes) == (50, 200, (10, None))


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = capsys.readouterr().out
    assert "--sizes" in shown and "--compute" in shown
    for line in AuditScaling.EPILOGUE.splitlines():
        assert len(line) <= 120
        if line.startswith("  fluvial audit scaling"):
            words = line.split()[3:]
            assert AuditScaling(**_values(words)).settings() is not None


def _values(words: list[str]) -> dict[str, Any]:
    command = tyro.cli(AuditScaling, args=words, config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone))
    return vars(command)


@pytest.mark.slow
def test_control_c_leaves_what_is_finished(data: Path, tmp_path: Path) -> None:
    arguments = ["--data", data, "--sizes", "6,12", "--widths", "8", "--out", tmp_path / "out", *SMALL]
    arguments = [str(word) for word in (*arguments, "--steps", 600)]
    code = (
        "import sys, tyro; from fluvial.cli.audit_scaling import AuditScaling\n"
        "command = tyro.cli(AuditScaling, args=sys.argv[1:]); command.validate(); sys.exit(command.execute())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    first = tmp_path / "out" / "cells" / "n6-w8.json"
    work = tmp_path / "out" / "cells" / "n12-w8"
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("fluvial: interrupted: what was done is kept in")
    assert first.exists() and not (tmp_path / "out" / "scaling.json").exists()
    assert "Traceback" not in stderr
    whole = tmp_path / "whole"
    for out in (tmp_path / "out", whole):
        words = [str(out) if word == str(tmp_path / "out") else word for word in arguments]
        assert parsed(*words).execute() == 0
    assert not work.exists()
    pieces = [json.loads((out / "scaling.json").read_text()) for out in (tmp_path / "out", whole)]
    for values in pieces:
        del values["seconds"]
        for cell in values["data"]["cells"]:
            del cell["seconds"]
    assert pieces[0] == pieces[1]
