"""One file for a fitted estimator, without pickle: arrays as safetensors, settings as JSON in their header."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fluvial import __version__
from fluvial.data.memory import check_fits
from fluvial.data.quoting import one_line, quoted
from fluvial.metrics.extractors.cache import content_hash
from fluvial.training.toml import write_bytes

_KEY, _HASH = "fluvial", "sha256"


def save_file(
    file: str | os.PathLike[str], kind: str, values: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a file, replacing it in one step.

    Args:
        file: Where to write.
        kind: Name of the estimator.
        values: Its settings and scalars, as JSON can hold them.
        tensors: Its arrays.

    Raises:
        OSError: If it cannot be written; a file that was there is as it was.
    """
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    settings = json.dumps({"version": __version__, "estimator": kind, **values}, default=_number)
    head = json.dumps({**json.loads(settings), _HASH: _seal(settings, kept)})
    write_bytes(Path(file), safetensors.torch.save(kept, {_KEY: head}))


def _seal(settings: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of settings and arrays."""
    names = sorted(tensors)
    whole = json.dumps([settings, names, content_hash(*(tensors[name] for name in names))])
    return hashlib.sha256(whole.encode()).hexdigest()


def _number(value: Any) -> Any:
    """A number of numpy's, such as a search hands over, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"settings must be numbers, texts or None to be saved, got {value!r}")


def read_file(file: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and arrays of a file that :func:`save_file` wrote.

    Raises:
        ValueError: If there is no such file, it is damaged, or it holds another estimator.
    """
    path = Path(file)
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else "there is no such file"
        raise ValueError(f"{path} cannot be loaded: {reason}")
    try:
        check_fits(2 * path.stat().st_size, str(path), "take a machine with more")
        with safe_open(path, framework="pt") as opened:
            values = json.loads((opened.metadata() or {}).get(_KEY, "null"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError, LookupError, ValueError, RuntimeError) as error:  # RecursionError is the last
        raise ValueError(f"{path} is damaged: {one_line(error)}") from error
    if not isinstance(values, dict) or "estimator" not in values:
        raise ValueError(f"{path} holds no estimator of fluvial")
    if values["estimator"] != kind:
        raise ValueError(f"{path} holds another estimator, {quoted(values['estimator'])}; expected {kind}")
    known = values.pop(_HASH, None)
    if known != _seal(json.dumps(values), tensors):
        raise ValueError(f"{path} is damaged: its sha256 is not the one that it records")
    return values, tensors


def column_names(estimator: Any) -> list[str] | None:
    """Names of the columns that an estimator was fitted on, if they had any."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def set_column_names(estimator: Any, names: Any) -> None:
    """Give them back to an estimator that was read.

    Raises:
        ValueError: If there are not as many as columns.
    """
    if names is None:
        return
    if not isinstance(names, list) or len(names) != estimator.n_features_in_:
        raise ValueError(f"names must be those of {estimator.n_features_in_} columns, got {names!r}")
    estimator.feature_names_in_ = np.array([str(name) for name in names], dtype=object)
