"""Velocity fields: the exact one of a data set, and fields made of others.

NaN and infinity in ``x`` or ``t`` come out as NaN: a field is called at every step of a solver, which looks at its
state.
"""

from fluvial.fields.base import Field, breakpoints, singular_at_end
from fluvial.fields.collapse import Collapse, collapse_time
from fluvial.fields.exact import ExactField
from fluvial.fields.guided import Guided
from fluvial.fields.hybrid import Hybrid
from fluvial.fields.mixtures import GaussianMixtureField
from fluvial.fields.posterior import Posterior
from fluvial.fields.prior import similarity_prior
from fluvial.fields.smoothed import SmoothedField

__all__ = [
    "Collapse",
    "ExactField",
    "Field",
    "GaussianMixtureField",
    "Guided",
    "Hybrid",
    "Posterior",
    "SmoothedField",
    "breakpoints",
    "collapse_time",
    "similarity_prior",
    "singular_at_end",
]
