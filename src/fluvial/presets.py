"""Nets by name: what each preset is made of; imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class NetOptions:
    """What a net is made of, apart from the shape of the data and the condition.

    Args:
        kind: ``"mlp"``, ``"unet"`` or ``"dit"``.
        width: Features of a layer; of a UNet, those of its first level.
        depth: Residual blocks; of a UNet, those of each level.
        multipliers: Of a UNet, features of each level in widths.
        attention: Of a UNet, side lengths at which it has self-attention; None for the small ones.
        stem: Of a UNet, side of the squares of pixels that become one position.
        patch: Of a DiT, side of a patch in pixels; None for the largest, up to 8, that leaves 4 x 4 patches.
        dropout: Share of features dropped in training.
    """

    kind: str
    width: int
    depth: int
    multipliers: tuple[int, ...] = ()
    attention: tuple[int, ...] | None = None
    stem: int = 1
    patch: int | None = None
    dropout: float = 0.0


PRESETS: Mapping[str, NetOptions] = {
    "mlp": NetOptions("mlp", width=256, depth=6),
    "unet": NetOptions("unet", width=32, depth=1, multipliers=(1, 2), stem=2),
    "unet-cifar10": NetOptions("unet", width=128, depth=2, multipliers=(1, 2, 2, 2), attention=(16,), dropout=0.1),
    "dit": NetOptions("dit", width=128, depth=4),
    "dit-b": NetOptions("dit", width=768, depth=12, patch=2),
}
"""Presets by name: the MLP for points, tables and small images, UNets and DiTs for images."""


def net_options(
    name: str, *, width: int | None = None, depth: int | None = None, dropout: float | None = None
) -> NetOptions:
    """What the net of a name is made of, with a width, depth and dropout of one's own where they are given.

    Example:
        >>> net_options("mlp", width=64)
        NetOptions(kind='mlp', width=64, depth=6, multipliers=(), attention=None, stem=1, patch=None, dropout=0.0)
    """
    preset = PRESETS[name]
    return replace(
        preset,
        width=preset.width if width is None else width,
        depth=preset.depth if depth is None else depth,
        dropout=preset.dropout if dropout is None else dropout,
    )
