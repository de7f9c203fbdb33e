"""What a net is regressed on: Conditional and Empirical Flow Matching."""

from fluvial.objectives.base import Batch, Loss, Objective
from fluvial.objectives.cfm import CFM
from fluvial.objectives.efm import EFM

__all__ = ["CFM", "EFM", "Batch", "Loss", "Objective"]
