"""Distances between sets of samples, computed in float64, and the features in which to take them."""

from fluvial.metrics.features import ClassifierFeatures
from fluvial.metrics.frechet import GaussianStatistics, frechet_distance
from fluvial.metrics.kernel import KernelDistance, kernel_distance
from fluvial.metrics.neighbours import Neighbours, nearest_neighbour_ratio, nearest_neighbours

__all__ = [
    "ClassifierFeatures",
    "GaussianStatistics",
    "KernelDistance",
    "Neighbours",
    "frechet_distance",
    "kernel_distance",
    "nearest_neighbour_ratio",
    "nearest_neighbours",
]
