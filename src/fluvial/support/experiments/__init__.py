"""The first document's comparisons, as one command that can be stopped and continued; imports no torch."""

from fluvial.support.experiments.plan import GROUPS, Experiment, plan_experiments

__all__ = ["GROUPS", "Experiment", "plan_experiments"]
