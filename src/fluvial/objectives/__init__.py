"""What a net is regressed on: Conditional and Empirical Flow Matching, Mean Flows."""

from fluvial.objectives.base import Batch, Loss, Objective
from fluvial.objectives.cfm import CFM
from fluvial.objectives.efm import EFM
from fluvial.objectives.meanflow import MeanFlow, self_consistency

__all__ = ["CFM", "EFM", "Batch", "Loss", "MeanFlow", "Objective", "self_consistency"]
