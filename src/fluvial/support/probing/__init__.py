"""Probing attention: how near a running model's cross-attention is to kernel smoothing of its tokens."""

from fluvial.support.probing.context import Probe, probe
from fluvial.support.probing.records import AttentionRecord, Rows
from fluvial.support.probing.reports import ProbeReport

__all__ = ["AttentionRecord", "Probe", "ProbeReport", "Rows", "probe"]
