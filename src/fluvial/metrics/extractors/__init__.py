"""Feature extractors by name, each pinned by a hash, and a cache of what they found."""

from fluvial.metrics.extractors.base import Custom, Extractor, extract_features
from fluvial.metrics.extractors.cache import FeatureCache, default_cache
from fluvial.metrics.extractors.load import EXTRACTORS, load_extractor

__all__ = ["EXTRACTORS", "Custom", "Extractor", "FeatureCache", "default_cache", "extract_features", "load_extractor"]
