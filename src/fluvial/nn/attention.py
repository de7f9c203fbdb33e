"""Attention among the positions of a net, and from them to a set of tokens.

Fused attention has no forward-mode derivative, so that :func:`attend` writes the softmax out while one is being taken,
and only then.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from fluvial.checks import require_input
from fluvial.conditions import Tokens
from fluvial.kinds import checked
from fluvial.nn.conditioning import with_null


def attend(
    q: Float[Tensor, "B h n c"],
    k: Float[Tensor, "B h m c"],
    v: Float[Tensor, "B h m c"],
    mask: Bool[Tensor, "B m"] | None = None,
) -> Float[Tensor, "B h n c"]:
    r"""Attention :math:`\mathrm{softmax}(q k^\top / \sqrt c)\, v`, fused wherever it can be.

    Args:
        q: Queries, shape ``(B, h, n, c)`` for ``h`` heads.
        k: Keys, shape ``(B, h, m, c)``.
        v: Values, like ``k``; those that are not there must be finite.
        mask: Which of the ``m`` are there, shape ``(B, m)``, at least one in each row; None for all.

    Returns:
        Shape ``(B, h, n, c)``.

    Source:
        Vaswani et al. 2017, "Attention Is All You Need", equation 1.

    Example:
        >>> k = torch.zeros(1, 1, 2, 1)
        >>> attend(k, k, torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1)).flatten()
        tensor([2., 2.])
    """
    there = None if mask is None else mask[:, None, None, :]
    if not carries_tangent(q, k, v):
        return _fused(q, k, v, there)
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if there is not None:
        logits = logits.masked_fill(~there, -torch.inf)
    out: Tensor = logits.softmax(-1) @ v
    return out


def _fused(q: Tensor, k: Tensor, v: Tensor, there: Tensor | None) -> Tensor:
    """Fused attention; in float32 on CPUs, where half precision makes its gradient three to four times as slow."""
    if q.device.type != "cpu" or q.dtype in (torch.float32, torch.float64):
        out: Tensor = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=there)
        return out
    with torch.autocast("cpu", enabled=False):
        out = nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=there)
    return out.to(q.dtype)


def carries_tangent(*tensors: Tensor) -> bool:
    """Whether forward-mode differentiation is under way: a tangent travels with any of the tensors.

    Example:
        >>> carries_tangent(torch.zeros(2))
        False
    """
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


@checked
class SelfAttention(nn.Module):
    """Attention of every position to all of them; neither normalised nor added to its input.

    Args:
        width: Features of a position.
        heads: Heads; they divide ``width``.

    Raises:
        ValueError: If ``heads`` does not divide ``width``.

    Example:
        >>> SelfAttention(16, heads=2)(torch.zeros(3, 49, 16)).shape
        torch.Size([3, 49, 16])
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B n F"]) -> Float[Tensor, "B n F"]:
        """What the positions take from one another, shape ``(B, n, width)``."""
        require_input(x, self.qkv.weight)
        if x.ndim != 3 or x.shape[2] != self.qkv.in_features:
            raise ValueError(f"x must have shape (B, n, {self.qkv.in_features}), got {tuple(x.shape)}")
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, 2))
        out: Tensor = self.out(join_heads(attend(q, k, v)))
        return out


@checked
class TokenAttention(nn.Module):
    """Attention of positions to a set of tokens through keys and values of its own; not added to its input.

    Tokens have no order. A row without any attends to one learned null. The output starts at zero, so that a net learns
    to listen.

    Source: Ye et al. 2023, "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models",
    section 3.2, for the attention of its own and its scale.

    Args:
        width: Features of a position.
        tokens: Length ``e`` of a token.
        heads: Heads; they divide ``width``.
        scale: Factor of the output; an attribute, which may be set anew at sampling time.

    Raises:
        ValueError: If ``tokens`` is not positive or ``heads`` does not divide ``width``.

    Example:
        >>> attention = TokenAttention(16, tokens=4, heads=2)
        >>> attention(torch.zeros(3, 49, 16), Tokens.of(torch.ones(3, 5, 4))).shape
        torch.Size([3, 49, 16])
    """

    def __init__(self, width: int, tokens: int, heads: int, scale: float = 1.0) -> None:
        super().__init__()
        check_heads(width, heads)
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
        self.heads, self.scale = heads, scale
        self.null = nn.Parameter(0.02 * torch.randn(tokens))
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(tokens, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "B n F"], cond: Tokens | None = None) -> Float[Tensor, "B n F"]:
        """What the positions take from the tokens, times ``scale``; shape ``(B, n, width)``.

        Args:
            x: Positions, shape ``(B, n, width)``.
            cond: Tokens ``(B, m, e)``; None for none in all rows.
        """
        given = with_null(cond, self.null, len(x))
        # An absent value has weight zero, and zero times infinity is no number.
        value = given.value.to(x.dtype).masked_fill(~given.mask[:, :, None], 0)
        k, v = (split_heads(part, self.heads) for part in self.key_value(value).chunk(2, 2))
        attended = attend(split_heads(self.query(x), self.heads), k, v, given.mask)
        out: Tensor = self.scale * self.out(join_heads(attended))
        return out


def check_heads(width: int, heads: int) -> None:
    """Refuse heads that do not divide the width.

    Raises:
        ValueError: As above, or if a number is not positive.

    Example:
        >>> check_heads(16, 3)
        Traceback (most recent call last):
        ValueError: heads must be positive and divide the width 16, got 3
    """
    if heads < 1 or width < 1 or width % heads:
        raise ValueError(f"heads must be positive and divide the width {width}, got {heads}")


def split_heads(x: Float[Tensor, "B n F"], heads: int) -> Float[Tensor, "B h n c"]:
    """Features of each position as those of its heads, shape ``(B, heads, n, F / heads)``.

    Example:
        >>> split_heads(torch.zeros(3, 49, 16), 2).shape
        torch.Size([3, 2, 49, 8])
    """
    parts: Tensor = x.unflatten(2, (heads, -1))
    return parts.transpose(1, 2)


def join_heads(x: Float[Tensor, "B h n c"]) -> Float[Tensor, "B n F"]:
    """The inverse of :func:`split_heads`.

    Example:
        >>> join_heads(torch.zeros(3, 2, 49, 8)).shape
        torch.Size([3, 49, 16])
    """
    return x.transpose(1, 2).flatten(2)
