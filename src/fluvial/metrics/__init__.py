"""Distances between sets of samples, computed in float64, and the features in which to take them."""

from fluvial.metrics.authentic import authenticity, local_ratios
from fluvial.metrics.copying_test import CTTest, ct_test
from fluvial.metrics.duplicates import Duplicates, find_duplicates
from fluvial.metrics.energy import batched_energy_distance, energy_distance
from fluvial.metrics.extractors import EXTRACTORS, Extractor, extract_features, load_extractor
from fluvial.metrics.features import ClassifierFeatures
from fluvial.metrics.frechet import GaussianStatistics, frechet_distance
from fluvial.metrics.frechet_sampling import FrechetEstimate, frechet_estimate, frechet_extrapolation
from fluvial.metrics.kernel import KernelDistance, kernel_distance
from fluvial.metrics.manifolds import PRDC, prdc
from fluvial.metrics.mmd import batched_median_distance, batched_mmd2, median_distance, mmd2
from fluvial.metrics.neighbours import KNearest, Neighbours, k_nearest, nearest_neighbour_ratio, nearest_neighbours
from fluvial.metrics.two_sample import CLASSIFIERS, classifier_two_sample

__all__ = [
    "CLASSIFIERS",
    "EXTRACTORS",
    "PRDC",
    "CTTest",
    "ClassifierFeatures",
    "Duplicates",
    "Extractor",
    "FrechetEstimate",
    "GaussianStatistics",
    "KNearest",
    "KernelDistance",
    "Neighbours",
    "authenticity",
    "batched_energy_distance",
    "batched_median_distance",
    "batched_mmd2",
    "classifier_two_sample",
    "ct_test",
    "energy_distance",
    "extract_features",
    "find_duplicates",
    "frechet_distance",
    "frechet_estimate",
    "frechet_extrapolation",
    "k_nearest",
    "kernel_distance",
    "load_extractor",
    "local_ratios",
    "median_distance",
    "mmd2",
    "nearest_neighbour_ratio",
    "nearest_neighbours",
    "prdc",
]
