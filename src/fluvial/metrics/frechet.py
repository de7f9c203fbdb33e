r"""Fréchet distance between the Gaussians that share mean and covariance with two sets of features.

With :math:`A, B` the centred features divided by :math:`\sqrt{n - 1}`, so that :math:`C_1 = A^\top A` and
:math:`C_2 = B^\top B`, the trace of the root of the product of covariances is a nuclear norm:

.. math:: \operatorname{tr}(C_1 C_2)^{1/2} = \sum_i \sqrt{\lambda_i(C_1 C_2)} = \|A B^\top\|_* .

Singular values keep the accuracy that eigenvalues of a singular :math:`C_1 C_2` lose, and the norm does not
change when a factor is replaced by another one of the same covariance. Where there are more rows than columns that is
:math:`L^\top D`, from the correlations :math:`L L^\top` and the deviations D of the features.

Source: Dowson & Landau 1982, "The Fréchet distance between multivariate normal distributions"; Heusel et al.
2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (FID).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import TILE_BYTES, Samples, as_matrix, as_pair, tiles


@dataclass(frozen=True)
class GaussianStatistics:
    """Mean and covariance of a set of features, the latter as a factor: all that the Fréchet distance needs.

    Args:
        mean: Shape (d,), float64.
        factor: Shape (k, d) with k = min(n, d), float64; ``factor.T @ factor`` is the unbiased covariance.
        count: Number of rows n.

    Example:
        >>> GaussianStatistics.of(torch.tensor([[0.0], [4.0], [8.0]])).mean
        tensor([4.], dtype=torch.float64)
    """

    mean: Float[Tensor, " d"]
    factor: Float[Tensor, "k d"]
    count: int

    @classmethod
    @checked
    def of(cls, x: Samples) -> "GaussianStatistics":
        """Statistics of the rows of ``x``, shape (n, ...) with n >= 2, accumulated in float64.

        Raises:
            ValueError: If ``x`` has fewer than 2 rows or is not finite.

        Example:
            >>> GaussianStatistics.of(torch.zeros(3, 1, 8, 8)).factor.shape
            torch.Size([3, 64])
        """
        rows = as_matrix(x, "x", minimum=2)
        count, features = rows.shape
        mean = rows.new_zeros(features, dtype=torch.float64)
        for tile in tiles(count, features, TILE_BYTES):  # a mean in another dtype would copy all rows into it
            mean += rows[tile].double().sum(0) / count
        if count <= features:
            return cls(mean, (rows.double() - mean) / (count - 1) ** 0.5, count)
        scatter = torch.zeros(features, features, dtype=torch.float64, device=rows.device)
        for tile in tiles(count, features, TILE_BYTES):
            centred = rows[tile].double() - mean
            scatter.addmm_(centred.mT, centred)
        return cls(mean, _factor(scatter / (count - 1)), count)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """Unbiased covariance, shape (d, d)."""
        return self.factor.mT @ self.factor

    @checked
    def distance(self, other: "GaussianStatistics") -> float:
        """Fréchet distance to ``other`` as in :func:`frechet_distance`, for a reference that is used often.

        Raises:
            ValueError: If the numbers of features differ.

        Example:
            >>> one = GaussianStatistics.of(torch.tensor([[-1.0], [1.0]]))
            >>> round(one.distance(GaussianStatistics.of(torch.tensor([[2.0], [4.0]]))), 12)
            9.0
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"other must have {len(self.mean)} features as this one has, got {len(other.mean)} features"
            )
        mean, factor = other.mean.to(self.mean), other.factor.to(self.factor)
        traces = self.factor.square().sum() + factor.square().sum()
        cross = torch.linalg.svdvals(self.factor @ factor.mT).sum()
        distance = (self.mean - mean).square().sum() + traces - 2 * cross
        return max(0.0, float(distance))  # rounding can leave it a few ulp of the traces below zero


def _factor(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """F with ``F.T @ F`` the covariance, for each feature to the precision of its own deviation."""
    deviation = covariance.diagonal().clamp_min(0).sqrt()
    scale = torch.where(deviation > 0, deviation, 1)
    correlation = covariance / scale[:, None] / scale
    correlation.diagonal().fill_(1)
    # several times as fast as eigenvalues; where features depend on one another they take over
    triangle, failed = torch.linalg.cholesky_ex(correlation)
    if int(failed) == 0:
        return triangle.mT * deviation  # type: ignore[no-any-return]
    values, vectors = torch.linalg.eigh(correlation)
    return values.clamp_min(0).sqrt()[:, None] * vectors.mT * deviation  # type: ignore[no-any-return]


@checked
def frechet_distance(a: Samples, b: Samples) -> float:
    r"""Fréchet distance between the Gaussians fitted to two sets of rows, in float64.

    .. math:: |\mu_1 - \mu_2|^2 + \operatorname{tr} C_1 + \operatorname{tr} C_2 - 2 \|A B^\top\|_*

    It is their squared 2-Wasserstein distance, in squared units of the features. As a plug-in estimate it is
    biased upwards in small samples: compare values at equal sample sizes only.

    Args:
        a: Features or samples, shape (n, ...), n >= 2; rows are flattened.
        b: The same for the other set, shape (m, ...), m >= 2.

    Returns:
        A number >= 0; 0 for equal sets, with fewer samples than features too.

    Raises:
        ValueError: If a set has fewer than 2 rows, is not finite, or the numbers of features differ.

    Source:
        Dowson & Landau 1982; Heusel et al. 2017.

    Example:
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> round(fv.metrics.frechet_distance(x, x + 2), 5)
        12.0
    """
    first, second = as_pair(a, b, ("a", "b"), minimum=2)
    return GaussianStatistics.of(first).distance(GaussianStatistics.of(second))
