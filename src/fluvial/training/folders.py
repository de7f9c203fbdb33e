"""The run folder: when it may be written to, and what overwriting may remove; imports no torch."""

import shutil
import tempfile
from pathlib import Path

from fluvial.training.config import CONFIG_FILE, read_run_table


def check_run_folder(run: Path, overwrite: bool = False) -> None:
    """Check that a new run can be written to a folder, changing nothing.

    Args:
        run: The folder; it need not exist.
        overwrite: Whether a run that is there may be removed.

    Raises:
        ValueError: If the folder holds a run and ``overwrite`` is off, holds anything else, or cannot be
            listed.
    """
    try:
        if not run.exists():
            return
        if not run.is_dir():
            raise ValueError(f"{run} is a file, not a folder; give another --out")
        if not any(run.iterdir()):
            return
    except OSError as error:
        raise ValueError(f"{run} cannot be used as a run folder: {error.strerror}") from error
    try:
        read_run_table(run)
    except ValueError as error:
        raise ValueError(
            f"{run} holds files that are not a fluvial run (no {CONFIG_FILE} of fluvial), which --overwrite "
            "never removes; give another --out"
        ) from error
    if not overwrite:
        raise ValueError(
            f"{run} already holds a run; continue it with --resume {run}, replace it with --overwrite, or "
            "give another --out"
        )


def prepare_run_folder(run: Path, overwrite: bool = False) -> None:
    """Make an empty, writable run folder; with ``overwrite``, remove the run that is there.

    Args:
        run: The folder; parents are made.
        overwrite: Whether a run that is there may be removed. Only a folder with fluvial's config.toml is.

    Raises:
        ValueError: If the folder holds a run and ``overwrite`` is off, holds anything else, or cannot be
            written.
    """
    check_run_folder(run, overwrite)
    try:
        run.mkdir(parents=True, exist_ok=True)
        _empty(run)
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise ValueError(f"{run} cannot be written: {error.strerror}") from error


def _empty(folder: Path) -> None:
    # config.toml goes last, so that a folder left half-way is still known as a run.
    for child in sorted(folder.iterdir(), key=lambda child: child.name == CONFIG_FILE):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
