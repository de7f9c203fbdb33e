"""What a net knows beside its point: the time, the gap to a second time, and a label or an embedding."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluvial.checks import as_times, require_input
from fluvial.conditions import Embedding, Tokens, is_present
from fluvial.kinds import checked
from fluvial.nn.embeddings import LabelEmbedding, TimeEmbedding


@checked
class Conditioning(nn.Module):
    """Features of time, gap and condition, one row for each point.

    A net takes labels, embeddings or tokens, not two of them. Tokens are checked here and met in the net itself, by
    cross-attention.

    Args:
        width: Number of features; even.
        classes: Number of labels, None for a net without.
        embedding: Length of the embeddings, None for a net without.
        tokens: Length of the tokens, None for a net without.
        gap: Whether the net takes a second time ``r >= t``.
        time_scale: Factor of times in [0, 1] before their sines and cosines; by default 1000, and 1 with a gap, since
            Mean Flows regress on the derivative in time as well, which the factor multiplies.

    Raises:
        ValueError: If ``width`` is odd, a size is not positive, or two kinds of condition are asked for; in
            ``forward`` as described there.

    Example:
        >>> Conditioning(16, classes=10)(torch.zeros(3, 2), 0.5, torch.tensor([1, -1, 9])).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        width: int,
        *,
        classes: int | None = None,
        embedding: int | None = None,
        tokens: int | None = None,
        gap: bool = False,
        time_scale: float | None = None,
    ) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width must be even and at least 2, got {width}")
        kinds = {"classes": classes, "embedding": embedding, "tokens": tokens}
        for name, size in kinds.items():
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        asked = [name for name, size in kinds.items() if size is not None]
        if len(asked) > 1:
            raise ValueError(f"a net takes one kind of condition, got {' and '.join(asked)}")
        self.classes, self.embedding, self.tokens = classes, embedding, tokens
        self.time = TimeEmbedding(width, (1.0 if gap else 1000.0) if time_scale is None else time_scale)
        self.time_in = nn.Linear(width, width)
        self.gap_in = nn.Linear(width, width) if gap else None
        self.label = None if classes is None else LabelEmbedding(classes, width)
        self.vector_in = None if embedding is None else nn.Linear(embedding, width)
        self.null = None if embedding is None else nn.Parameter(0.02 * torch.randn(width))
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B *D"], t: Tensor | float, cond: Any = None, r: Tensor | float | None = None
    ) -> Float[Tensor, "B F"]:
        """Features of shape ``(B, width)``.

        Args:
            x: Points, which give the number of rows and the type of the times.
            t: Times, a scalar or ``(B,)``.
            cond: Labels ``(B,)`` with -1 for none, an ``Embedding``, ``Tokens``, or None for none in all rows.
            r: Second times, like ``t``; None means ``r = t``.

        Raises:
            ValueError: If the condition is not of the kind or size that the net takes, a label is out of range
                (checked on the CPU, where it costs no synchronisation), or ``r`` comes to a net without a gap.
        """
        require_input(x, self.time_in.weight)
        t = as_times(t, x).to(x.dtype).expand(len(x))
        self._check(cond, len(x))
        h: Tensor = self.time_in(self.time(t))
        if self.gap_in is not None:
            gap = torch.zeros_like(t) if r is None else as_times(r, x, "r").to(x.dtype).expand(len(x)) - t
            h = h + self.gap_in(self.time(gap))
        elif r is not None:
            raise ValueError("this net takes no second time r: build it with gap=True")
        if self.label is not None:
            h = h + self.label(cond, len(x))
        if self.vector_in is not None and self.null is not None:
            h = h + (self.null if cond is None else self._vector(self.vector_in, self.null, cond, x))
        out: Tensor = nn.functional.silu(self.out(nn.functional.silu(h)))
        return out

    def _vector(self, project: nn.Linear, null: Tensor, cond: Embedding, x: Tensor) -> Tensor:
        there = cond.present[:, None]
        value = cond.value.to(x.dtype).masked_fill(~there, 0)  # not even a NaN plays a part, nor in the gradient
        return torch.where(there, project(value), null)

    def _check(self, cond: Any, rows: int) -> None:
        if cond is None:
            return
        kind, option, size = _kind(cond)
        if getattr(self, option) is None:
            raise ValueError(f"this net takes no {kind}: build it with {option}=")
        if len(cond) != rows:
            raise ValueError(f"cond must have {rows} rows, one for each point, got {len(cond)}")
        if option != "classes" and size != getattr(self, option):
            raise ValueError(f"{kind} must have length {getattr(self, option)}, got {size}")


_WHOLE = (torch.int64, torch.int32)


def _kind(cond: Any) -> tuple[str, str, int]:
    """What a condition is called, the option of a net that takes it, and the length of its vectors."""
    if isinstance(cond, Embedding):
        return "embeddings", "embedding", cond.value.shape[1]
    if isinstance(cond, Tokens):
        return "tokens", "tokens", cond.value.shape[2]
    if isinstance(cond, Tensor) and cond.ndim == 1 and cond.dtype in _WHOLE:
        return "labels", "classes", 0
    described = tuple(cond.shape) if isinstance(cond, Tensor) else type(cond).__name__
    raise ValueError(f"cond must be whole labels (B,), an Embedding or Tokens, got {described}")


def with_null(tokens: Tokens | None, null: Float[Tensor, "e"], rows: int) -> Tokens:
    """Tokens in which each row has at least one: the learned ``null`` where it has none of its own.

    Args:
        tokens: Tokens ``(B, m, e)``, or None for none in all rows.
        null: The learned row.
        rows: B.

    Example:
        >>> with_null(None, torch.zeros(4), 2).mask
        tensor([[True],
                [True]])
    """
    first = null.expand(rows, 1, -1)
    if tokens is None:
        return Tokens.of(first)
    absent = ~is_present(tokens)[:, None]
    return Tokens(torch.cat([first.to(tokens.value.dtype), tokens.value], 1), torch.cat([absent, tokens.mask], 1))
