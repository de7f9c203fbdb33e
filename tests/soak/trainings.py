"""Tiny trainings of every objective, and commands in forked processes: what the soak programs of runs share."""

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch is imported: a process that has no other threads can be forked, and one core is enough.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

import fluvial.cli.commands
import fluvial.support
import fluvial.training.trainer  # noqa: F401 (so that forked commands need not import it)
from fluvial.cli import main as command
from fluvial.training.logs import read_metrics

STEPS, EVERY = 120, 3
_COMMON = ("--steps", STEPS, "--checkpoint-every", EVERY, "--log-every", 1, "--batch-size", 7, "--keep", 2)
_MLP = (*_COMMON, "--data", "data.npz", "--width", 8, "--depth", 1)
_UNET = ("--data", "digits", "--held-out", 1700, "--net", "unet", "--width", 8, "--depth", 1, "--dropout", 0.2)
CASES: dict[str, tuple[Any, ...]] = {
    "cfm": (*_MLP, "--objective", "cfm", "--sample-every", 15),
    "optimal transport": (*_MLP, "--objective", "cfm", "--coupling", "ot", "--labels"),
    "efm": (*_MLP, "--objective", "efm", "--bank-size", 5, "--labels"),
    "meanflow": (*_MLP, "--objective", "meanflow"),
    "likelihood": (*_MLP, "--objective", "likelihood", "--likelihood-steps", 2),
    "dropout": (*_COMMON, *_UNET, "--steps", STEPS // 2),
    "support": (
        *("--tasks", "shells", "--width", 8, "--heads", 2, "--batch-size", 2, "--points", 8, "--bank", 8),
        *("--steps", STEPS, "--checkpoint-every", EVERY, "--log-every", 1),
    ),
}


@dataclass(frozen=True)
class Training:
    """A kind of training in a folder of its own.

    Args:
        case: Name in ``CASES``.
        run: The run folder.
    """

    case: str
    run: Path

    @property
    def head(self) -> list[str]:
        """The words of the command."""
        return ["support", "train"] if self.case == "support" else ["train"]

    @property
    def steps(self) -> int:
        """Updates of the whole training."""
        settings = CASES[self.case]
        last = len(settings) - 1 - settings[::-1].index("--steps")
        return int(settings[last + 1])

    def arguments(self) -> list[str]:
        """Starts the training, or continues it once there is something to continue."""
        if (self.run / "config.toml").exists():
            return [*self.head, "--resume", str(self.run)]
        return [*self.head, *map(str, CASES[self.case]), "--out", str(self.run)]


def write_data(folder: Path) -> None:
    """The points that the trainings read: 30 in three dimensions, in three classes."""
    random = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=random.normal(size=(30, 3)).astype(np.float32), y=np.arange(30) % 3)


@contextlib.contextmanager
def own_folder(program: str) -> Iterator[Path]:
    """The working directory of a program, with the data in it; removed afterwards."""
    # Not a TemporaryDirectory, which a forked process that runs exit functions would remove.
    folder = Path(tempfile.mkdtemp(prefix=f"fluvial-{program}-")).resolve()
    try:
        with contextlib.chdir(folder):
            write_data(folder)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fork(body: Callable[[], int], output: Path) -> int:
    """A child that runs ``body`` with its output appended to a file, and exits with its status.

    Returns:
        The child's process id, once it is about to begin.
    """
    sys.stdout.flush()
    ready, told = os.pipe()
    child = os.fork()
    if child:
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return child
    status = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(stream, descriptor)
        os.write(told, b".")
        status = body()
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def fork_command(arguments: Sequence[str], output: Path) -> int:
    """A child that runs a ``fluvial`` command; its process id."""
    return fork(lambda: command(arguments), output)


def learn_imports(arguments: Sequence[str], output: Path) -> None:
    """Runs a command in a child and imports here what it imported, so that the next child need not.

    Raises:
        RuntimeError: If the command fails.
    """
    names = output.with_name("modules.json")

    def body() -> int:
        status = command(arguments)
        names.write_text(json.dumps(sorted(sys.modules)))
        return status

    if status := wait(fork(body, output)):
        raise RuntimeError(f"{arguments[0]} ended with status {status}: {output.read_text()[-2000:]}")
    for name in json.loads(names.read_text()):
        if name not in sys.modules and name.split(".")[0] in ("torch", "scipy", "sklearn", "fluvial", "accelerate"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def wait(child: int, seconds: float = 120.0) -> int:
    """Exit status of a child, negative after a signal that it did not handle.

    Raises:
        TimeoutError: If it takes longer than that; it is killed.
    """
    end, pause = time.monotonic() + seconds, 0.001
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"process {child} did not end within {seconds} s")
        time.sleep(pause)


def run_to_end(training: Training, output: Path) -> None:
    """Starts or continues a training and waits for its end.

    Raises:
        RuntimeError: If it fails.
    """
    status = wait(fork_command(training.arguments(), output))
    if status:
        raise RuntimeError(f"{training.case} ended with status {status}: {output.read_text()[-2000:]}")


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder."""
    found = sorted(folder.rglob("*"))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found if file.is_file()}


def losses(run: Path) -> list[tuple[Any, ...]]:
    """What a run's metrics say that no clock decides."""
    return [tuple(value for name, value in row.items() if "second" not in name) for row in read_metrics(run)]


def difference(whole: Path, run: Path) -> str:
    """The first thing in which a finished run differs from one that was never interrupted; empty if in none."""
    last = sorted(folder.name for folder in (whole / "checkpoints").glob("step-*"))[-1]
    ones, others = files(whole / "checkpoints" / last), files(run / "checkpoints" / last)
    for name in sorted(ones.keys() | others.keys()):
        if ones.get(name) != others.get(name):
            return f"checkpoints/{last}/{name}"
    if losses(whole) != losses(run):
        return "metrics.jsonl"
    previews = [files(folder / "samples") for folder in (whole, run)]
    return "" if previews[0] == previews[1] else "samples"


def draw(training: Training, folder: Path, output: Path) -> bytes:
    """Samples of a run as bytes; none of a meta-training, which draws them from examples."""
    if training.case == "support":
        return b""
    out = folder / "drawn.npz"
    arguments = ["sample", str(training.run), "--n", "8", "--steps", "4", "--out", str(out), "--overwrite"]
    if status := wait(fork_command(arguments, output)):
        raise RuntimeError(f"sample ended with status {status}: {output.read_text()[-2000:]}")
    with np.load(out, allow_pickle=False) as arrays:
        return b"".join(arrays[name].tobytes() for name in sorted(arrays.files))


class Ticker:
    """Says on stderr every few seconds how far a program is."""

    def __init__(self, total: int, what: str, every: float = 5.0) -> None:
        self._total, self._what, self._every = total, what, every
        self._start = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._start

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told < self._every or not done:
            return
        self._told, rate = now, done / (now - self._start)
        left = (self._total - done) / rate
        print(f"{self._what} {done}/{self._total}  {rate:.3g}/s  {left:.0f} s left", file=sys.stderr, flush=True)


def tell(record: dict[str, Any], as_json: bool) -> int:
    """Prints the counts; the exit status: 1 if there are failures."""
    print(json.dumps(record) if as_json else "\n".join(f"{name}: {value}" for name, value in record.items()))
    return 1 if record["failures"] else 0
