"""A handful of images as condition: they become tokens, which a net attends to."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from fluvial.conditions import Tokens
from fluvial.kinds import checked
from fluvial.nn.patches import grid_positions
from fluvial.nn.resnet_blocks import Norm, halved

_MOST_MULTIPLE = 8  # channels stop growing at this many times the first ones


@checked
class ReferenceEncoder(nn.Module):
    """Small convolutional net that turns each image into a square grid of tokens.

    The tokens tell where in its image they come from, and not which of the images that is. Images are encoded one by
    one: none has a part in another's tokens.

    Args:
        shape: Shape ``(C, H, W)`` of one image.
        tokens: Length of a token; a multiple of 4.
        grid: Side of the grid, which gives ``grid^2`` tokens for each image.
        width: Channels of the first layer; a multiple of 4. They double with every halving of the side, up to 8 times.

    Raises:
        ValueError: If a size is not positive, ``tokens`` or ``width`` no multiple of 4, or the image smaller than the
            grid; in ``forward``, if images have another shape.

    Example:
        >>> ReferenceEncoder((1, 28, 28), tokens=32)(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3, 16, 32])
    """

    positions: Tensor

    def __init__(self, shape: tuple[int, ...], tokens: int, *, grid: int = 4, width: int = 16) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be (channels, height, width), all positive, got {shape}")
        for name, value in {"tokens": tokens, "width": width}.items():
            if value < 4 or value % 4:
                raise ValueError(f"{name} must be a positive multiple of 4, got {value}")
        if not 1 <= grid <= min(shape[1:]):
            raise ValueError(f"grid must be from 1 to the image's shorter side {min(shape[1:])}, got {grid}")
        self.shape, self.tokens, self.grid = tuple(shape), tokens, grid
        layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=1)]
        side, channels = min(shape[1:]), width
        while halved(side) >= grid and side > 1:
            out = min(2 * channels, _MOST_MULTIPLE * width)
            layers += [Norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, stride=2, padding=1)]
            side, channels = halved(side), out
        self.body = nn.Sequential(*layers, Norm(channels), nn.SiLU())
        self.out = nn.Linear(channels, tokens)
        self.norm = nn.LayerNorm(tokens)
        self.register_buffer("positions", grid_positions(grid, grid, tokens), persistent=False)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N k e"]:
        """Tokens of each image, shape ``(N, grid^2, tokens)``.

        Args:
            images: Shape ``(N, C, H, W)``.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(f"images must have shape (N, {_listed(self.shape)}), got {tuple(images.shape)}")
        features = nn.functional.adaptive_avg_pool2d(self.body(images.to(self.out.weight.dtype)), self.grid)
        tokens: Tensor = self.norm(self.out(features.flatten(2).transpose(1, 2)))
        return tokens + self.positions


class Referring(nn.Module):
    """A net conditioned on a set of reference images, whatever their number and order.

    Rows without any are unconditional. References do not change while a sample is drawn, so that their tokens may be
    made once, by :meth:`encode`, and given as condition in their place.

    Args:
        net: Net that takes tokens of the encoder's length.
        encoder: What turns images into tokens.

    Raises:
        ValueError: In ``forward``, if the condition is no ``Tokens`` of images of the encoder's shape, or as of the
            net.

    Example:
        >>> from fluvial.nn.unet import UNet
        >>> shape = (1, 8, 8)
        >>> net = Referring(UNet(shape, width=8, multipliers=(1, 2), tokens=16), ReferenceEncoder(shape, 16))
        >>> references = fv.Tokens.of(torch.randn(2, 5, *shape))
        >>> net(torch.randn(2, *shape), torch.rand(2), references).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, net: nn.Module, encoder: ReferenceEncoder) -> None:
        super().__init__()
        self.net, self.encoder = net, encoder
        self.shape: tuple[int, ...] = tuple(getattr(net, "shape", encoder.shape))
        self.gap = bool(getattr(net, "gap", False))

    def encode(self, references: Tokens) -> Tokens:
        """Tokens of each row's references, ``(B, m k, e)``, for ``k`` tokens of an image.

        Args:
            references: ``value`` holds the images, shape ``(B, m, C, H, W)``; ``mask`` says which are there,
                ``(B, m)``. Images that are not may have any value.
        """
        value, mask = references.value, references.mask
        if tuple(value.shape[2:]) != self.encoder.shape:
            raise ValueError(
                f"references must have shape (B, m, {_listed(self.encoder.shape)}), got {tuple(value.shape)}"
            )
        # Attention gives absent ones no weight, but zero times infinity would still spoil a gradient.
        images = value.masked_fill(~mask[:, :, None, None, None], 0.0)
        tokens = self.encoder(images.flatten(0, 1)).unflatten(0, mask.shape)
        return Tokens(tokens.flatten(1, 2), mask.repeat_interleave(tokens.shape[2], 1))

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
            cond: ``Tokens`` of reference images, or what :meth:`encode` made of them; None for none in all rows.
            r: Second times, like ``t``; None means ``r = t``.
        """
        if cond is not None and not isinstance(cond, Tokens):
            raise ValueError(f"cond must be Tokens of reference images or None, got {type(cond).__name__}")
        tokens = self.encode(cond) if cond is not None and cond.value.ndim > 3 else cond
        velocity: Tensor = self.net(x, t, tokens) if r is None else self.net(x, t, tokens, r)
        return velocity


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
