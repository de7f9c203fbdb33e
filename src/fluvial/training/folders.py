"""The run folder: when it may be written to, and what overwriting may remove; imports no torch."""

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from fluvial.data.specs import parse_spec
from fluvial.training.config import CONFIG_FILE, read_config

LOCK_FILE = ".lock"
# All that a process which died before it had written config.toml can leave.
_BEFORE_CONFIG = (LOCK_FILE, f".partial-{CONFIG_FILE}")
_FOLDERS = ("checkpoints", "samples", "likelihood", "audit", "tensorboard")
# Everything that fluvial writes below a run folder, what a kill left half-written included.
_FILES = re.compile(
    r"""config\.toml | metrics\.jsonl | report\.html | audit\.json | \.lock | \.partial-(config\.toml|metrics\.jsonl)
    | checkpoints/\.(partial|damaged)-.+ | checkpoints/step-\d+/(model|ema|optimizer)\.safetensors
    | checkpoints/step-\d+/state\.json | samples/.+\.(?i:png|npy|npz|json) | likelihood/.+\.(npz|json|png)
    | audit/(audit\.json|report\.html) | tensorboard/.*events\..+""",
    re.VERBOSE,
)


def check_run_folder(
    run: Path, overwrite: bool = False, data: str = "", *, read: Callable[[Path], object] = read_config
) -> None:
    """Check that a new run can be written to a folder, changing nothing.

    Args:
        run: The folder; it need not exist.
        overwrite: Whether a run that is there may be removed.
        data: Spec of the data to train on; it is looked at if given.
        read: Reads the config of the kind of run that may be replaced, or raises ValueError.

    Raises:
        ValueError: If the folder holds the data, holds a run and ``overwrite`` is off, holds anything else, or
            cannot be listed.
    """
    path = parse_spec(data).path if data else None
    if path is not None and path.resolve().is_relative_to(run.resolve()):
        raise ValueError(f"{run} holds the training data {str(path)!r}; give another --out")
    try:
        if not run.exists():
            return
        if not run.is_dir():
            raise ValueError(f"{run} is a file, not a folder; give another --out")
        if all(child.name in _BEFORE_CONFIG for child in run.iterdir()):
            return
        _check_is_run(run, read)
        if not overwrite:
            raise ValueError(
                f"{run} already holds a run; continue it with --resume {run}, replace it with --overwrite, or "
                "give another --out"
            )
        foreign = foreign_file(run)
    except OSError as error:
        raise ValueError(f"{run} cannot be used as a run folder: {error.strerror}") from error
    if foreign is not None:
        raise ValueError(
            f"{foreign} was not written by fluvial, and --overwrite removes nothing else; move it, or give "
            "another --out"
        )


def _check_is_run(run: Path, read: Callable[[Path], object]) -> None:
    try:
        read(run)
    except ValueError as error:
        raise ValueError(
            f"{run} holds files that are not a fluvial run, which --overwrite never removes ({error}); "
            "give another --out"
        ) from error


def foreign_file(run: Path) -> Path | None:
    """The first file, link or folder in a run folder that fluvial does not write; None if there is none."""
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        is_folder = path.is_dir() and not path.is_symlink()
        if not (name.partition("/")[0] in _FOLDERS if is_folder else _FILES.fullmatch(name)):
            return path
    return None


def make_run_folder(run: Path) -> None:
    """Make a run folder and its parents, or check that the one that is there can be written to.

    Raises:
        ValueError: If it cannot be made or written to.
    """
    try:
        run.resolve().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        raise ValueError(f"{run} cannot be written: {getattr(error, 'strerror', error)}") from error


def prepare_run_folder(
    run: Path, overwrite: bool = False, data: str = "", *, read: Callable[[Path], object] = read_config
) -> None:
    """Make an empty, writable run folder; with ``overwrite``, remove the run that is there. A lock file stays.

    Args:
        run: The folder; parents are made.
        overwrite: Whether a run that is there may be removed. Nothing that fluvial did not write is.
        data: Spec of the data to train on, which must lie elsewhere.
        read: Reads the config of the kind of run that may be replaced, or raises ValueError.

    Raises:
        ValueError: If the folder holds the data, holds a run and ``overwrite`` is off, holds anything else, or
            cannot be written.
    """
    check_run_folder(run, overwrite, data, read=read)
    make_run_folder(run)
    try:
        _empty(run)
    except OSError as error:
        raise ValueError(f"{run} cannot be written: {error.strerror}") from error


def _empty(folder: Path) -> None:
    # config.toml goes last, so that a folder left half-way is still known as a run.
    for child in sorted(folder.iterdir(), key=lambda child: child.name == CONFIG_FILE):
        if child.name in _FOLDERS:
            shutil.rmtree(child)
        elif child.name != LOCK_FILE and _FILES.fullmatch(child.name):
            child.unlink()
