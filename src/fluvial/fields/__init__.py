"""Velocity fields: the exact one of a data set, and fields made of others."""

from fluvial.fields.base import Field, breakpoints, singular_at_end
from fluvial.fields.collapse import Collapse, collapse_time
from fluvial.fields.exact import ExactField, Posterior
from fluvial.fields.guided import Guided
from fluvial.fields.hybrid import Hybrid

__all__ = [
    "Collapse",
    "ExactField",
    "Field",
    "Guided",
    "Hybrid",
    "Posterior",
    "breakpoints",
    "collapse_time",
    "singular_at_end",
]
