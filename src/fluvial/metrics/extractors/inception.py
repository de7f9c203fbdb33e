"""Inception-v3 as the Fréchet Inception Distance uses it: 2,048 features of the last pooling.

The net follows the weights that were trained with TensorFlow: averages leave the padding out, and the last block
takes a maximum where the paper has an average. Names are those of pytorch-fid, whose file of weights fits.

Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision"; Heusel et al. 2017; the port
of the weights is pytorch-fid's (Seitzer 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from fluvial.metrics.extractors.base import UINT8_RULE, as_rgb, settings_hash
from fluvial.metrics.extractors.weights import file_hash, fill, hub_file, read_weights

SIDE = 299
WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
"""The file of pytorch-fid, which names it after the archive it was made of and the start of its SHA-256."""

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Inception:
    """Last pooling of FID's Inception-v3.

    Args:
        net: The net.
        weights_hash: SHA-256 of the file that its weights come from.
    """

    net: "InceptionV3" = field(repr=False)
    weights_hash: str

    @classmethod
    def load(cls, weights: Path | None = None) -> "Inception":
        """The net with weights from a file.

        Args:
            weights: ``.pth`` or ``.safetensors`` with pytorch-fid's names; by default where ``torch.hub`` keeps it.

        Raises:
            ValueError: If there is no file, or it is damaged or holds the weights of another net.
        """
        path = weights or hub_file(WEIGHTS_FILE)
        if path is None:
            raise ValueError(
                f"the extractor inception needs its weights: get {WEIGHTS_FILE} from the releases of pytorch-fid and "
                "give its path (--weights PATH, weights=); it is not among the files of torch.hub either"
            )
        net = InceptionV3()
        fill(net, read_weights(path), path, "FID's Inception-v3", spare=("fc.", "AuxLogits."))
        return cls(net, file_hash(path))

    @property
    def name(self) -> str:
        """``inception``."""
        return "inception"

    @property
    def hash(self) -> str:
        """SHA-256 of weights and settings."""
        return settings_hash(self.name, self.weights_hash, self.describe())

    def describe(self) -> Mapping[str, str]:
        """The protocol, that of pytorch-fid."""
        published = self.weights_hash[:8] in WEIGHTS_FILE
        return {
            "features": "last pooling of Inception-v3",
            "resize": f"{SIDE}x{SIDE}, bilinear, not antialiased, as pytorch-fid does",
            "range": "[-1, 1]",
            "uint8": UINT8_RULE,
            "weights": f"{'those of pytorch-fid' if published else 'not those of pytorch-fid'}, "
            f"{self.weights_hash[:12]}",
        }

    def __call__(self, x: Float[Tensor, "n C H W"]) -> Float[Tensor, "n k"]:
        """Features of images in [-1, 1], grey or RGB; float32, shape (n, 2048)."""
        resized = interpolate(as_rgb(x, self.name), (SIDE, SIDE), mode="bilinear", align_corners=False)
        found: Tensor = self.net(2 * resized - 1)
        return found


class InceptionV3(nn.Module):
    """The net up to its last pooling, for RGB images of 299x299 in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, 128)
        self.Mixed_6c = BlockC(768, 160)
        self.Mixed_6d = BlockC(768, 160)
        self.Mixed_6e = BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, maximum=False)
        self.Mixed_7c = BlockE(2048, maximum=True)

    def forward(self, x: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 2048"]:
        """Means over space of the last block."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))  # type: ignore[no-any-return]


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: Size, *, stride: int = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        return torch.relu(self.bn(self.conv(x)))


def _mean(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """Branches of 1x1, 5x5, twice 3x3, and a pooled one."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat(
            [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_mean(x))], 1
        )


class BlockB(nn.Module):
    """Halves the side: 3x3, twice 3x3, and a maximum."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """Branches of 1x1, 7x7 in two strips, twice that, and a pooled one."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 192, 1)
        self.branch7x7_1 = Conv(inputs, width, 1)
        self.branch7x7_2 = Conv(width, width, (1, 7), padding=(0, 3))
        self.branch7x7_3 = Conv(width, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = Conv(inputs, width, 1)
        self.branch7x7dbl_2 = Conv(width, width, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = Conv(width, width, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = Conv(width, width, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = Conv(width, 192, (1, 7), padding=(0, 3))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_mean(x))], 1)


class BlockD(nn.Module):
    """Halves the side: 3x3, 7x7 and 3x3, and a maximum."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(inputs, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(inputs, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        long = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), long, max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """Branches of 1x1, of 3x3 in two strips side by side, of such a pair after 3x3, and a pooled one."""

    def __init__(self, inputs: int, *, maximum: bool) -> None:
        super().__init__()
        self.maximum = maximum
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = max_pool2d(x, 3, stride=1, padding=1) if self.maximum else _mean(x)
        pairs = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        pairs += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *pairs, self.branch_pool(pooled)], 1)
