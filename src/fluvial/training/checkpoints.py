"""Checkpoints: safetensors and one JSON file, written aside, hashed, synced and renamed into place.

``checkpoints/step-00002000/`` holds ``model``, ``ema`` and ``optimizer.safetensors`` and ``state.json``
(step, config, hash of the data, what the net is built from, size and sha256 of each file and of itself). A
folder of that name is complete; what was being written when the process died has another name and is removed
at the next start. Nothing in it tells the clock, the host or how often the run was interrupted: the same
training gives the same bytes.
"""

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fluvial import __version__
from fluvial.data.quoting import one_line
from fluvial.training.damage import damage_named, read_whole, size_of
from fluvial.training.toml import sync_folder, write_synced

FOLDER = "checkpoints"
STATE_FILE = "state.json"
GROUPS = ("model", "ema", "optimizer")
_STEP_NAME = re.compile(r"step-(\d{8,})")
_PARTIAL = ".partial-"
_LARGEST_STATE = 64 * 2**20


class CheckpointLeft(UserWarning):
    """A checkpoint is written, and an older one could not be removed."""


def step_folder(step: int) -> str:
    """Name of the checkpoint folder after ``step`` updates.

    Example:
        >>> step_folder(2000)
        'step-00002000'
    """
    return f"step-{step:08d}"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose ``state.json`` has been read and whose files have their recorded sizes.

    Args:
        folder: Where it is.
        step: Updates made.
        state: Content of ``state.json``.
        hash: sha256 of ``state.json``, which holds the hashes of all other files: it identifies every bit.
    """

    folder: Path
    step: int
    state: Mapping[str, Any]
    hash: str

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors of ``model``, ``ema`` or ``optimizer``, once the file's hash has been verified.

        Raises:
            ValueError: If the file was changed since it was written, or holds no tensors.
            OSError: If it may not be read, or its disk has gone.
        """
        file = self.folder / f"{name}.safetensors"
        content = read_whole(file, largest=self.state["files"][file.name]["bytes"])
        if hashlib.sha256(content).hexdigest() != self.state["files"][file.name]["sha256"]:
            raise ValueError(f"{file} is damaged: its sha256 is not the one in {STATE_FILE}")
        try:
            return dict(sorted(safetensors.torch.load(content).items()))  # in the same order in every process
        except (SafetensorError, LookupError, ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{file} is not a safetensors file: {one_line(error)}") from error

    def count_tensors(self, name: str) -> int:
        """Number of tensors of ``model``, ``ema`` or ``optimizer``, as the head of the file tells it.

        Raises:
            ValueError: If the file is missing, or holds no tensors.
            OSError: If it may not be read, or its disk has gone.
        """
        file = self.folder / f"{name}.safetensors"
        try:
            with damage_named(file):
                size_of(file)
                with safe_open(file, "pt") as opened:
                    return len(opened.keys())
        except SafetensorError as error:
            raise ValueError(f"{file} is not a safetensors file: {one_line(error)}") from error

    def check_hashes(self) -> None:
        """Check that every file has the sha256 that ``state.json`` records, in little memory.

        Raises:
            ValueError: If a file was changed since it was written.
            OSError: If it may not be read, or its disk has gone.
        """
        for group in GROUPS:
            file = self.folder / f"{group}.safetensors"
            with damage_named(file), open(file, "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != self.state["files"][file.name]["sha256"]:
                raise ValueError(f"{file} is damaged: its sha256 is not the one in {STATE_FILE}")


def save_checkpoint(
    run: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep: int,
    every: int = 0,
    make_run: bool = True,
) -> Path:
    """Write a checkpoint, then remove all but the newest ``keep``.

    Args:
        run: The run folder.
        step: Updates made.
        tensors: Named groups of named tensors, one safetensors file each.
        state: JSON values to keep with them.
        keep: Number of checkpoints kept, this one included.
        every: Also keep the newest of those at a multiple of so many steps; 0 keeps none besides.
        make_run: Make the run folder if it is not there. A training that has made its own does without: a
            folder that has gone is a disk that was lost, and nothing must be written to where it was.

    Returns:
        The checkpoint folder.

    Raises:
        OSError: If it cannot be written (a full disk); earlier checkpoints are as they were.

    Warns:
        CheckpointLeft: If an old one cannot be removed; that is tried again after the next.
    """
    final = run / FOLDER / step_folder(step)
    others = final.parent.is_dir() and list_checkpoints(run)
    earlier = "; earlier ones are intact, and --resume goes on from them. Not written" if others else ""
    partial = final.with_name(f"{_PARTIAL}{final.name}")
    try:
        final.parent.mkdir(parents=make_run, exist_ok=True)
        partial.mkdir()
        files = {}
        for name, group in tensors.items():
            content = safetensors.torch.save({key: value.contiguous() for key, value in group.items()})
            write_synced(partial / f"{name}.safetensors", content)
            files[f"{name}.safetensors"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        head = {"fluvial": __version__, "torch": torch.__version__, "step": step}
        write_synced(partial / STATE_FILE, sealed({**head, **state, "files": files}))
        sync_folder(partial)
        partial.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(error.errno, f"checkpoint not written ({error.strerror}){earlier}", str(final)) from error
    try:
        prune_checkpoints(run, keep, every)
    except OSError as error:
        warnings.warn(CheckpointLeft(f"{final} is written, and an older one is not removed: {error}"), stacklevel=2)
    return final


def sealed(state: Mapping[str, Any]) -> bytes:
    """Content of ``state.json``, whose last entry is the sha256 of all others.

    Example:
        >>> b'"step": 3' in sealed({"step": 3}) and b'"sha256"' in sealed({"step": 3})
        True
    """
    content = {key: value for key, value in state.items() if key != "sha256"}
    return json.dumps({**content, "sha256": _seal(content)}, indent=1).encode()


def _seal(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoint folders of a run, oldest first."""
    folder = run / FOLDER
    found = [(int(m[1]), child) for child in _children(folder) if (m := _STEP_NAME.fullmatch(child.name))]
    return [child for _, child in sorted(found)]


def latest_checkpoint(run: Path) -> Path | None:
    """Newest complete checkpoint folder of a run; None before the first."""
    found = list_checkpoints(run)
    return found[-1] if found else None


def step_of(folder: Path) -> int:
    """Number of updates in the name of a checkpoint folder.

    Example:
        >>> step_of(Path("runs/a/checkpoints/step-00002000"))
        2000
    """
    return int(folder.name.removeprefix("step-"))


def prune_checkpoints(run: Path, keep: int, every: int = 0) -> None:
    """Remove all but the newest ``keep`` checkpoints and, with ``every``, the newest at a multiple of so many steps."""
    found = list_checkpoints(run)
    regular = [folder for folder in found if every and step_of(folder) % every == 0][-1:]
    failed: OSError | None = None
    for folder in found[:-keep]:
        if folder in regular:
            continue
        try:
            _remove(folder)
        except OSError as error:  # of one must not keep the others
            failed = failed or error
    if failed is not None:
        raise failed


def _remove(folder: Path) -> None:
    # Renamed first: a removal cut short must not leave a folder that looks complete.
    partial = folder.with_name(f"{_PARTIAL}old-{folder.name}")
    if partial.exists():  # of a removal that failed before
        shutil.rmtree(partial)
    folder.rename(partial)
    shutil.rmtree(partial)


def remove_partial_checkpoints(run: Path) -> None:
    """Remove what was being written, or removed, when a process died."""
    for child in _children(run / FOLDER):
        if child.name.startswith(_PARTIAL):
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()


def _children(folder: Path) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, expected the folder of the checkpoints; remove it")
    return list(folder.iterdir()) if folder.is_dir() else []


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's ``state.json`` and check that every file is there in full.

    Raises:
        ValueError: If a file is missing or truncated, or the folder is not a checkpoint of fluvial.
        OSError: If it may not be read, or its disk has gone.
    """
    content = read_whole(folder / STATE_FILE, largest=_LARGEST_STATE)
    state = _parse(content, folder.name)
    if state is None:
        raise ValueError(f"{folder} is not a checkpoint of fluvial: {STATE_FILE} is damaged or foreign")
    for name in GROUPS:
        file = folder / f"{name}.safetensors"
        with damage_named(file):
            size, expected = size_of(file), state["files"][file.name]["bytes"]
        if size != expected:
            what = "truncated" if size < expected else "damaged"
            raise ValueError(f"{file} is {what}: {size} bytes of {expected}")
    return Checkpoint(folder, state["step"], state, hashlib.sha256(content).hexdigest())


def _parse(content: bytes, folder_name: str) -> dict[str, Any] | None:
    """State of the checkpoint in the folder of that name; None if it is none, or was changed."""
    try:
        state = json.loads(content)
        step, files = state["step"], [state["files"][f"{name}.safetensors"] for name in GROUPS]
        known = isinstance(state["fluvial"], str) and type(step) is int and step_folder(step) == folder_name
        known = known and all(type(file["bytes"]) is int and isinstance(file["sha256"], str) for file in files)
        # Checkpoints of the first version have no seal.
        rest = {key: value for key, value in state.items() if key != "sha256"}
        return state if known and state.get("sha256", _seal(rest)) == _seal(rest) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
