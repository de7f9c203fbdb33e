"""Nets by name."""

from difflib import get_close_matches
from typing import Any

from torch import nn

from fluvial.kinds import checked
from fluvial.nn.dit import DiT
from fluvial.nn.mlp import MLP
from fluvial.nn.patches import patch_side
from fluvial.nn.unet import UNet
from fluvial.presets import PRESETS, NetOptions, net_options


@checked
def preset(
    name: str,
    shape: tuple[int, ...],
    *,
    width: int | None = None,
    depth: int | None = None,
    dropout: float | None = None,
    classes: int | None = None,
    embedding: int | None = None,
    tokens: int | None = None,
    gap: bool = False,
) -> nn.Module:
    """The net of that name for data of one shape.

    Args:
        name: One of ``fluvial.presets.PRESETS``: ``"mlp"``, ``"unet"``, ``"dit"``, ``"unet-cifar10"``, ``"dit-b"``.
        shape: Shape ``D`` of one datum; of all but the MLP, ``(C, H, W)``.
        width: Its width, instead of the preset's.
        depth: Its depth, instead of the preset's.
        dropout: Its dropout, instead of the preset's.
        classes: Number of labels, None for a net without.
        embedding: Length of the embeddings that it is conditioned on, None for a net without.
        tokens: Length of the tokens that it is conditioned on, None for a net without.
        gap: Whether the net takes a second time and predicts average velocities (Mean Flows).

    Raises:
        ValueError: If there is no such preset, or as of the net.

    Example:
        >>> net = fv.nn.preset("unet", (1, 28, 28), width=8, classes=10)
        >>> net(torch.randn(2, 1, 28, 28), 0.5, torch.tensor([3, -1])).shape
        torch.Size([2, 1, 28, 28])
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name must be one of {', '.join(PRESETS)}, got {name!r}{hint}")
    options = net_options(name, width=width, depth=depth, dropout=dropout)
    return assemble(options, shape, classes=classes, embedding=embedding, tokens=tokens, gap=gap)


def assemble(
    options: NetOptions,
    shape: tuple[int, ...],
    *,
    classes: int | None = None,
    embedding: int | None = None,
    tokens: int | None = None,
    gap: bool = False,
    time_scale: float | None = None,
) -> nn.Module:
    """The net that options describe; arguments and errors as of :func:`preset`, and the nets' ``time_scale``."""
    shared: dict[str, Any] = {"depth": options.depth, "classes": classes, "embedding": embedding, "gap": gap}
    shared["time_scale"] = time_scale
    if options.kind == "mlp":
        if tokens is not None or options.dropout:
            raise ValueError("an mlp takes neither tokens nor dropout")
        return MLP(shape, options.width, **shared)
    shared |= {"dropout": options.dropout, "tokens": tokens}
    if options.kind == "unet":
        shared |= {"multipliers": options.multipliers, "attention": options.attention, "stem": options.stem}
        return UNet(shape, options.width, **shared)
    patch = patch_side(shape) if options.patch is None else options.patch
    return DiT(shape, options.width, patch=patch, **shared)
