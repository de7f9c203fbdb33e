"""A vision transformer with the layers and the names of DINOv2's official release."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention, silu

_OFFSET = 0.1  # added to the number of patches where positions are resized, in the release without registers


@dataclass(frozen=True)
class ViTSize:
    """Size of a transformer.

    Args:
        width: Features per token.
        depth: Blocks.
        heads: Of the attention.
        patch: Side of a patch in pixels.
        grid: Side of the grid of patches that positions were learned for.
        hidden: Width of the perceptron.
        registers: Tokens that carry no position.
        gated: Whether the perceptron is gated (SwiGLU).
    """

    width: int
    depth: int
    heads: int
    patch: int
    grid: int
    hidden: int
    registers: int = 0
    gated: bool = False


class VisionTransformer(nn.Module):
    """Class token of an image after all blocks and a last normalisation.

    Args:
        size: Of the net.

    Example:
        >>> net = VisionTransformer(ViTSize(width=12, depth=1, heads=2, patch=7, grid=4, hidden=24))
        >>> net(torch.zeros(2, 3, 28, 28)).shape
        torch.Size([2, 12])
    """

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.size = size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, size.grid**2 + 1, size.width))
        if size.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, size.registers, size.width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, size.width, size.patch, stride=size.patch)})
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def forward(self, x: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n w"]:
        """Features of normalised images whose sides are multiples of the patch."""
        maps = self.patch_embed["proj"](x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), maps.flatten(2).mT], 1)
        tokens = tokens + self._positions(maps.shape[2], maps.shape[3])
        if self.size.registers:
            registers = self.register_tokens.expand(len(x), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        for block in self.blocks:
            tokens = block(tokens)
        found: Tensor = self.norm(tokens)[:, 0]
        return found

    def _positions(self, high: int, wide: int) -> Float[Tensor, "1 t w"]:
        """Positions for a grid of this size, resized as the release does: its two kinds do it in two ways."""
        side = self.size.grid
        if high == wide == side:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if self.size.registers:
            grid = interpolate(grid, (high, wide), mode="bicubic", antialias=True)
        else:
            scale = ((high + _OFFSET) / side, (wide + _OFFSET) / side)
            grid = interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).mT], 1)


class Block(nn.Module):
    """Attention and a perceptron, each after a normalisation, scaled, and added to what came in."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=1e-6)
        self.attn = Attention(size)
        self.ls1 = Scale(size.width)
        self.norm2 = nn.LayerNorm(size.width, eps=1e-6)
        self.mlp = Gated(size) if size.gated else Perceptron(size)
        self.ls2 = Scale(size.width)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Scale(nn.Module):
    """A factor for each feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        return x * self.gamma


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Perceptron(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size.width, size.hidden)
        self.fc2 = nn.Linear(size.hidden, size.width)

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        return self.fc2(gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Gated(nn.Module):
    """SwiGLU: one half of the hidden features gates the other."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.w12 = nn.Linear(size.width, 2 * size.hidden)
        self.w3 = nn.Linear(size.hidden, size.width)

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(silu(gate) * value)  # type: ignore[no-any-return]


_OUTER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_INNER = {
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
}


def official_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of the official release; those of the transformers library are translated.

    Example:
        >>> list(official_names({"encoder.layer.3.layer_scale1.lambda1": torch.ones(2)}))
        ['blocks.3.ls1.gamma']
    """
    named = {
        name.removeprefix("dinov2.").removeprefix("dinov2_with_registers."): each for name, each in tensors.items()
    }
    if not any(name.startswith(("embeddings.", "encoder.")) for name in named):
        return dict(tensors)
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        if name.startswith("classifier."):
            continue
        if not name.startswith("encoder.layer."):
            stem = next((old for old in _OUTER if name == old or name.startswith(f"{old}.")), None)
            found[name if stem is None else _OUTER[stem] + name.removeprefix(stem)] = tensor
            continue
        number, inner = name.removeprefix("encoder.layer.").split(".", 1)
        if inner.startswith("attention.attention."):
            which, kind = inner.removeprefix("attention.attention.").split(".")
            parts.setdefault(f"blocks.{number}.attn.qkv.{kind}", {})[which] = tensor
            continue
        for old, new in _INNER.items():
            inner = inner.replace(old, new)
        found[f"blocks.{number}.{inner}"] = tensor
    for name, part in parts.items():
        if part.keys() == {"query", "key", "value"}:  # what is incomplete is reported as missing
            found[name] = torch.cat([part["query"], part["key"], part["value"]])
    return found
