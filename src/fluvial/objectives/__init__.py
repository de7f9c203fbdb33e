"""What a net is trained on: Conditional and Empirical Flow Matching, Mean Flows, maximum likelihood.

A batch with NaN has a loss of NaN: training looks at the loss, and skips the step.
"""

from fluvial.objectives.base import Batch, Loss, Objective
from fluvial.objectives.cfm import CFM
from fluvial.objectives.efm import EFM
from fluvial.objectives.likelihood import MaximumLikelihood
from fluvial.objectives.meanflow import MeanFlow, self_consistency

__all__ = ["CFM", "EFM", "Batch", "Loss", "MaximumLikelihood", "MeanFlow", "Objective", "self_consistency"]
