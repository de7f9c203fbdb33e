"""Classifier two-sample test: how well a classifier tells two sets apart on rows that it has not seen.

A linear classifier sees little beyond a shift of the mean; nearest neighbours and a small net see differences of shape
as well, so that only together do they say much.

Source: Lopez-Paz & Oquab 2017, "Revisiting Classifier Two-Sample Tests".
"""

import difflib
import math
import warnings
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import Samples, as_pair
from fluvial.randomness import generator

Classifier = Literal["linear", "knn", "mlp"]
CLASSIFIERS: tuple[Classifier, ...] = get_args(Classifier)
"""The classifiers that :func:`classifier_two_sample` knows."""


@checked
def classifier_two_sample(a: Samples, b: Samples, kind: str = "linear", *, seed: int = 0, folds: int = 5) -> float:
    """Cross-validated accuracy of a classifier that tells the rows of ``a`` from those of ``b``.

    Features are standardised inside each fold. The larger set is cut down to the smaller one, at random, so that chance
    is one half.

    Args:
        a: Samples, shape (n, ...); rows are flattened.
        b: The other set, shape (m, ...).
        kind: ``"linear"`` (logistic regression), ``"knn"`` (as many neighbours as the square root of the rows that it
            learns from) or ``"mlp"`` (two hidden layers of 32 units).
        seed: Seed of the folds, of the cut and of the net.
        folds: Parts of the cross-validation; each set needs that many rows.

    Returns:
        Accuracy in [0, 1]: about .5 where the sets cannot be told apart, 1 where they are separate. Between equal
        distributions its standard deviation is about ``.5 / sqrt(2 min(n, m))`` or a little more.

    Raises:
        TypeError: If a set holds no floating point numbers.
        ValueError: If ``kind`` is unknown, ``folds`` below 2, a set has fewer rows than folds or is not finite, or the
            numbers of features differ.

    Source:
        Lopez-Paz & Oquab 2017, section 3.

    Example:
        >>> a = torch.randn(50, 2)
        >>> fv.metrics.classifier_two_sample(a, a + 20)
        1.0
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    if kind not in CLASSIFIERS:
        near = difflib.get_close_matches(str(kind), CLASSIFIERS, 1, 0.0)[0]
        raise ValueError(f"kind must be one of {', '.join(CLASSIFIERS)}, got {kind!r}; did you mean {near!r}?")
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    first, second = as_pair(a, b, ("a", "b"), minimum=folds)
    size = min(len(first), len(second))
    rows = torch.cat([_cut(part, size, seed, side) for side, part in enumerate((first, second))])
    values = rows.double().cpu().numpy()
    labels = np.repeat([0, 1], size)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # nets stop after a fixed number of passes; where the sets differ little they have not converged by then
        warnings.filterwarnings("ignore", message=".*Maximum iterations.*")
        scores = cross_val_score(_pipeline(kind, len(values) * (folds - 1) // folds, seed), values, labels, cv=split)
    return float(np.mean(scores))


def _cut(rows: Tensor, size: int, seed: int, side: int) -> Tensor:
    if len(rows) == size:
        return rows
    return rows[torch.randperm(len(rows), generator=generator(seed, side))[:size].to(rows.device)]


def _pipeline(kind: str, learned_from: int, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    batch = min(64, learned_from)
    classifiers = {
        "linear": lambda: LogisticRegression(),
        # an odd number of votes has no ties
        "knn": lambda: KNeighborsClassifier(math.isqrt(learned_from) // 2 * 2 + 1),
        "mlp": lambda: MLPClassifier(
            (32, 32), alpha=0.1, batch_size=batch, learning_rate_init=1e-2, max_iter=40, random_state=seed
        ),
    }
    return make_pipeline(StandardScaler(), classifiers[kind]())
