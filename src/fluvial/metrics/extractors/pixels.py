"""The data themselves as features: pixels of images, raw values of points and tables."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.metrics.extractors.base import UINT8_RULE, quantised, settings_hash


@dataclass(frozen=True)
class Pixels:
    """Flattened data; images are rounded to 256 grey levels first, real and generated ones alike.

    Args:
        images: Whether the data are images in [-1, 1]; else their values are taken as they are.

    Example:
        >>> Pixels(images=True)(torch.tensor([[[[2.0, -1.0]]]]))
        tensor([[ 1., -1.]])
    """

    images: bool = True

    @property
    def costly(self) -> bool:
        """No: they are not worth a place on disk."""
        return False

    @property
    def name(self) -> str:
        """``pixels``, or ``raw values``."""
        return "pixels" if self.images else "raw values"

    @property
    def hash(self) -> str:
        """SHA-256 of the settings."""
        return settings_hash(self.name, self.describe())

    def describe(self) -> Mapping[str, str]:
        """The protocol."""
        return {
            "features": "the data themselves",
            "resize": "none",
            "range": "[-1, 1]" if self.images else "as the data",
            "uint8": UINT8_RULE if self.images else "none",
        }

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n k"]:
        """Rows of a matrix, float32, float64 for points that are."""
        values = quantised(x) if self.images else x.detach().cpu()
        return (values if values.dtype == torch.float64 else values.float()).flatten(1)
