"""Features and trained extractors kept on disk, named by the content they came from.

A file holds tensors and the SHA-256 of their bytes. One that is damaged counts as absent, so that it is made again;
files are written aside and renamed, so that two processes may share a folder.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

_BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class FeatureCache:
    """A folder of tensors by key.

    Args:
        folder: Where they are; made when the first is stored.

    Example:
        >>> cache = FeatureCache(Path(tempfile.mkdtemp()))
        >>> cache.store("a", {"features": torch.ones(2)})
        True
        >>> cache.load("a"), cache.load("b")
        ({'features': tensor([1., 1.])}, None)
    """

    folder: Path

    def load(self, key: str) -> dict[str, Tensor] | None:
        """What was stored under a key; None if nothing was, or the file is damaged."""
        from safetensors import SafetensorError, safe_open

        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
                known = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError, LookupError, ValueError, RuntimeError):
            return None
        return tensors if known == _hash(tensors) else None

    def store(self, key: str, tensors: Mapping[str, Tensor]) -> bool:
        """Keeps tensors under a key; whether that worked. A full or read-only disk costs time later, not the result."""
        from safetensors.torch import save

        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        aside = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix=f".{key}-", dir=self.folder)
            with os.fdopen(handle, "wb") as file:
                file.write(save(plain, metadata={"sha256": _hash(plain)}))
            os.replace(aside, self._path(key))
        except OSError:
            if aside is not None:
                Path(aside).unlink(missing_ok=True)
            return False
        return True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def default_cache() -> FeatureCache:
    """The user's cache: ``$XDG_CACHE_HOME/fluvial``, or ``~/.cache/fluvial``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the specification of these folders says that a relative one is to be ignored
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return FeatureCache(root / "fluvial")


def content_hash(*tensors: Shaped[Tensor, "..."]) -> str:
    """SHA-256, in hexadecimal, of the values, types and shapes of tensors.

    Example:
        >>> content_hash(torch.zeros(2, 3)) == content_hash(torch.zeros(3, 2))
        False
    """
    return _hash(dict(enumerate(tensors)))


def _hash(tensors: Mapping[str, Tensor] | Mapping[int, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        for block in flat.split(max(1, _BLOCK_BYTES // flat.element_size())):
            digest.update(block.view(torch.uint8).numpy())
    return digest.hexdigest()
