"""The affine map between a table's own units and columns of mean 0 and standard deviation 1."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from fluvial.data.quoting import quoted_names


@dataclass(frozen=True)
class Standardization:
    r"""Column-wise :math:`z = (v - \text{mean}) / \text{std}`, remembered so that it can be undone.

    Args:
        columns: Names of the columns, in order.
        mean: Mean of each column, in its own units.
        std: Standard deviation of each column, in its own units, positive.
        dropped: Names of the columns of text that were left out.

    Example:
        >>> s = Standardization.fit(("a",), np.array([[1.0], [3.0]]))
        >>> s.forward(np.array([[3.0]])), s.inverse(np.array([[1.0]]))
        (array([[1.]]), array([[3.]]))
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dropped: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, columns: tuple[str, ...], values: Float64[np.ndarray, "N D"], dropped: tuple[str, ...] = ()
    ) -> "Standardization":
        """Measures mean and standard deviation (divisor N) of the columns of ``values``, shape (N, D).

        Raises:
            ValueError: If a column is constant or too wide for float64, with its name.
        """
        # The mean of equal numbers need not equal them in floating point, so constancy is not read off the
        # deviation.
        constant = [c for c, low, high in zip(columns, values.min(0), values.max(0), strict=True) if low == high]
        if constant:
            names = quoted_names(constant)
            raise ValueError(f"cannot standardise columns that are constant in the training data: {names}")
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = values.mean(0), values.std(0)
        wide = [c for c, s in zip(columns, std, strict=True) if not 0 < s < np.inf]
        if wide:
            names = quoted_names(wide)
            raise ValueError(f"cannot standardise columns whose deviation is not a float64 number: {names}")
        return cls(columns, tuple(mean.tolist()), tuple(std.tolist()), dropped)

    def forward(self, values: NDArray[Any]) -> Float64[np.ndarray, "N D"]:
        """Maps rows in their own units, shape (N, D), to standardised ones."""
        standardised: NDArray[np.float64] = (values - np.array(self.mean)) / np.array(self.std)
        return standardised

    def inverse(self, values: NDArray[Any]) -> Float64[np.ndarray, "N D"]:
        """Maps standardised rows, shape (N, D), back to their own units."""
        restored: NDArray[np.float64] = values * np.array(self.std) + np.array(self.mean)
        return restored
