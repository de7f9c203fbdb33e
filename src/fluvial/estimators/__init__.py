"""Densities as scikit-learn estimators: :class:`FlowDensity` learns one, :class:`ExactDensity` is that of the data."""

from fluvial.estimators.exact_density import ExactDensity
from fluvial.estimators.flow_density import FlowDensity

__all__ = ["ExactDensity", "FlowDensity"]
