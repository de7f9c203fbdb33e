"""The density that the exact field of the data makes of noise, as a scikit-learn estimator."""

import math
import os
from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fluvial.estimators.base import RowDensity
from fluvial.estimators.saving import column_names, read_file, save_file, set_column_names
from fluvial.estimators.values import require_samples
from fluvial.fields import ExactField
from fluvial.paths import CondOT

RULES = ("scott", "silverman")
"""Rules that choose the bandwidth from the numbers of rows and columns."""
_LEAST = 1e-100  # its square is a float64 number


class ExactDensity(RowDensity):
    r"""Density of the exact field of rows: that of a Gaussian kernel of the bandwidth which the path leaves at its end.

    Nothing is learned: with :math:`\sigma_\min = h` the field that flow matching regresses on carries noise to
    :math:`\frac1N \sum_i N(s_i, h^2 I)`. It is what ``KernelDensity`` estimates, and a learned flow's density can be
    held against it. Choose the bandwidth by cross-validation.

    Args:
        bandwidth: Standard deviation of the kernel, in the units of the rows; or ``"scott"`` or ``"silverman"``.

    Attributes:
        field_: The exact field, of rows in units of ``scale_``, as ``fv.solve`` and ``fv.log_prob`` take it.
        scale_: The unit, at least twice the bandwidth: a path's ``sigma_min`` is below 1.
        bandwidth_: The bandwidth used.
        rows_: The rows, float64, shape ``(n, d)``.
        n_features_in_: Number of columns.
        feature_names_in_: Their names, where the rows had any.

    Example:
        >>> density = fv.ExactDensity(bandwidth=0.5).fit([[0.0], [1.0]])
        >>> density.score_samples([[0.5]]).round(4)
        array([-0.7258])
    """

    def __init__(self, *, bandwidth: float | str = 1.0) -> None:
        self.bandwidth = bandwidth

    def fit(self, X: Any, y: Any = None) -> "ExactDensity":
        """Keep the rows.

        Args:
            X: Rows, shape ``(n, d)``.
            y: Ignored.

        Raises:
            ValueError: If ``X`` or the bandwidth is invalid.
        """
        self._check()
        rows = validate_data(self, X, dtype=np.float64)
        self._keep(torch.from_numpy(rows.copy()), self._chosen(*rows.shape))
        return self

    def score_samples(self, X: Any) -> Float64[np.ndarray, " n"]:
        """Log-density of each row, in nats.

        Args:
            X: Rows, shape ``(n, d)``.

        Raises:
            ValueError: If ``X`` has another number of columns than the rows that were kept.
        """
        check_is_fitted(self)
        rows = torch.from_numpy(validate_data(self, X, dtype=np.float64, reset=False))
        found = self.field_.posterior(rows / self.scale_, 1.0).log_density
        density: Float64[np.ndarray, " n"] = found.double().numpy() - rows.shape[1] * np.log(self.scale_)
        return density

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Float64[np.ndarray, "n d"]:
        """Draw rows: a kept row and noise of the bandwidth, which is where the flow ends, without its steps.

        Args:
            n_samples: How many.
            random_state: Seed.

        Raises:
            ValueError: If ``n_samples`` is below 1, or so many do not fit into memory.
        """
        check_is_fitted(self)
        count = require_samples(n_samples, self.n_features_in_)
        random = check_random_state(random_state)
        rows = self.rows_.numpy()[random.randint(len(self.rows_), size=count)]
        drawn: Float64[np.ndarray, "n d"] = rows + self.bandwidth_ * random.normal(size=rows.shape)
        return drawn

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the estimator to one file, a safetensors file with its settings in the header.

        Args:
            file: Where to write; replaced if it exists.

        Raises:
            OSError: If it cannot be written; a file that was there is as it was.
        """
        check_is_fitted(self)
        values = {"bandwidth": self.bandwidth, "used": self.bandwidth_, "names": column_names(self)}
        save_file(file, type(self).__name__, values, {"rows": self.rows_})

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> "ExactDensity":
        """Read an estimator that :meth:`save` wrote.

        Args:
            file: The file.

        Raises:
            ValueError: If there is no such file, it is damaged, or it holds another estimator.
        """
        values, tensors = read_file(file, cls.__name__)
        try:
            found = cls(bandwidth=values["bandwidth"])
            rows, names, used = tensors["rows"], values["names"], float(values["used"])
            found._check()
            if rows.dtype != torch.float64 or rows.ndim != 2 or not rows.numel() or not bool(rows.isfinite().all()):
                raise ValueError("its rows are no table of finite float64 numbers")
            found.n_features_in_ = rows.shape[1]
            set_column_names(found, names)
            found._keep(rows, used)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        return found

    def _keep(self, rows: Float64[torch.Tensor, "n d"], bandwidth: float) -> None:
        if not 0 < bandwidth < math.inf:
            raise ValueError(f"bandwidth must be positive and finite, got {bandwidth}")
        spread = float(rows.std(0, correction=0).square().mean().sqrt())
        scale = max(spread, 2 * bandwidth)
        if not math.isfinite(scale) or not bandwidth > _LEAST * scale:
            raise ValueError(f"bandwidth must be above {_LEAST:g} of the rows' spread, {spread:g}, got {bandwidth:g}")
        self.rows_, self.bandwidth_, self.scale_ = rows, bandwidth, scale
        self.field_ = ExactField(rows / self.scale_, CondOT(bandwidth / self.scale_))

    def _chosen(self, count: int, dim: int) -> float:
        if self.bandwidth == "scott":
            return float(count ** (-1 / (dim + 4)))
        if self.bandwidth == "silverman":
            return float((count * (dim + 2) / 4) ** (-1 / (dim + 4)))
        return float(self.bandwidth)

    def _check(self) -> None:
        known = isinstance(self.bandwidth, Real) and not isinstance(self.bandwidth, bool)
        if self.bandwidth not in RULES and not (known and 0 < float(self.bandwidth) < math.inf):
            raise ValueError(f"bandwidth must be positive and finite, or {' or '.join(RULES)}, got {self.bandwidth!r}")
