"""Measurements of a field against data; each returns a :class:`Finding` (verdict, table, figure)."""

from fluvial.audits.finding import Drawing, Finding
from fluvial.audits.gap import approximation

__all__ = ["Drawing", "Finding", "approximation"]
