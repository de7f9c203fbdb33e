"""What an extractor is, and how features of a whole set are taken: in batches, with progress, kept by content."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.data.images import from_uint8, to_uint8
from fluvial.kinds import checked
from fluvial.metrics.extractors.cache import FeatureCache, content_hash
from fluvial.progress import Progress, ProgressCallback

UINT8_RULE = "round(127.5 (x + 1)), clipped to 0..255"
"""How images become grey levels before any features are taken of them: real and generated ones alike."""


@runtime_checkable
class Extractor(Protocol):
    """What turns data into features; its scores compare with those of the same hash alone.

    It may also declare ``costly = False``, if its features are cheaper to take again than to keep on disk.
    """

    @property
    def name(self) -> str:
        """Short name, for tables."""

    @property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of its weights and settings."""

    def describe(self) -> Mapping[str, str]:
        """Its protocol: ``resize``, ``range``, ``uint8``, ``features`` and where its weights come from."""

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n k"]:
        """Features of a batch, on the CPU."""


@dataclass(frozen=True)
class Custom:
    """A function of one's own as an extractor. Nothing pins it, so that its features are never kept.

    Args:
        function: Turns data, shape (n, *D), into features, shape (n, k).
        name: Short name.

    Example:
        >>> Custom(lambda x: x.flatten(1), "flat")(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 12])
    """

    function: Callable[[Float[Tensor, "n ..."]], Float[Tensor, "n k"]]
    name: str

    @property
    def costly(self) -> bool:
        """No: there is nothing to name its features by."""
        return False

    @property
    def hash(self) -> str:
        """Unknown."""
        return "unknown"

    def describe(self) -> Mapping[str, str]:
        """The protocol, as far as it is known."""
        return {"features": "a function of the caller's", "resize": "unknown", "range": "as the data", "uint8": "none"}

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n k"]:
        """The function's values, on the CPU."""
        return self.function(x).cpu()


@checked
def extract_features(
    extractor: Extractor,
    x: Float[Tensor, "n ..."],
    *,
    batch_size: int = 256,
    cache: FeatureCache | None = None,
    progress: ProgressCallback | None = None,
) -> Float[Tensor, "n k"]:
    """Features of all rows, batch by batch, without gradients; from the cache where they are in it.

    Args:
        extractor: As of :func:`load_extractor`.
        x: Data, shape (n, *D), n >= 1; images are in [-1, 1].
        batch_size: Rows at once: decides the memory used, not the result.
        cache: Where features are kept; None keeps none.
        progress: Called after every batch.

    Returns:
        Shape (n, k), on the CPU.

    Raises:
        ValueError: If there are no rows, the batch size is not positive, or features are not finite.

    Example:
        >>> from fluvial.metrics.extractors import load_extractor
        >>> extract_features(load_extractor("pixels"), torch.zeros(3, 1, 4, 4)).shape
        torch.Size([3, 16])
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if len(x) == 0:
        raise ValueError("x must have at least one row, got 0")
    keeps = cache if getattr(extractor, "costly", True) else None
    key = f"features-{extractor.hash[:32]}-{content_hash(x)[:32]}" if keeps else ""
    known = keeps.load(key) if keeps else None
    if known is not None and "features" in known and len(known["features"]) == len(x):
        return known["features"]
    parts = []
    for start in range(0, len(x), batch_size):
        with torch.no_grad():
            parts.append(extractor(x[start : start + batch_size]))
        if progress is not None:
            progress(Progress(f"features {extractor.name}", min(start + batch_size, len(x)), len(x)))
    wrong = [type(part).__name__ for part in parts if not isinstance(part, Tensor)]
    if wrong:
        raise TypeError(f"extractor must return a tensor of features, got {wrong[0]}")
    features = torch.cat(parts)
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"features of {extractor.name} must be finite, got NaN or infinity: x must be in its range")
    if keeps:
        keeps.store(key, {"features": features})
    return features


def settings_hash(*parts: Any) -> str:
    """SHA-256, in hexadecimal, of plain values.

    Example:
        >>> settings_hash("pixels", 1)[:8] == settings_hash("pixels", 1)[:8] != settings_hash("pixels", 2)[:8]
        True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def quantised(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """Images as a picture file would hold them: rounded to 256 grey levels, float32 in [-1, 1].

    Example:
        >>> quantised(torch.tensor([[-3.0, 0.001]]))
        tensor([[-1.0000,  0.0039]])
    """
    return from_uint8(to_uint8(x.cpu()))


def as_rgb(x: Float[Tensor, "n C H W"], name: str) -> Float[Tensor, "n 3 H W"]:
    """Images in [-1, 1], grey or RGB, as 256-level RGB in [0, 1].

    Raises:
        ValueError: If they are no images with 1 or 3 channels; ``name`` is that of the extractor.

    Example:
        >>> as_rgb(torch.ones(2, 1, 4, 4), "inception").shape
        torch.Size([2, 3, 4, 4])
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"extractor {name} takes images of shape (n, 1 or 3, H, W), got {tuple(x.shape)}")
    return (to_uint8(x.cpu()).float() / 255).expand(-1, 3, -1, -1)
