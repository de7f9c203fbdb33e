"""What image nets are made of: residual convolutions modulated by a condition, attention over pixels, two samplings."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from fluvial.conditions import Tokens
from fluvial.nn.attention import SelfAttention, TokenAttention, carries_tangent

_MOST_GROUPS = 32
_GROUP = 4  # channels in the smallest group: statistics of fewer say too little where there are few pixels


class Norm(nn.GroupNorm):
    """Normalisation in at most 32 groups of at least 4 channels.

    Args:
        channels: A positive multiple of 4.

    Example:
        >>> Norm(96).num_groups
        8
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(_MOST_GROUPS, channels // _GROUP), channels)

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Features of the same shape."""
        # Forward mode knows group normalisation of one layout in memory alone.
        return super().forward(input.contiguous() if carries_tangent(input) else input)


class ResidualBlock(nn.Module):
    """Two convolutions, the second of which sees features scaled and shifted by the condition; it starts at zero.

    Args:
        channels: Channels in.
        out: Channels out.
        condition: Number of the condition's features.
        dropout: Share of features dropped in training.

    Example:
        >>> ResidualBlock(8, 16, 4)(torch.ones(2, 8, 5, 5), torch.ones(2, 4)).shape
        torch.Size([2, 16, 5, 5])
    """

    def __init__(self, channels: int, out: int, condition: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first_norm, self.second_norm = Norm(channels), Norm(out)
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * out)
        self.dropout = nn.Dropout(dropout)
        self.past = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        zero(self.second, self.modulation)

    def forward(self, h: Float[Tensor, "B C H W"], condition: Float[Tensor, "B F"]) -> Float[Tensor, "B O H W"]:
        """Features of shape ``(B, out, H, W)``."""
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, 1)
        inner = self.first(nn.functional.silu(self.first_norm(h)))
        inner = nn.functional.silu(self.second_norm(inner) * (1 + scale) + shift)
        out: Tensor = self.past(h) + self.second(self.dropout(inner))
        return out


class PixelAttention(nn.Module):
    """Attention of the pixels to one another, then to the tokens of the condition where the net takes any.

    Args:
        channels: Number of channels.
        heads: Number of heads.
        tokens: Length of the condition's tokens, None for a net without.

    Example:
        >>> PixelAttention(8, 2)(torch.ones(2, 8, 3, 3), None).shape
        torch.Size([2, 8, 3, 3])
    """

    def __init__(self, channels: int, heads: int, tokens: int | None = None) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.attention = SelfAttention(channels, heads)
        self.token_norm = None if tokens is None else nn.LayerNorm(channels)
        self.token_attention = None if tokens is None else TokenAttention(channels, tokens, heads)
        zero(self.attention.out)

    def forward(self, h: Float[Tensor, "B C H W"], cond: Tokens | None) -> Float[Tensor, "B C H W"]:
        """Features of the same shape."""
        pixels = h.flatten(2).transpose(1, 2)
        pixels = pixels + self.attention(self.norm(h).flatten(2).transpose(1, 2))
        if self.token_norm is not None and self.token_attention is not None:
            pixels = pixels + self.token_attention(self.token_norm(pixels), cond)
        out: Tensor = pixels.transpose(1, 2).unflatten(2, h.shape[2:])
        return out


class Halving(nn.Module):
    """Half the side, rounded up: 28, 14, 7, 4, 2, 1.

    Args:
        channels: Number of channels.

    Example:
        >>> Halving(4)(torch.ones(1, 4, 7, 6)).shape
        torch.Size([1, 4, 4, 3])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, h: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Features of half the size."""
        out: Tensor = self.conv(h)
        return out


class Doubling(nn.Module):
    """Back to the size that :class:`Halving` started from, which is twice this one or one less.

    Args:
        channels: Number of channels.

    Example:
        >>> Doubling(4)(torch.ones(1, 4, 4, 3), (7, 6)).shape
        torch.Size([1, 4, 7, 6])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Float[Tensor, "B C h w"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
        """Features of the given size."""
        height, width = size
        twice = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")[:, :, :height, :width]
        out: Tensor = self.conv(twice)
        return out


def halved(side: int) -> int:
    """Side after :class:`Halving`.

    Example:
        >>> halved(7), halved(8)
        (4, 4)
    """
    return (side + 1) // 2


def zero(*layers: nn.Module) -> None:
    """Set all weights of layers to zero, so that what they are added to begins as if they were absent.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> zero(layer)
        >>> layer(torch.ones(1, 2)).item()
        0.0
    """
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
