"""DINOv2: class token of a vision transformer trained without labels, whose distances follow human judgement better.

The net is small enough to be written here; its names are those of the official release, and files with the names of
the transformers library are read as well. Its size is read off the weights.

Source: Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision"; Stein et al. 2023, "Exposing
flaws of generative model evaluation metrics and their unfair treatment of diffusion models" (its use for scores).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from fluvial.data.json_text import read_json
from fluvial.metrics.extractors.base import UINT8_RULE, as_rgb, settings_hash
from fluvial.metrics.extractors.vit import VisionTransformer, ViTSize, official_names
from fluvial.metrics.extractors.weights import file_hash, fill, hub_file, read_weights, require_fit

SIDE = 224
WEIGHTS_FILE = "dinov2_vits14_pretrain.pth"
"""The official file of ViT-S/14."""

HUB_NAME = "facebook/dinov2-small"
"""The same net on the Hugging Face hub."""

_MOST_BLOCKS = 100
"""The largest DINOv2 has 40."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DINOv2:
    """Class token of DINOv2 after the last normalisation.

    Args:
        net: The net.
        weights_hash: SHA-256 of the file that its weights come from.
    """

    net: VisionTransformer = field(repr=False)
    weights_hash: str

    @classmethod
    def load(cls, weights: Path | None = None) -> "DINOv2":
        """The net with weights from a file.

        Args:
            weights: ``.pth`` or ``.safetensors`` of any size, with official or transformers' names, or a folder with
                ``model.safetensors``; ``config.json`` beside it, if there is one, tells the number of heads (by
                default one for every 64 features). None takes ViT-S/14 where ``torch.hub`` or the hub's library,
                if it is installed, keep or find it.

        Raises:
            ValueError: If there is no file, or it is damaged or holds the weights of another net.
        """
        path = _found() if weights is None else weights
        path = path / "model.safetensors" if path.is_dir() else path
        tensors = official_names(read_weights(path))
        size = _size(tensors, path)
        with torch.device("meta"):  # sizes that the file merely claims must not take memory
            require_fit(VisionTransformer(size), tensors, path, "DINOv2", spare=("mask_token",))
        net = VisionTransformer(size)
        fill(net, tensors, path, "DINOv2", spare=("mask_token",))
        return cls(net, file_hash(path))

    @property
    def name(self) -> str:
        """``dinov2``."""
        return "dinov2"

    @property
    def hash(self) -> str:
        """SHA-256 of weights and settings."""
        return settings_hash(self.name, self.weights_hash, self.describe())

    def describe(self) -> Mapping[str, str]:
        """The protocol."""
        size = self.net.size
        shape = f"{size.width} wide, {size.depth} deep, patches of {size.patch}"
        registers = f", {size.registers} registers" if size.registers else ""
        return {
            "features": f"class token of DINOv2, {shape}{registers}",
            "resize": f"{self._side}x{self._side}, bicubic, antialiased",
            "range": "ImageNet mean and deviation",
            "uint8": UINT8_RULE,
            "weights": self.weights_hash[:12],
        }

    @property
    def _side(self) -> int:
        """The side nearest below 224 that patches fill."""
        return max(1, SIDE // self.net.size.patch) * self.net.size.patch

    def __call__(self, x: Float[Tensor, "n C H W"]) -> Float[Tensor, "n k"]:
        """Features of images in [-1, 1], grey or RGB; float32."""
        side = (self._side, self._side)
        resized = interpolate(as_rgb(x, self.name), side, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
        found: Tensor = self.net((resized - mean) / std)
        return found


def _found() -> Path:
    """ViT-S/14 in the caches of its makers' tools, or from the hub."""
    path = hub_file(WEIGHTS_FILE)
    if path is not None:
        return path
    reason = "the package huggingface_hub is not installed"
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(HUB_NAME, "model.safetensors"))
    except ImportError:
        pass
    except Exception as error:  # no network, no such file, no rights: the reader needs to know which
        reason = f"{HUB_NAME} cannot be had from the hub ({' '.join(str(error).split())[:120]})"
    raise ValueError(
        f"the extractor dinov2 needs its weights: get {WEIGHTS_FILE} from the page of DINOv2, or model.safetensors of "
        f"{HUB_NAME}, and give its path (--weights PATH, weights=); {reason}"
    )


def _size(tensors: Mapping[str, Tensor], path: Path) -> ViTSize:
    """The size of the net that these weights are of."""
    try:
        width = tensors["cls_token"].shape[-1]
        patch = tensors["patch_embed.proj.weight"].shape[-1]
        grid = isqrt(tensors["pos_embed"].shape[1] - 1)
        blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
        gated = "blocks.0.mlp.w12.weight" in tensors
        hidden = tensors["blocks.0.mlp.w3.weight" if gated else "blocks.0.mlp.fc2.weight"].shape[1]
    except (KeyError, IndexError, ValueError):
        raise ValueError(
            f"weights {str(path)!r} are not those of DINOv2: they have no cls_token, patch_embed, pos_embed and blocks"
        ) from None
    registers = tensors["register_tokens"].shape[1] if "register_tokens" in tensors else 0
    config = path.with_name("config.json")
    heads = max(1, width // 64)
    if config.is_file():
        try:
            found: Any = read_json(config).get("num_attention_heads", heads)
        except (OSError, ValueError, AttributeError):
            found = None
        if type(found) is not int:
            raise ValueError(f"{config} beside the weights must be JSON with num_attention_heads, a whole number")
        heads = found
    if len(blocks) > _MOST_BLOCKS:
        raise ValueError(f"weights {str(path)!r} have {len(blocks)} blocks, expected at most {_MOST_BLOCKS}")
    if heads < 1 or width % heads:
        raise ValueError(f"weights {str(path)!r}: {heads} heads do not divide a width of {width}")
    return ViTSize(width, len(blocks), heads, patch, grid, hidden, registers, gated)
