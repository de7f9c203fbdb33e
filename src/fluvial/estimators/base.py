"""What both densities have in common as scikit-learn estimators."""

from typing import Any

import numpy as np
from jaxtyping import Float64
from sklearn.base import BaseEstimator, DensityMixin


class RowDensity(DensityMixin, BaseEstimator):
    """A density of a table's rows."""

    def score_samples(self, X: Any) -> Float64[np.ndarray, " n"]:
        """Log-density of each row, in nats."""
        raise NotImplementedError

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of rows, in nats, as that of ``GaussianMixture`` (that of ``KernelDensity`` is the sum).

        Args:
            X: Rows, shape ``(n, d)``.
            y: Ignored.
        """
        return float(self.score_samples(X).mean())
