"""fluvial: flow matching in which the exact answer is a first-class object.

Time runs from noise (``t = 0``) to data (``t = 1``); ``x0`` is noise, ``x1`` data, ``xt`` a point on the path between
them and ``ut`` its velocity. The public names below are imported on first use, so that ``import fluvial`` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fluvial import audits as audits
    from fluvial import metrics as metrics
    from fluvial import nn as nn
    from fluvial import support as support
    from fluvial.audits import Audit as Audit
    from fluvial.audits import Budget as Budget
    from fluvial.audits import audit as audit
    from fluvial.conditions import Embedding as Embedding
    from fluvial.conditions import Tokens as Tokens
    from fluvial.couplings import Independent as Independent
    from fluvial.couplings import OptimalTransport as OptimalTransport
    from fluvial.data import Dataset as Dataset
    from fluvial.data import load_dataset as load_dataset
    from fluvial.estimators import ExactDensity as ExactDensity
    from fluvial.estimators import FlowDensity as FlowDensity
    from fluvial.fields import Collapse as Collapse
    from fluvial.fields import ExactField as ExactField
    from fluvial.fields import GaussianMixtureField as GaussianMixtureField
    from fluvial.fields import Guided as Guided
    from fluvial.fields import Hybrid as Hybrid
    from fluvial.fields import Posterior as Posterior
    from fluvial.fields import SmoothedField as SmoothedField
    from fluvial.fields import collapse_time as collapse_time
    from fluvial.fields import similarity_prior as similarity_prior
    from fluvial.likelihood import LogProb as LogProb
    from fluvial.likelihood import log_prob as log_prob
    from fluvial.likelihood import sample_with_log_prob as sample_with_log_prob
    from fluvial.objectives import CFM as CFM
    from fluvial.objectives import EFM as EFM
    from fluvial.objectives import Batch as Batch
    from fluvial.objectives import Loss as Loss
    from fluvial.objectives import MaximumLikelihood as MaximumLikelihood
    from fluvial.objectives import MeanFlow as MeanFlow
    from fluvial.paths import VP as VP
    from fluvial.paths import CondOT as CondOT
    from fluvial.paths import Cosine as Cosine
    from fluvial.paths import FromBandwidth as FromBandwidth
    from fluvial.paths import GaussianPath as GaussianPath
    from fluvial.paths import PathSample as PathSample
    from fluvial.paths import Polynomial as Polynomial
    from fluvial.progress import Progress as Progress
    from fluvial.solvers import Trajectory as Trajectory
    from fluvial.solvers import solve as solve
    from fluvial.times import LogitNormal as LogitNormal
    from fluvial.times import LogUniformBandwidth as LogUniformBandwidth
    from fluvial.times import OrderedPairs as OrderedPairs
    from fluvial.times import SeparatePairs as SeparatePairs
    from fluvial.times import Uniform as Uniform

_HOMES = {
    "audits": None,
    "metrics": None,
    "nn": None,
    "support": None,
    "Audit": "audits",
    "Budget": "audits",
    "audit": "audits",
    "Embedding": "conditions",
    "Tokens": "conditions",
    "Independent": "couplings",
    "OptimalTransport": "couplings",
    "Dataset": "data",
    "load_dataset": "data",
    "ExactDensity": "estimators",
    "FlowDensity": "estimators",
    "Collapse": "fields",
    "ExactField": "fields",
    "GaussianMixtureField": "fields",
    "Guided": "fields",
    "Hybrid": "fields",
    "Posterior": "fields",
    "SmoothedField": "fields",
    "collapse_time": "fields",
    "similarity_prior": "fields",
    "LogProb": "likelihood",
    "log_prob": "likelihood",
    "sample_with_log_prob": "likelihood",
    "CFM": "objectives",
    "EFM": "objectives",
    "Batch": "objectives",
    "Loss": "objectives",
    "MaximumLikelihood": "objectives",
    "MeanFlow": "objectives",
    "VP": "paths",
    "CondOT": "paths",
    "Cosine": "paths",
    "FromBandwidth": "paths",
    "GaussianPath": "paths",
    "PathSample": "paths",
    "Polynomial": "paths",
    "Progress": "progress",
    "Trajectory": "solvers",
    "solve": "solvers",
    "LogitNormal": "times",
    "LogUniformBandwidth": "times",
    "OrderedPairs": "times",
    "SeparatePairs": "times",
    "Uniform": "times",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fluvial' has no attribute {name!r}")
    home = _HOMES[name]
    if home is None:
        return import_module(f"fluvial.{name}")
    return getattr(import_module(f"fluvial.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
