"""Support-conditioned generation: from a handful of examples to new points of the same distribution.

The names are imported on first use: reading or checking a config never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluvial.support import tasks as tasks
    from fluvial.support.config import SupportConfig as SupportConfig
    from fluvial.support.design import balanced_bandwidths as balanced_bandwidths
    from fluvial.support.design import balanced_sizes as balanced_sizes
    from fluvial.support.design import bandwidth_grid as bandwidth_grid
    from fluvial.support.design import compare_grids as compare_grids
    from fluvial.support.design import design_bandwidth as design_bandwidth
    from fluvial.support.design import design_grid as design_grid
    from fluvial.support.design import effective_sizes as effective_sizes
    from fluvial.support.diagnosis import Diagnosis as Diagnosis
    from fluvial.support.diagnosis import diagnose as diagnose
    from fluvial.support.evaluation.evaluating import evaluate as evaluate
    from fluvial.support.evaluation.outcome import Evaluation as Evaluation
    from fluvial.support.evaluation.plug_in import plug_in_samples as plug_in_samples
    from fluvial.support.kernel.attention import KernelAttention as KernelAttention
    from fluvial.support.probing import ProbeReport as ProbeReport
    from fluvial.support.probing import probe as probe
    from fluvial.support.runs import SupportRun as SupportRun
    from fluvial.support.runs import load_support_run as load_support_run
    from fluvial.support.training import MetaResult as MetaResult
    from fluvial.support.training import MetaTrainer as MetaTrainer

_HOMES = {
    "tasks": None,
    "Diagnosis": "diagnosis",
    "Evaluation": "evaluation.outcome",
    "KernelAttention": "kernel.attention",
    "MetaResult": "training",
    "MetaTrainer": "training",
    "ProbeReport": "probing",
    "SupportConfig": "config",
    "SupportRun": "runs",
    "balanced_bandwidths": "design",
    "balanced_sizes": "design",
    "bandwidth_grid": "design",
    "compare_grids": "design",
    "design_bandwidth": "design",
    "design_grid": "design",
    "diagnose": "diagnosis",
    "effective_sizes": "design",
    "evaluate": "evaluation.evaluating",
    "load_support_run": "runs",
    "plug_in_samples": "evaluation.plug_in",
    "probe": "probing",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fluvial.support' has no attribute {name!r}")
    home = _HOMES[name]
    if home is None:
        return import_module(f"fluvial.support.{name}")
    return getattr(import_module(f"fluvial.support.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
