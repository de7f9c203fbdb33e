"""What the shell and the machine do to a command: closed streams, signals, no memory."""

import signal
import subprocess
import sys

import pytest
import torch

from fluvial.cli.errors import out_of_memory
from fluvial.cli.info import Info
from fluvial.cli.render import json_text


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(closed):
    for arguments, status in (("--version", 0), ("trian", 2)):
        command = f"{sys.executable} -m fluvial {arguments} {closed}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == status and "Traceback" not in done.stderr


def _process(code: str) -> subprocess.Popen[str]:
    """A process in which ``info`` runs ``code`` and says when it is there."""
    script = (
        "import sys, time; from fluvial.cli import main; from fluvial.cli.info import Info; "
        "Info.validate = lambda self, given: None\n"
        f"def execute(self):\n    print('ready', flush=True)\n    {code}\n"
        "Info.execute = execute\nsys.exit(main(['info', 'run']))"
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [(signal.SIGTERM, 143, "fluvial: terminated\n"), (signal.SIGINT, 130, "fluvial: interrupted\n")],
)
def test_signals_end_in_one_line(number, status, line):
    process = _process("time.sleep(60)")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, line)


def test_a_terminated_command_removes_what_is_half_written(tmp_path):
    path = tmp_path / "x"
    code = "from fluvial.cli.folders import written_aside; from pathlib import Path"
    code += f"\n    with written_aside(Path({str(path)!r})) as aside:"
    code += " aside.write_text('x'); print('on', flush=True); time.sleep(60)"
    process = _process(code)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "on\n"]
    assert list(tmp_path.iterdir())
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143 and list(tmp_path.iterdir()) == []


def test_an_interrupt_while_the_commands_are_imported_is_one_line():
    code = (
        "import sys, builtins; from fluvial.cli import main; real = builtins.__import__\n"
        "def slow(name, *rest):\n"
        "    if name == 'tyro': raise KeyboardInterrupt\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = slow\nsys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "fluvial: interrupted\n")


def test_the_handler_of_the_caller_comes_back(fluvial):
    before = signal.getsignal(signal.SIGTERM)
    assert fluvial("--version").status == 0
    assert signal.getsignal(signal.SIGTERM) is before


def _fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def execute(self: Info) -> int:
        raise error

    monkeypatch.setattr(Info, "validate", lambda self, given: None)
    monkeypatch.setattr(Info, "execute", execute)


def test_out_of_memory_is_one_line(fluvial, monkeypatch):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    for error in (caught.value, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), MemoryError()):
        _fails(monkeypatch, error)
        assert fluvial("info", "run").error.startswith("out of memory (")
    assert out_of_memory(MemoryError(), ["train"]).endswith("try a smaller --batch-size, --width or --size")


def test_other_runtime_errors_keep_their_traceback(fluvial, monkeypatch):
    _fails(monkeypatch, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        fluvial("info", "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_has_no_numbers_that_it_does_not_know(value):
    assert json_text({"a": [1.5, {"b": value}]}).split() == [
        "{",
        '"a":',
        "[",
        "1.5,",
        "{",
        '"b":',
        "null",
        "}",
        "]",
        "}",
    ]


def test_too_many_samples_are_refused_at_once(fluvial, digits_run, tmp_path):
    error = fluvial("sample", digits_run, "--n", 99999999999999, "--out", tmp_path / "x.npz").error
    assert "--n 99999999999999 would take" in error and "GiB" in error
    labelled = ["--n", 99999999999999, "--label", 3, "--out", tmp_path / "x.npz"]
    assert "--n 99999999999999 would take" in fluvial("sample", digits_run, *labelled).error
    assert "--samples 999999999999 would take" in fluvial("demo", "--samples", 999999999999).error
    assert list(tmp_path.iterdir()) == []
