"""What a model can be conditioned on: labels, embeddings or sets of tokens, each row with or without one.

Labels travel as an integer tensor ``(B,)`` with -1 for none; embeddings and tokens say beside their values which rows
have one. ``cond=None`` is none for all rows. Values may be NaN, as those of absent rows are. Everything here is indexed
by row, ``cond[rows]``, and moved by ``.to``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluvial.checks import require_generator, require_tensor
from fluvial.randomness import draw_rows

NULL_LABEL = -1


@dataclass(frozen=True)
class Embedding:
    """One vector for each row, such as a caption's.

    Args:
        value: Vectors, shape ``(B, e)``; those of absent rows play no part.
        present: Which rows have one, shape ``(B,)``.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> cond = Embedding.of(torch.ones(3, 4))
        >>> len(cond), cond[1:].value.shape
        (3, torch.Size([2, 4]))
    """

    value: Tensor
    present: Tensor

    def __post_init__(self) -> None:
        require_tensor("value", self.value)
        require_tensor("present", self.present)
        if self.value.ndim != 2 or tuple(self.present.shape) != (len(self.value),):
            raise ValueError(
                "an embedding needs value of shape (B, e) and present of shape (B,), got "
                f"{tuple(self.value.shape)} and {tuple(self.present.shape)}"
            )

    @classmethod
    def of(cls, value: Float[Tensor, "B e"]) -> "Embedding":
        """Vectors that are all present."""
        require_tensor("value", value)
        if value.ndim != 2:
            raise ValueError(f"value must have shape (B, e), got {tuple(value.shape)}")
        return cls(value, torch.ones(len(value), dtype=torch.bool, device=value.device))

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, rows: Any) -> "Embedding":
        return self.each(lambda part: part[rows])

    def each(self, function: Callable[[Tensor], Tensor]) -> "Embedding":
        """The same with a function applied to its tensors."""
        return Embedding(function(self.value), function(self.present))

    def to(self, device: Any) -> "Embedding":
        """The same on another device."""
        return self.each(lambda part: part.to(device))


@dataclass(frozen=True)
class Tokens:
    """A set of tokens for each row, such as reference images; their order plays no part.

    Args:
        value: Tokens, shape ``(B, m, *E)``; those that are absent play no part.
        mask: Which tokens are there, shape ``(B, m)``; a row without any has no condition.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> cond = Tokens.of(torch.ones(3, 5, 4))
        >>> len(cond), null_like(cond).mask.any().item()
        (3, False)
    """

    value: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        require_tensor("value", self.value)
        require_tensor("mask", self.mask)
        if self.value.ndim < 3 or self.mask.shape != self.value.shape[:2]:
            raise ValueError(
                "tokens need value of shape (B, m, ...) and mask of shape (B, m), got "
                f"{tuple(self.value.shape)} and {tuple(self.mask.shape)}"
            )

    @classmethod
    def of(cls, value: Float[Tensor, "B m *E"]) -> "Tokens":
        """Tokens that are all there."""
        require_tensor("value", value)
        if value.ndim < 3:
            raise ValueError(f"value must have shape (B, m, ...), got {tuple(value.shape)}")
        return cls(value, torch.ones(value.shape[:2], dtype=torch.bool, device=value.device))

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, rows: Any) -> "Tokens":
        return self.each(lambda part: part[rows])

    def each(self, function: Callable[[Tensor], Tensor]) -> "Tokens":
        """The same with a function applied to its tensors."""
        return Tokens(function(self.value), function(self.mask))

    def to(self, device: Any) -> "Tokens":
        """The same on another device."""
        return self.each(lambda part: part.to(device))


Condition = Tensor | Embedding | Tokens


def labels_of(cond: Any) -> Tensor | None:
    """The labels ``(B,)`` if these are the condition, else None.

    Example:
        >>> labels_of(torch.tensor([1, -1])), labels_of(Embedding.of(torch.ones(1, 2)))
        (tensor([ 1, -1]), None)
    """
    if not isinstance(cond, Tensor) or cond.ndim != 1 or cond.is_floating_point() or cond.is_complex():
        return None
    return cond


def is_present(cond: Condition) -> Bool[Tensor, "B"]:
    """Which rows have a condition, shape ``(B,)``.

    Example:
        >>> is_present(torch.tensor([3, -1]))
        tensor([ True, False])
    """
    if isinstance(cond, Embedding):
        return cond.present
    if isinstance(cond, Tokens):
        return cond.mask.any(1)
    return cond > NULL_LABEL


def keep_where(cond: Condition, kept: Bool[Tensor, "B"]) -> Condition:
    """The same conditions, without those of the rows where ``kept`` is false.

    Example:
        >>> keep_where(torch.tensor([3, 4]), torch.tensor([True, False]))
        tensor([ 3, -1])
    """
    if isinstance(cond, Embedding):
        return Embedding(cond.value, cond.present & kept)
    if isinstance(cond, Tokens):
        return Tokens(cond.value, cond.mask & kept[:, None])
    return cond.masked_fill(~kept, NULL_LABEL)


def null_like(cond: Condition) -> Any:
    """Conditions of the same kind and number, all of them absent.

    Example:
        >>> null_like(torch.tensor([3, 4]))
        tensor([-1, -1])
    """
    return keep_where(cond, torch.zeros_like(is_present(cond)))


def drop_conditions(cond: Condition, share: float, *, generator: torch.Generator) -> Any:
    """Replace each condition by none with probability ``share``, independently.

    Args:
        cond: Labels, embeddings or tokens of B rows.
        share: Probability of dropping one, in [0, 1].
        generator: Source of the draw, on the generator's device.

    Returns:
        New conditions of the same kind.

    Raises:
        TypeError: If ``cond`` is no condition, or ``generator`` no generator.
        ValueError: If ``share`` is no number in [0, 1], or the labels have not the shape ``(B,)``.

    Source: Ho & Salimans 2022, "Classifier-free diffusion guidance", section 3.2.

    Example:
        >>> drop_conditions(torch.arange(6), 0.5, generator=torch.Generator().manual_seed(0))
        tensor([-1,  1, -1, -1, -1,  5])
    """
    if not isinstance(cond, Embedding | Tokens):
        require_tensor("cond", cond)
        if labels_of(cond) is None:
            raise ValueError(f"cond must be labels of shape (B,), got {cond.dtype} of shape {tuple(cond.shape)}")
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"share must be a number in [0, 1], got {share!r}")
    require_generator(generator)
    draw = draw_rows(lambda count, g: torch.rand(count, generator=g, device=g.device), len(cond), generator)
    return keep_where(cond, (draw >= share).to(is_present(cond).device))
