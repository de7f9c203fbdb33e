"""Data sets: what a spec such as ``digits`` or ``folder:PATH`` names, read into memory, split and turned into
tensors.

Only the parsing of specs is imported with the package; the rest, which needs torch, comes on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fluvial.data.specs import DATASETS as DATASETS
from fluvial.data.specs import Spec as Spec
from fluvial.data.specs import parse_spec as parse_spec
from fluvial.data.specs import spec_names as spec_names

if TYPE_CHECKING:
    from fluvial.data.dataset import Dataset as Dataset
    from fluvial.data.images import from_uint8 as from_uint8
    from fluvial.data.images import image_grid as image_grid
    from fluvial.data.images import save_grid as save_grid
    from fluvial.data.images import save_images as save_images
    from fluvial.data.images import to_uint8 as to_uint8
    from fluvial.data.load import load_dataset as load_dataset
    from fluvial.data.standardization import Standardization as Standardization

_HOMES = {
    "Dataset": "dataset",
    "Standardization": "standardization",
    "from_uint8": "images",
    "image_grid": "images",
    "load_dataset": "load",
    "save_grid": "images",
    "save_images": "images",
    "to_uint8": "images",
}

__all__ = ["DATASETS", "Spec", "parse_spec", "spec_names", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fluvial.data' has no attribute {name!r}")
    return getattr(import_module(f"fluvial.data.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
