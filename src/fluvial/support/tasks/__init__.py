"""Families of few-shot tasks: random distributions, synthetic and real, each seen through a handful of examples.

Only the names are imported with the package; the rest, which needs torch, comes on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fluvial.support.tasks.names import FAMILIES as FAMILIES
from fluvial.support.tasks.names import FamilyName as FamilyName
from fluvial.support.tasks.names import parse_family as parse_family

if TYPE_CHECKING:
    from fluvial.support.tasks.base import Family as Family
    from fluvial.support.tasks.base import SyntheticFamily as SyntheticFamily
    from fluvial.support.tasks.base import TaskBatch as TaskBatch
    from fluvial.support.tasks.base import Truth as Truth
    from fluvial.support.tasks.by_name import family_by_name as family_by_name
    from fluvial.support.tasks.classes import ClassTasks as ClassTasks
    from fluvial.support.tasks.fourier import FourierDensities as FourierDensities
    from fluvial.support.tasks.gaussians import GaussianMixtures as GaussianMixtures
    from fluvial.support.tasks.mixed import Mixed as Mixed
    from fluvial.support.tasks.planar import Moons as Moons
    from fluvial.support.tasks.planar import Rings as Rings
    from fluvial.support.tasks.planar import Spirals as Spirals
    from fluvial.support.tasks.shells import Shells as Shells

_HOMES = {
    "ClassTasks": "classes",
    "Family": "base",
    "FourierDensities": "fourier",
    "GaussianMixtures": "gaussians",
    "Mixed": "mixed",
    "Moons": "planar",
    "Rings": "planar",
    "Shells": "shells",
    "Spirals": "planar",
    "SyntheticFamily": "base",
    "TaskBatch": "base",
    "Truth": "base",
    "family_by_name": "by_name",
}

__all__ = ["FAMILIES", "FamilyName", "parse_family", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fluvial.support.tasks' has no attribute {name!r}")
    return getattr(import_module(f"fluvial.support.tasks.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
