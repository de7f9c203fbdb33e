"""Where features of real data come from: pixels, a net's features, or a file of one's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray

from fluvial.data.load import load_dataset
from fluvial.data.numpy_files import load_arrays
from fluvial.progress import ProgressCallback

PER_CLASS = 600
"""Images of each class whose features a net takes, the first ones; the paper's classes have as many at least."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Features and the class of each row.

    Args:
        features: Finite, shape ``(N, D)``, float32 or float64.
        labels: Whole numbers or strings, shape ``(N,)``.

    Raises:
        ValueError: If a shape or type does not fit, or values are NaN or infinite.

    Example:
        >>> LabelledFeatures(np.zeros((3, 2), np.float32), np.array([0, 1]))
        Traceback (most recent call last):
        ValueError: labels must have shape (3,), one for each row of features, got (2,)
    """

    features: Float[np.ndarray, "..."]
    labels: Shaped[np.ndarray, "..."]

    def __post_init__(self) -> None:
        features, labels = self.features, self.labels
        if features.ndim != 2 or features.size == 0:
            raise ValueError(f"features must have shape (N, D), neither of them 0, got {features.shape}")
        if labels.shape != (len(features),):
            raise ValueError(
                f"labels must have shape ({len(features)},), one for each row of features, got {labels.shape}"
            )
        if labels.dtype.kind not in "iuUSb":
            raise ValueError(f"labels must be whole numbers or strings, got dtype {labels.dtype}")
        bad = ~np.isfinite(features).all(1)
        if bad.any():
            raise ValueError(
                f"features must be finite, got NaN or infinity in {int(bad.sum())} of {len(bad)} rows, "
                f"the first is row {int(np.flatnonzero(bad)[0])}"
            )


def as_features(features: Any, labels: Any) -> LabelledFeatures:
    """Tensors, arrays or lists as checked arrays; whole numbers become float32.

    Raises:
        ValueError: As for :class:`LabelledFeatures`.
        TypeError: If features are no real numbers.
    """
    rows, classes = _array(features), _array(labels)
    if rows.dtype.kind not in "fiu":
        raise TypeError(f"features must be real numbers, got dtype {rows.dtype}")
    return LabelledFeatures(rows.astype(np.float64 if rows.dtype == np.float64 else np.float32), classes)


def read_feature_file(path: Path) -> LabelledFeatures:
    """Arrays ``features`` and ``labels`` of a ``.npz``, such as ``fluvial features`` writes; others are left alone.

    Raises:
        ValueError: If the file is absent, damaged or lacks one of them, or they are not as they must be.
    """
    if not path.is_file():
        raise ValueError(f"feature file {str(path)!r} {'is no file' if path.exists() else 'does not exist'}")
    arrays = load_arrays(path)
    missing = [key for key in ("features", "labels") if key not in arrays]
    if missing:
        got = ", ".join(map(repr, sorted(arrays))) or "none"
        raise ValueError(f"{path} must have the keys 'features' and 'labels', got {got}")
    try:
        return as_features(arrays["features"], arrays["labels"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def pixel_features(data_set: str) -> LabelledFeatures:
    """Pixels of all images of a labelled data set, train and held-out together.

    Args:
        data_set: Its spec, as for ``load_dataset``.

    Raises:
        ValueError: If it cannot be read or has no labels.

    Example:
        >>> pixel_features("digits").features.shape
        (1797, 64)
    """
    data = load_dataset(data_set)
    if data.labels is None:
        raise ValueError(f"data set {data_set!r} has no labels, which tasks are made of")
    return LabelledFeatures(data.x.flatten(1).numpy(), data.labels.numpy())


def net_features(
    data_set: str, extractor: str, *, per_class: int = PER_CLASS, progress: ProgressCallback | None = None
) -> LabelledFeatures:
    """Features that a net takes of the first images of each class, kept in the user's cache.

    Args:
        data_set: Its spec, as for ``load_dataset``.
        extractor: A name, as for ``metrics.load_extractor``.
        per_class: Images of each class.
        progress: Called after every batch.

    Raises:
        ValueError: If the data cannot be read or have no labels, or the extractor does not take them.
        ImportError: If the extractor's package is not installed.
    """
    from fluvial.metrics.extractors import default_cache, extract_features, load_extractor

    data = load_dataset(data_set)
    if data.labels is None:
        raise ValueError(f"data set {data_set!r} has no labels, which tasks are made of")
    labels = data.labels.numpy()
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]))
    found = extract_features(
        load_extractor(extractor), data.take(rows)[0], batch_size=64, cache=default_cache(), progress=progress
    )
    return LabelledFeatures(found.numpy(), labels[rows])


def _array(values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
