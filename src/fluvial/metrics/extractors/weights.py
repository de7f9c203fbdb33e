"""Weights of published nets: found, read without running code from them, and put into a net by name."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluvial.data.memory import check_fits
from fluvial.data.quoting import LONGEST, one_line, quoted
from fluvial.metrics.extractors.pickles import check_pickles

_SHOWN = 3


def hub_file(name: str) -> Path | None:
    """A file that ``torch.hub`` has downloaded before, by its name; None if there is none."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    return path if path.is_file() else None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a ``.safetensors`` or a PyTorch file; pickled code is never run.

    Raises:
        ValueError: If the file is absent, damaged, or holds something else than tensors by name.
    """
    if not path.is_file():
        raise ValueError(f"weights {str(path)!r} {'are no file' if path.exists() else 'do not exist'}")
    check_fits(2 * path.stat().st_size, f"weights {str(path)!r}", "take a smaller net")
    try:
        found = _loaded(path)
    except Exception as error:  # each format has errors of its own, and all mean the same to the reader
        reason = one_line(" ".join(str(error).split()), 120)
        raise ValueError(f"weights {str(path)!r} cannot be read ({type(error).__name__}: {reason})") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"weights {str(path)!r} must hold tensors by name, got {type(found).__name__}")
    _check_sizes(found, path)
    return dict(found)


def _loaded(path: Path) -> Any:
    if path.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with warnings.catch_warnings():  # of files that are written in an unusual way
        warnings.simplefilter("ignore")
        check_pickles(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_sizes(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses shapes without numbers behind them, which a net would be built after: empty ones and repeated numbers."""
    empty = [name for name, value in tensors.items() if not value.numel()]
    if empty:
        raise ValueError(f"weights {str(path)!r} hold no numbers in {quoted(empty[0])}")
    total = sum(value.numel() * value.element_size() for value in tensors.values())
    length = path.stat().st_size
    if total > 2 * length:  # two names may share one tensor
        raise ValueError(f"weights {str(path)!r} promise {total:,} bytes of numbers and have {length:,}")


def fill(net: nn.Module, tensors: Mapping[str, Tensor], path: Path, what: str, spare: Iterable[str] = ()) -> None:
    """Puts tensors into a net, every one of whose own must be there.

    Args:
        net: The net; left in evaluation mode, without gradients.
        tensors: By name.
        path: Where they come from, for the error.
        what: What the net is, for the error.
        spare: Beginnings of names that may be there as well, and are left out.

    Raises:
        ValueError: If tensors are missing, left over, of another shape, or not finite; the first few are named.
    """
    given = require_fit(net, tensors, path, what, spare)
    damaged = [name for name, value in given.items() if not bool(value.isfinite().all())]
    if damaged:
        raise ValueError(f"weights {str(path)!r} are damaged: {_few(damaged)} hold NaN or infinite values")
    net.load_state_dict(given, strict=False)
    net.eval().requires_grad_(False)


def require_fit(
    net: nn.Module, tensors: Mapping[str, Tensor], path: Path, what: str, spare: Iterable[str] = ()
) -> dict[str, Tensor]:
    """The tensors that :func:`fill` puts into a net, which may be on the device ``meta`` and take no memory.

    Args:
        net: The net; it stays as it is.
        tensors: By name.
        path: Where they come from, for the error.
        what: What the net is, for the error.
        spare: Beginnings of names that may be there as well, and are left out.

    Raises:
        ValueError: If tensors are missing, left over, or of another shape or kind; the first few are named.
    """
    given = {name: value for name, value in tensors.items() if not _spared(name, spare)}
    wanted = {name: value for name, value in net.state_dict().items() if not _spared(name, ())}
    missing = [name for name in wanted if name not in given]
    left_over = [name for name in given if name not in wanted]
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    misshapen += [
        f"{name} of type {given[name].dtype}"
        for name, value in wanted.items()
        if name in given and given[name].is_floating_point() != value.is_floating_point()
    ]
    wrong = [
        f"{_few(names)} {state}"
        for names, state in ((missing, "missing"), (left_over, "unexpected"), (misshapen, ""))
        if names
    ]
    if wrong:
        raise ValueError(f"weights {str(path)!r} are not those of {what}: {'; '.join(wrong).strip()}")
    return given


def _spared(name: str, spare: Iterable[str]) -> bool:
    # the count of batches has no part in evaluation, and older files lack it
    return name.endswith("num_batches_tracked") or name.startswith(tuple(spare))


def _few(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(
        name if name.isprintable() and len(name) < LONGEST else quoted(name) for name in names[:_SHOWN]
    ) + (f" and {rest} more" if rest > 0 else "")


def file_hash(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
