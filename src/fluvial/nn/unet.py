"""A U-Net for images: residual convolutions on a ladder of resolutions, with attention on the coarse ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluvial.checks import require_shape
from fluvial.conditions import Tokens
from fluvial.kinds import checked
from fluvial.nn.conditioning import Conditioning
from fluvial.nn.resnet_blocks import (
    Doubling,
    Halving,
    Norm,
    PixelAttention,
    ResidualBlock,
    halved,
    zero,
)

# Time and condition have this many features for each of the first level's.
_CONDITION = 2
# Attention costs the square of the number of pixels: without a word of the caller, up to this side.
_LARGEST_ATTENDED = 8


@checked
class UNet(nn.Module):
    """U-Net whose residual blocks are modulated by time, and by a label, an embedding or tokens where it takes them.

    Each level has ``depth`` residual blocks on the way down and one more on the way up, and half the resolution of
    the level above it, rounded up. Tokens are met by cross-attention with keys and values of its own, wherever there
    is self-attention. Safe under forward-mode differentiation. A new net is the zero field.

    Args:
        shape: Shape ``(C, H, W)`` of one image.
        width: Channels of the first level; a multiple of 8.
        multipliers: Channels of each level over ``width``; one level for each.
        depth: Residual blocks of a level.
        attention: Longer sides of the levels, after the stem, that have attention; by default those of at most 8
            pixels. The coarsest features, between the way down and the way up, always have it.
        head_width: Channels of one head of the attention, at least; a level with fewer has one head.
        stem: Side of the squares of pixels that are made channels before the first level, and pixels again after the
            last: 2 works on a quarter of the pixels, which is cheap. Divides H and W.
        dropout: Share of features dropped in training.
        classes: Number of labels, None for a net without.
        embedding: Length of the embeddings that it is conditioned on, None for a net without.
        tokens: Length of the tokens that it is conditioned on, None for a net without.
        gap: Whether the net takes a second time ``r >= t`` and predicts average velocities (Mean Flows).
        time_scale: Factor of times in [0, 1] before their sines and cosines; as of ``Conditioning`` by default.

    Raises:
        ValueError: If a size is not positive, the image is too small for so many levels, ``stem`` does not divide its
            sides, or ``attention`` names a side that no level has; in ``forward``, if ``x`` has another shape, a
            condition is not what the net takes, or ``r`` comes to a net without a gap.

    Source: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", appendix B; Dhariwal & Nichol 2021, "Diffusion
    Models Beat GANs on Image Synthesis", section 3; for tokens, Ye et al. 2023, "IP-Adapter", section 3.2.

    Example:
        >>> net = UNet((1, 28, 28), width=16, classes=10)
        >>> net(torch.randn(2, 1, 28, 28), torch.rand(2), torch.tensor([3, -1])).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        depth: int = 1,
        *,
        attention: Sequence[int] | None = None,
        head_width: int = 64,
        stem: int = 1,
        dropout: float = 0.0,
        classes: int | None = None,
        embedding: int | None = None,
        tokens: int | None = None,
        gap: bool = False,
        time_scale: float | None = None,
    ) -> None:
        super().__init__()
        _check(shape, width, multipliers, depth, head_width, stem, dropout)
        sides = _sides(max(shape[1:]) // stem, len(multipliers))
        attended = [side for side in sides if side <= _LARGEST_ATTENDED] if attention is None else list(attention)
        unknown = [side for side in attended if side not in sides]
        if unknown:
            raise ValueError(f"attention must name sides of levels, {', '.join(map(str, sides))}, got {unknown[0]}")
        self.shape, self.gap, self.stem = tuple(shape), gap, stem
        features = _CONDITION * width
        self.condition = Conditioning(
            features, classes=classes, embedding=embedding, tokens=tokens, gap=gap, time_scale=time_scale
        )
        channels = [width * multiplier for multiplier in multipliers]
        coarsest, pixel = channels[-1], shape[0] * stem**2
        make = _LayerMaker(features, dropout, head_width, tokens)
        self.first = nn.Conv2d(pixel, width, 3, padding=1)
        self.down, self.up = _ways(make, channels, [side in attended for side in sides], depth)
        self.middle = nn.ModuleList([make(coarsest, coarsest, True), make(coarsest, coarsest, False)])
        self.norm = Norm(width)
        self.last = nn.Conv2d(width, pixel, 3, padding=1)
        zero(self.last)

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        t: Tensor | float,
        cond: Any = None,
        r: Tensor | float | None = None,
    ) -> Float[Tensor, "B C H W"]:
        """Velocity at ``(x, t)``, or with ``r`` the average velocity from ``t`` to ``r``.

        Args:
            x: Images, shape ``(B, C, H, W)``.
            t: Times, a scalar or ``(B,)``.
            cond: Labels ``(B,)`` with -1 for none, an ``Embedding`` or ``Tokens``; None for none in all rows.
            r: Second times, like ``t``; None means ``r = t``.
        """
        require_shape(x, self.shape)
        condition = self.condition(x, t, cond, r)
        tokens = cond if isinstance(cond, Tokens) else None
        h = self.first(nn.functional.pixel_unshuffle(x, self.stem))
        kept = [h]
        for down in self.down:
            kept += down(kept[-1], condition, tokens)
        h = kept[-1]
        for layer in self.middle:
            h = layer(h, condition, tokens)
        for up in self.up:
            h = up(h, kept, condition, tokens)
            # Here, since what wraps a module may hand it a copy of the list.
            del kept[-len(list(up.get_submodule("layers").children())) :]
        out: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return nn.functional.pixel_shuffle(out, self.stem).contiguous()


class _Layer(nn.Module):
    """A residual block and, where there is attention, its attention."""

    def __init__(self, block: ResidualBlock, attention: PixelAttention | None) -> None:
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, h: Tensor, condition: Tensor, tokens: Tokens | None) -> Tensor:
        h = self.block(h, condition)
        return h if self.attention is None else self.attention(h, tokens)


@dataclass(frozen=True)
class _LayerMaker:
    """What all layers of a net have in common."""

    condition: int
    dropout: float
    head_width: int
    tokens: int | None

    def __call__(self, channels: int, out: int, attended: bool) -> _Layer:
        heads = _heads(out, self.head_width)
        attention = PixelAttention(out, heads, self.tokens) if attended else None
        return _Layer(ResidualBlock(channels, out, self.condition, self.dropout), attention)


class _Down(nn.Module):
    """Layers of a level on the way down, and the way to the next; all that they make is kept for the way up."""

    def __init__(self, layers: list[_Layer], halving: Halving | None) -> None:
        super().__init__()
        self.layers, self.halving = nn.ModuleList(layers), halving

    def forward(self, h: Tensor, condition: Tensor, tokens: Tokens | None) -> list[Tensor]:
        kept = []
        for layer in self.layers:
            h = layer(h, condition, tokens)
            kept.append(h)
        return kept if self.halving is None else [*kept, self.halving(h)]


class _Up(nn.Module):
    """Layers of a level on the way up, each of which sees what was kept on the way down, latest first."""

    def __init__(self, layers: list[_Layer], doubling: Doubling | None) -> None:
        super().__init__()
        self.layers, self.doubling = nn.ModuleList(layers), doubling

    def forward(self, h: Tensor, kept: list[Tensor], condition: Tensor, tokens: Tokens | None) -> Tensor:
        for number, layer in enumerate(self.layers, start=1):
            h = layer(torch.cat([h, kept[-number]], 1), condition, tokens)
        if self.doubling is None:
            return h
        height, width = kept[-len(self.layers) - 1].shape[2:]
        out: Tensor = self.doubling(h, (height, width))
        return out


def _ways(
    make: _LayerMaker, channels: list[int], attended: list[bool], depth: int
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """The way down, and the way up with one layer for everything that is kept."""
    downs: list[_Down] = []
    kept = h = channels[0]
    ups: list[_Up] = []
    for level, (out, attends) in enumerate(zip(channels, attended, strict=True)):
        last = level == len(channels) - 1
        layers = [make(h if k == 0 else out, out, attends) for k in range(depth)]
        downs.append(_Down(layers, None if last else Halving(out)))
        # The way up meets the layers' features first and ends on what this level began with.
        below = out if last else channels[level + 1]
        skips = [out] * depth + [kept]
        layers = [make((below if k == 0 else out) + skip, out, attends) for k, skip in enumerate(skips)]
        ups.insert(0, _Up(layers, Doubling(out) if level else None))
        kept = h = out
    return nn.ModuleList(downs), nn.ModuleList(ups)


def _heads(channels: int, head_width: int) -> int:
    """As many heads as leave each at least ``head_width`` channels and divide them evenly, at least one."""
    return max((heads for heads in range(1, channels // head_width + 1) if channels % heads == 0), default=1)


def _sides(side: int, levels: int) -> list[int]:
    """The side of each level."""
    sides = [side]
    for _ in range(levels - 1):
        sides.append(halved(sides[-1]))
    return sides


def _check(
    shape: tuple[int, ...],
    width: int,
    multipliers: Sequence[int],
    depth: int,
    head_width: int,
    stem: int,
    dropout: float,
) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be (channels, height, width), all positive, got {shape}")
    if width < 8 or width % 8:
        raise ValueError(f"width must be a positive multiple of 8, got {width}")
    if not multipliers or min(multipliers) < 1:
        raise ValueError(f"multipliers must be positive, one for each level, got {tuple(multipliers)}")
    for name, value in {"depth": depth, "head_width": head_width, "stem": stem}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    if shape[1] % stem or shape[2] % stem:
        raise ValueError(f"stem must divide the image's sides, {shape[1]} and {shape[2]}, got {stem}")
    least = 1 if len(multipliers) == 1 else 2 ** (len(multipliers) - 2) + 1
    if min(shape[1:]) // stem < least:
        raise ValueError(
            f"shape does not fit: {len(multipliers)} levels need sides of at least {least * stem} pixels "
            f"with stem {stem}, got {shape}"
        )
