"""Embeddings of times and labels."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluvial.checks import require_beside, require_tensor
from fluvial.kinds import checked


@checked
class TimeEmbedding(nn.Module):
    r"""Sines and cosines of :math:`s t`, at frequencies falling geometrically from 1 to 1/10,000.

    The scale is explicit because it decides what the net can tell apart: embeddings made for steps 0 to 1000 are nearly
    constant when fed times in [0, 1].

    Args:
        dim: Number of features; even.
        scale: ``s``, the factor that times in [0, 1] are multiplied by.

    Raises:
        ValueError: If ``dim`` is odd or not positive, or ``scale`` not positive.

    Example:
        >>> TimeEmbedding(8)(torch.zeros(2)).shape
        torch.Size([2, 8])
    """

    frequencies: Tensor

    def __init__(self, dim: int, scale: float = 1000.0) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"dim must be even and at least 2, got {dim}")
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive, got {scale}")
        half = dim // 2
        frequencies = scale * torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B F"]:
        """Features of each time, shape ``(B, dim)``."""
        require_tensor("t", t)
        if t.ndim != 1:
            raise ValueError(f"t must have shape (B,), got {tuple(t.shape)}")
        require_beside("t", t, "the net's weights", self.frequencies)
        angle = t[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], 1)


@checked
class LabelEmbedding(nn.Module):
    """A learned row for each label and one for none.

    Args:
        classes: Number of labels.
        dim: Number of features.

    Example:
        >>> LabelEmbedding(10, 4)(torch.tensor([3, -1]), 2).shape
        torch.Size([2, 4])
    """

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be at least 1, got {classes}")
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.classes = classes
        self.table = nn.Embedding(classes + 1, dim)

    def forward(self, labels: Int[Tensor, "B"] | None, rows: int) -> Float[Tensor, "B F"]:
        """Features of each label; label -1, or None for all ``rows``, is the learned null."""
        if labels is None:
            return self.table.weight[-1].expand(rows, -1)
        require_tensor("labels", labels)
        if labels.ndim != 1 or labels.dtype not in (torch.int64, torch.int32):
            given = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"labels must be int64 or int32 of shape (B,), got {given}")
        require_beside("labels", labels, "the net's weights", self.table.weight)
        if labels.device.type == "cpu" and not torch.compiler.is_compiling() and len(labels):
            largest = int(labels.max())
            if largest >= self.classes:
                raise ValueError(f"labels must be below {self.classes}, got {largest}")
        found: Tensor = self.table(torch.where(labels < 0, self.classes, labels))
        return found
