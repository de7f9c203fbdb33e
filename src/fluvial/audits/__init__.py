"""Measurements of a model against its data; each returns a :class:`Finding` (verdict, table, figures)."""

from fluvial.audits.collapsing import collapse
from fluvial.audits.finding import Drawing, Finding
from fluvial.audits.gap import approximation
from fluvial.audits.hybrids import hybrid
from fluvial.audits.memorizing import memorization
from fluvial.audits.runner import Audit, audit
from fluvial.audits.scalings import scaling
from fluvial.audits.scoring import quality
from fluvial.audits.stochastic import stochasticity
from fluvial.audits.subject import Budget

__all__ = [
    "Audit",
    "Budget",
    "Drawing",
    "Finding",
    "approximation",
    "audit",
    "collapse",
    "hybrid",
    "memorization",
    "quality",
    "scaling",
    "stochasticity",
]
