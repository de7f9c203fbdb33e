"""The work shapes and their data, all from explicit seeds.

Pixels come from Gaussians with an image-like covariance: 512 random orthonormal directions whose variances fall as
``j^-1.8``, around 127.5, with white noise of 8, rounded and clipped, so that a pixel has a standard deviation of 60.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

TIMES = (0.1, 0.3, 0.6, 0.9, 0.99)
CHUNK = 4096
COMPONENTS = 512
DECAY = 1.8
SPREAD = 66.0  # of a pixel before it is clipped to 0..255, after which it is 60
NOISE_STD = 8.0
SUPPORT_SEED = 0
POINTS_SEED = 1


@dataclass(frozen=True)
class Shape:
    """A support of ``points`` data in ``dim`` dimensions, evaluated at ``batch`` points.

    Args:
        name: What the tables call it.
        points: Number of data, N.
        dim: Dimension, d.
        batch: Number of evaluation points, B.
        pixels: Whether the data are uint8 pixels, meaning ``u / 127.5 - 1``; else standard normal float32.
    """

    name: str
    points: int
    dim: int
    batch: int
    pixels: bool = False

    def __str__(self) -> str:
        kind = "uint8 pixels" if self.pixels else "float32"
        return f"{self.name}: N = {self.points:,}, d = {self.dim:,}, B = {self.batch:,}, {kind}"

    @property
    def operations(self) -> int:
        """Floating-point operations of two dense products, ``4 B N d``."""
        return 4 * self.batch * self.points * self.dim


SHAPES = (
    Shape("A", 10_000, 2, 4096),
    Shape("B", 10_000, 64, 1024),
    Shape("C", 20_000, 784, 128, pixels=True),
    Shape("D", 50_000, 3072, 128, pixels=True),
    Shape("E", 50, 150_528, 64),
)


def smaller(shape: Shape) -> Shape:
    """A shape of the same kind that is evaluated in milliseconds, to try the benchmark itself."""
    few = shape.points if shape.points <= 50 else max(50, shape.points // 20)
    return replace(shape, points=few, batch=max(8, shape.batch // 8))


def pixel_chunks(count: int, dim: int, seed: int = SUPPORT_SEED) -> Iterator[Tensor]:
    """``count`` images of ``dim`` pixels as uint8, at most 4096 at a time."""
    g = torch.Generator().manual_seed(seed)
    components = min(COMPONENTS, dim)
    directions = torch.linalg.qr(torch.randn(dim, components, generator=g)).Q.T
    spectrum = torch.arange(1, components + 1, dtype=torch.float64).pow(-DECAY)
    scales = (spectrum * (dim * SPREAD**2 / spectrum.sum())).sqrt().float()
    for start in range(0, count, CHUNK):
        rows = min(CHUNK, count - start)
        pixels = (torch.randn(rows, components, generator=g) * scales) @ directions
        pixels.add_(torch.randn(rows, dim, generator=g), alpha=NOISE_STD).add_(127.5)
        yield pixels.round_().clamp_(0, 255).to(torch.uint8)


def make_support(shape: Shape) -> Tensor:
    """The data, shape ``(N, d)``, uint8 or float32."""
    if not shape.pixels:
        return torch.randn(shape.points, shape.dim, generator=torch.Generator().manual_seed(SUPPORT_SEED))
    support = torch.empty(shape.points, shape.dim, dtype=torch.uint8)
    for start, chunk in zip(range(0, shape.points, CHUNK), pixel_chunks(shape.points, shape.dim), strict=True):
        support[start : start + len(chunk)] = chunk
    return support


def as_floats(support: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels as numbers in [-1, 1]; numbers as they are."""
    return support.to(dtype).div_(127.5).sub_(1) if support.dtype == torch.uint8 else support.to(dtype)


def on_path(support: Tensor | np.memmap, batch: int, t: float, seed: int = POINTS_SEED) -> Tensor:
    """Points ``t s_i + (1 - t) z`` with random data ``s_i`` and noise ``z``, shape ``(B, d)``, float32."""
    g = torch.Generator().manual_seed(seed)
    index = torch.randint(len(support), (batch,), generator=g)
    noise = torch.randn(batch, support.shape[1], generator=g)
    rows = support[index] if isinstance(support, Tensor) else torch.from_numpy(np.asarray(support[index.numpy()]))
    return t * as_floats(rows) + (1 - t) * noise
