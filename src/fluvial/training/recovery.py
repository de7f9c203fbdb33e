"""Which checkpoint a run is read from: the newest whose every bit is as it was written.

A checkpoint is verified as a whole, by size and sha256, before anything of it is used. A damaged one is reported
as a warning and the one before it is taken; nothing of it is removed.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fluvial.training.checkpoints import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    remove_partial_checkpoints,
)

_ASIDE = ".damaged-"
# Folders that vanish between listing and reading were removed by a training that goes on in another process.
_LISTINGS = 5


class DamagedCheckpoint(UserWarning):
    """A checkpoint is damaged, and the one before it is used."""


@dataclass(frozen=True)
class Damaged:
    """A checkpoint that cannot be used.

    Args:
        folder: Where it is.
        reason: What is wrong with it, with the file's name.
    """

    folder: Path
    reason: str


def load_intact(folder: Path) -> Checkpoint:
    """Read a checkpoint of which every file has its recorded size and sha256.

    Args:
        folder: The checkpoint folder.

    Returns:
        The checkpoint; memory use does not grow with its files.

    Raises:
        ValueError: If a file is missing, truncated or changed, or the folder is not a checkpoint of fluvial.
        OSError: If it may not be read, or its disk has gone: that says nothing about the checkpoint.

    Example:
        >>> load_intact(Path("runs/a/checkpoints/step-00000010"))
        Traceback (most recent call last):
        ValueError: runs/a/checkpoints/step-00000010/state.json is missing
    """
    checkpoint = load_checkpoint(folder)
    checkpoint.check_hashes()
    return checkpoint


def newest_intact(run: Path) -> tuple[Checkpoint | None, list[Damaged]]:
    """The newest checkpoint that is intact, and the newer ones that are not; nothing is changed.

    Args:
        run: The run folder.

    Returns:
        The checkpoint, or None if there is none; then the damaged ones, newest first.

    Raises:
        ValueError: If another process removes the checkpoints faster than they are read.
        OSError: If a checkpoint may not be read, or its disk has gone.

    Example:
        >>> newest_intact(Path("no/such/run"))
        (None, [])
    """
    for _ in range(_LISTINGS):
        damaged: list[Damaged] = []
        for folder in reversed(list_checkpoints(run)):
            try:
                return load_intact(folder), damaged
            except ValueError as error:
                if not folder.exists() and not folder.is_symlink():
                    break
                damaged.append(Damaged(folder, str(error)))
        else:
            return None, damaged
    raise ValueError(
        f"{run} cannot be read: {_LISTINGS} times in a row a checkpoint was removed before it was read, as by a "
        "training that goes on there; try again"
    )


@contextmanager
def removal_told(run: Path, checkpoint: Checkpoint) -> Iterator[None]:
    """Inside, a checkpoint that a training has removed since it was read is told as that, not as damage.

    Args:
        run: The run folder.
        checkpoint: The checkpoint of which files are read inside.

    Raises:
        ValueError: As above, instead of what was raised inside.
    """
    try:
        yield
    except ValueError as error:
        newest = latest_checkpoint(run)
        if newest is None or newest.name == checkpoint.folder.name or checkpoint.folder.exists():
            raise
        raise ValueError(
            f"{checkpoint.folder} was removed after the run had been read, as a training that goes on does with old "
            f"checkpoints; read the run again, which now has {newest.name}"
        ) from error


def read_newest(run: Path) -> Checkpoint | None:
    """The newest intact checkpoint of a run; a newer one that is damaged is reported.

    Args:
        run: The run folder.

    Returns:
        The checkpoint; None before the first.

    Raises:
        ValueError: If there are checkpoints and none is intact.
        OSError: If a checkpoint may not be read, or its disk has gone.

    Warns:
        DamagedCheckpoint: For each damaged one: the file, what is wrong with it, and which step is used instead.

    Example:
        >>> read_newest(Path("no/such/run")) is None
        True
    """
    checkpoint, damaged = newest_intact(run)
    _report(run, checkpoint, damaged)
    return checkpoint


def recover_newest(run: Path) -> Checkpoint | None:
    """What a training continues from: :func:`read_newest`, with all else moved out of its way.

    What was half-written when a process died is removed. A damaged checkpoint, whose step will be written
    again, is renamed to ``checkpoints/.damaged-step-00000010``, for a person to look at or remove.

    Args:
        run: The run folder, which this process alone trains in.

    Returns:
        The checkpoint; None before the first.

    Raises:
        ValueError: If there are checkpoints and none is intact; all are left as they are.
        OSError: If a checkpoint may not be read or renamed, or its disk has gone.

    Warns:
        DamagedCheckpoint: As for :func:`read_newest`.

    Example:
        >>> recover_newest(Path("no/such/run")) is None
        True
    """
    remove_partial_checkpoints(run)
    checkpoint, damaged = newest_intact(run)
    _report(run, checkpoint, damaged)
    for found in damaged:
        found.folder.rename(_free_name(found.folder))
    return checkpoint


def _report(run: Path, checkpoint: Checkpoint | None, damaged: list[Damaged]) -> None:
    if not damaged:
        return
    if checkpoint is None:
        others = "it is the only checkpoint" if len(damaged) == 1 else f"none of the {len(damaged)} is intact"
        folder = damaged[0].folder.parent
        raise ValueError(
            f"{damaged[0].reason}; {others}: move {folder} away, and --resume {run} starts from the first step"
        )
    for found in damaged:
        message = f"{found.reason}; step {checkpoint.step} is used instead of {found.folder.name}"
        warnings.warn(DamagedCheckpoint(message), stacklevel=3)


def _free_name(folder: Path) -> Path:
    plain = folder.with_name(f"{_ASIDE}{folder.name}")
    name, number = plain, 2
    while name.exists() or name.is_symlink():
        name, number = plain.with_name(f"{plain.name}-{number}"), number + 1
    return name
