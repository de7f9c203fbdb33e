"""A transformer on the patches of images, modulated by time and condition."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from fluvial.checks import require_shape
from fluvial.conditions import Tokens
from fluvial.kinds import checked
from fluvial.nn.attention import SelfAttention, TokenAttention
from fluvial.nn.conditioning import Conditioning
from fluvial.nn.patches import from_patches, grid_positions, to_patches

# Width of a block's hidden layer over that of the net, as in nearly every transformer.
_EXPANSION = 4


class _Block(nn.Module):
    """Self-attention, attention to tokens, and a perceptron; the first and the last are modulated, and gated from 0."""

    def __init__(self, width: int, heads: int, dropout: float, tokens: int | None) -> None:
        super().__init__()
        self.modulation = _zero(nn.Linear(width, 6 * width))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.token_norm = None if tokens is None else nn.LayerNorm(width)
        self.token_attention = None if tokens is None else TokenAttention(width, tokens, heads)
        self.perceptron = nn.Sequential(
            nn.Linear(width, _EXPANSION * width), nn.GELU(), nn.Linear(_EXPANSION * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, condition: Tensor, tokens: Tokens | None) -> Tensor:
        scale, shift, gate, scale2, shift2, gate2 = self.modulation(condition)[:, None].chunk(6, 2)
        h = h + gate * self.dropout(self.attention(self.norm(h) * (1 + scale) + shift))
        if self.token_attention is not None and self.token_norm is not None:
            h = h + self.token_attention(self.token_norm(h), tokens)
        out: Tensor = h + gate2 * self.dropout(self.perceptron(self.norm(h) * (1 + scale2) + shift2))
        return out


@checked
class DiT(nn.Module):
    """Transformer on patches whose blocks are modulated by time, and by a label or an embedding where it takes one.

    It starts as the zero field. Safe under forward-mode differentiation.

    Source: Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", section 3.2 (adaLN-Zero).

    Args:
        shape: Shape ``(C, H, W)`` of an image.
        width: Features of a patch; a multiple of 4.
        depth: Blocks.
        patch: Side of a patch in pixels; it divides H and W. The cost grows with their number ``(H/patch) (W/patch)``.
        heads: Heads of the attention; by default one for every 64 features.
        dropout: Share of a block's updates that is dropped in training, in [0, 1).
        classes: Number of labels, None for a net without.
        embedding: Length of the embeddings that it is conditioned on, None for a net without.
        tokens: Length of the tokens that its blocks attend to, None for a net without.
        gap: Whether the net takes a second time ``r >= t`` and predicts average velocities (Mean Flows).
        time_scale: Factor that times in [0, 1] are multiplied by before their sines and cosines are taken; by default
            1000, and 1 with a gap.

    Raises:
        ValueError: If a size is not positive or does not fit another; in ``forward``, if ``x`` has another shape, a
            condition is not what the net takes, a label is out of range (checked on the CPU, where it costs no
            synchronisation), or ``r`` comes to a net without a gap.

    Example:
        >>> net = fv.nn.DiT((1, 28, 28), width=32, depth=2, patch=4, classes=10)
        >>> net(torch.randn(3, 1, 28, 28), torch.rand(3), torch.tensor([0, -1, 9])).shape
        torch.Size([3, 1, 28, 28])
    """

    positions: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 192,
        depth: int = 6,
        *,
        patch: int = 2,
        heads: int | None = None,
        dropout: float = 0.0,
        classes: int | None = None,
        embedding: int | None = None,
        tokens: int | None = None,
        gap: bool = False,
        time_scale: float | None = None,
    ) -> None:
        super().__init__()
        channels, height, breadth = _image_shape(shape, patch)
        if width < 4 or width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {width}")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.shape, self.patch, self.gap = (channels, height, breadth), patch, gap
        heads = _default_heads(width) if heads is None else heads
        self.condition = Conditioning(
            width, classes=classes, embedding=embedding, tokens=tokens, gap=gap, time_scale=time_scale
        )
        self.first = nn.Linear(channels * patch**2, width)
        positions = grid_positions(height // patch, breadth // patch, width)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout, tokens) for _ in range(depth))
        self.modulation = _zero(nn.Linear(width, 2 * width))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last = _zero(nn.Linear(width, channels * patch**2))

    def forward(
        self,
        x: Float[Tensor, "B *D"],
        t: Tensor | float,
        cond: Any = None,
        r: Tensor | float | None = None,
    ) -> Float[Tensor, "B *D"]:
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
        h = self.first(to_patches(x, self.patch)) + self.positions
        for block in self.blocks:
            h = block(h, condition, tokens)
        scale, shift = self.modulation(condition)[:, None].chunk(2, 2)
        return from_patches(self.last(self.norm(h) * (1 + scale) + shift), self.shape, self.patch)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _default_heads(width: int) -> int:
    """One for every 64 features, or the next fewer that divide the width."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)


def _image_shape(shape: tuple[int, ...], patch: int) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be that of an image (C, H, W), got {tuple(shape)}")
    channels, height, width = shape
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"patch must be positive and divide the sides {height} and {width}, got {patch}")
    return channels, height, width
