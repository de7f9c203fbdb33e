"""Checkpoints: safetensors and one JSON file, written aside, hashed, synced and renamed into place.

``checkpoints/step-00002000/`` holds ``model``, ``ema`` and ``optimizer.safetensors`` and ``state.json``
(step, config, hash of the data, what the net is built from, size and sha256 of each file). A folder of that
name is complete; what was being written when the process died has another name and is removed at the next
start.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fluvial import __version__

FOLDER = "checkpoints"
STATE_FILE = "state.json"
GROUPS = ("model", "ema", "optimizer")
_STEP_NAME = re.compile(r"step-(\d{8,})")
_PARTIAL = ".partial-"


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
        """
        file = self.folder / f"{name}.safetensors"
        content = _read(file)
        if hashlib.sha256(content).hexdigest() != self.state["files"][file.name]["sha256"]:
            raise ValueError(f"{file} is damaged: its sha256 is not the one in {STATE_FILE}; {_way_out(self.folder)}")
        try:
            return safetensors.torch.load(content)
        except SafetensorError as error:
            raise ValueError(f"{file} is not a safetensors file: {error}") from error


def save_checkpoint(
    run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, keep: int
) -> Path:
    """Write a checkpoint, then remove all but the newest ``keep``.

    Args:
        run: The run folder.
        step: Updates made.
        tensors: Named groups of named tensors, one safetensors file each.
        state: JSON values to keep with them.
        keep: Number of checkpoints kept, this one included.

    Returns:
        The checkpoint folder.

    Raises:
        OSError: If it cannot be written (a full disk); earlier checkpoints are as they were.
    """
    final = run / FOLDER / step_folder(step)
    earlier = "; earlier ones are intact" if final.parent.is_dir() and list_checkpoints(run) else ""
    partial = final.with_name(f"{_PARTIAL}{final.name}")
    try:
        partial.mkdir(parents=True)
        files = {}
        for name, group in tensors.items():
            content = safetensors.torch.save({key: value.contiguous() for key, value in group.items()})
            _write(partial / f"{name}.safetensors", content)
            files[f"{name}.safetensors"] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        head = {"fluvial": __version__, "torch": torch.__version__, "step": step}
        _write(partial / STATE_FILE, json.dumps({**head, **state, "files": files}, indent=1).encode())
        _sync(partial)
        partial.rename(final)
        _sync(final.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(error.errno, f"checkpoint not written ({error.strerror}){earlier}", str(final)) from error
    prune_checkpoints(run, keep)
    return final


def _write(file: Path, content: bytes) -> None:
    with open(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renames are journalled
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoint folders of a run, oldest first."""
    folder = run / FOLDER
    found = [(int(m[1]), child) for child in _children(folder) if (m := _STEP_NAME.fullmatch(child.name))]
    return [child for _, child in sorted(found)]


def latest_checkpoint(run: Path) -> Path | None:
    """Newest complete checkpoint folder of a run; None before the first."""
    found = list_checkpoints(run)
    return found[-1] if found else None


def prune_checkpoints(run: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints."""
    for folder in list_checkpoints(run)[:-keep]:
        # Renamed first: a removal cut short must not leave a folder that looks complete.
        partial = folder.with_name(f"{_PARTIAL}old-{folder.name}")
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
    """
    content = _read(folder / STATE_FILE)
    try:
        state = json.loads(content)
        step, files = state["step"], state["files"]
        known = isinstance(state["fluvial"], str) and type(step) is int and step_folder(step) == folder.name
        sizes = {f"{name}.safetensors": files[f"{name}.safetensors"]["bytes"] for name in GROUPS}
        known = known and all(isinstance(files[name]["sha256"], str) for name in sizes)
    except (ValueError, KeyError, TypeError, RecursionError):
        known = False
    if not known:
        raise ValueError(
            f"{folder} is not a checkpoint of fluvial: {STATE_FILE} is damaged or foreign; {_way_out(folder)}"
        )
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{file} is missing; {_way_out(folder)}")
        if file.stat().st_size != size:
            raise ValueError(f"{file} is truncated: {file.stat().st_size} bytes of {size}; {_way_out(folder)}")
    return Checkpoint(folder, step, state, hashlib.sha256(content).hexdigest())


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}; {_way_out(file.parent)}") from error


def _way_out(folder: Path) -> str:
    return f"remove {folder.name} to use the checkpoint before it"
