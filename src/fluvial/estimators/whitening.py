"""The affine map that gives a table's rows mean 0 and covariance 1."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Rows = Float64[np.ndarray, "N d"]


@dataclass(frozen=True)
class Whitening:
    r"""Symmetric whitening :math:`z = R^{-1/2}\, (x - \text{mean}) / \text{std}`, R the correlations.

    Of all whitenings it moves the standardised columns least, so that a column stays recognisable.

    Source: Kessy, Lewin and Strimmer 2018, "Optimal Whitening and Decorrelation" (ZCA-cor).

    Args:
        mean: Mean of each column, in its own units.
        std: Standard deviation of each column, in its own units, positive.
        root: The symmetric square root of the correlations, shape ``(d, d)``.
        inverse_root: Its inverse.
        log_det: Logarithm of the map's determinant: what a log-density in its own units has beyond that of ``z``.

    Example:
        >>> rows = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])
        >>> found = Whitening.fit(rows)
        >>> found.forward(rows).round(3).tolist(), round(found.log_det, 3)
        ([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]], -0.693)
    """

    mean: Float64[np.ndarray, " d"]
    std: Float64[np.ndarray, " d"]
    root: Float64[np.ndarray, "d d"]
    inverse_root: Float64[np.ndarray, "d d"]
    log_det: float

    @classmethod
    def fit(cls, values: Rows, reg_covar: float = 1e-6) -> "Whitening":
        """Measures mean, deviation and correlations of rows.

        Args:
            values: Rows, shape ``(N, d)``, finite.
            reg_covar: Added to the correlations' diagonal; it bounds the density where columns depend on one another.
                Constant columns keep their units.

        Raises:
            ValueError: If a column's deviation is no float64 number, or columns depend on one another and
                ``reg_covar`` is 0.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = values.mean(0), values.std(0)
        if not np.isfinite(std).all():
            raise ValueError("X has columns whose deviation is not a float64 number; rescale them")
        if ((std == 0) & (values.min(0) < values.max(0))).any():
            raise ValueError("X has columns whose deviation is too small for a float64 number; rescale them")
        # The deviation of equal numbers is not always exactly 0.
        std = np.where(std > 10 * np.finfo(np.float64).eps * np.abs(mean), std, 1.0)
        z = (values - mean) / std
        eigenvalues, vectors = np.linalg.eigh(z.T @ z / len(z))
        powers = np.sqrt(np.maximum(eigenvalues, 0) + reg_covar)
        if not powers.min() > 1e-12 * powers.max():
            raise ValueError(f"reg_covar must be positive where columns depend on one another, got {reg_covar}")
        root, inverse = (vectors * powers) @ vectors.T, (vectors / powers) @ vectors.T
        return cls(mean, std, root, inverse, float(-np.log(powers).sum() - np.log(std).sum()))

    def forward(self, values: Rows) -> Rows:
        """Rows in their own units, shape ``(N, d)``, to white ones."""
        white: Rows = ((values - self.mean) / self.std) @ self.inverse_root
        return white

    def inverse(self, values: Rows) -> Rows:
        """White rows, shape ``(N, d)``, back to their own units."""
        restored: Rows = (values @ self.root) * self.std + self.mean
        return restored
