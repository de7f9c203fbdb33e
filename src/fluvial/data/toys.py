"""Distributions in the plane whose shape the eye can judge, each of about unit variance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluvial.data.dataset import Dataset
from fluvial.data.specs import TOYS
from fluvial.data.splits import random_state

Points = tuple[NDArray[Any], NDArray[Any] | None]


def make_toy(name: str, seed: int = 0, count: int = 10_000) -> Dataset:
    """Draws ``count`` points, shape (2,), that depend on name, seed and count alone; not yet split.

    Args:
        name: ``"moons"``, ``"eight-gaussians"``, ``"checkerboard"``, ``"swiss-roll"`` or ``"two-spirals"``.
        seed: Non-negative integer.
        count: Number of points, at least 1.

    Returns:
        A data set, with labels for moons (2), eight Gaussians (8) and spirals (2).

    Raises:
        ValueError: If the name is unknown, ``count`` is not positive or the seed negative.

    Example:
        >>> make_toy("moons", seed=0)
        Dataset('moons', 10000 of shape (2,), 2 classes)
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    draws = {
        "moons": _moons,
        "eight-gaussians": _eight_gaussians,
        "checkerboard": _checkerboard,
        "swiss-roll": _swiss_roll,
        "two-spirals": _two_spirals,
    }
    if name not in draws:
        raise ValueError(f"unknown toy {name!r}: expected one of {', '.join(TOYS)}")
    points, labels = draws[name](count, random_state(seed))
    names = None if labels is None else [str(c) for c in range(8 if name == "eight-gaussians" else 2)]
    return Dataset(points, labels, name=name, class_names=names)


def _moons(count: int, seed: int) -> Points:
    from sklearn.datasets import make_moons

    points, labels = make_moons(count, noise=0.05, random_state=seed)
    return points - np.array([0.5, 0.25]), labels


def _eight_gaussians(count: int, seed: int) -> Points:
    random = np.random.default_rng(seed)
    labels = random.integers(8, size=count)
    angle = labels * (np.pi / 4)
    centres = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return centres + 0.1 * random.standard_normal((count, 2)), labels


def _checkerboard(count: int, seed: int) -> Points:
    random = np.random.default_rng(seed)
    row = random.integers(4, size=count)
    column = 2 * random.integers(2, size=count) + row % 2
    return np.stack([column, row], axis=1) + random.random((count, 2)) - 2, None


def _swiss_roll(count: int, seed: int) -> Points:
    from sklearn.datasets import make_swiss_roll

    points, _ = make_swiss_roll(count, noise=0.3, random_state=seed)
    mean = np.array([2, 2 / (3 * np.pi)])  # of t cos t and t sin t over 1.5 pi .. 4.5 pi
    return (points[:, [0, 2]] - mean) / 7, None


def _two_spirals(count: int, seed: int) -> Points:
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=count)
    # The square root spreads the points evenly along the arm, which is longer for each further turn.
    angle = 3 * np.pi * np.sqrt(random.random(count))
    arm = (angle * (1 - 2 * labels))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return arm / 4.7 + 0.05 * random.standard_normal((count, 2)), labels
