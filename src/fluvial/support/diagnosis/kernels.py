r"""The kernels that a diagnosis compares: isotropic, Mahalanobis and local ones, each at its own best bandwidth.

A kernel puts :math:`N(s_i, b^2 C_i)` on each support point. The isotropic one has :math:`C_i = (\mathrm{tr} S / d) I`,
with ``S`` the support's covariance; the Mahalanobis one has one matrix for all points, shrunk towards the isotropic;
the local one has a matrix for each point, from its nearest neighbours. Traces are equal (for the local one, on
average), so that a mere change of scale is no difference, and ``b`` is in units of the support's spread.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SHRINKAGE = (0.02, 0.1, 0.3, 0.6)
"""Shares of the isotropic matrix that are tried in a Mahalanobis metric."""
LOCAL_SHRINKAGE = (0.1, 0.5, 1.0)
"""The same in a local metric; 1 leaves a bandwidth for each point."""
NEIGHBOURS = (5, 10, 20)
"""Numbers of neighbours that are tried in a local metric."""
_FLOOR = 1e-3  # least trace of a local matrix over the mean one: equal points have none
_TILE = 2**21  # numbers in one temporary


@dataclass(frozen=True)
class Kernel:
    """Covariances of the kernels on the support points of one task, at bandwidth 1.

    Args:
        label: What it is, in a few words.
        variances: Eigenvalues of the covariance, shape ``(d,)`` for all points or ``(m, d)``, positive.
        basis: Its eigenvectors, as columns, shape ``(d, d)`` or ``(m, d, d)``.
    """

    label: str
    variances: Float[Tensor, "*m d"]
    basis: Float[Tensor, "*m d d"]

    @property
    def is_local(self) -> bool:
        return self.variances.ndim == 2


def isotropic(support: Float[Tensor, "m d"]) -> Kernel:
    """The kernel whose covariance is a multiple of the identity."""
    dim = support.shape[1]
    level = _covariance(support).trace() / dim
    return Kernel("isotropic", level.expand(dim), torch.eye(dim, dtype=support.dtype))


def mahalanobis(support: Float[Tensor, "m d"], shrinkage: float) -> Kernel:
    """The kernel with the support's covariance, shrunk towards the isotropic one.

    Args:
        support: Support points, float64.
        shrinkage: Share of the isotropic matrix, in (0, 1].

    Example:
        >>> x = torch.randn(9, 2, dtype=torch.float64) * torch.tensor([5.0, 1.0])
        >>> bool(torch.isclose(isotropic(x).variances.sum(), mahalanobis(x, 0.1).variances.sum()))
        True
    """
    return _kernel(f"Mahalanobis, shrinkage {shrinkage:g}", _covariance(support), shrinkage)


def local(support: Float[Tensor, "m d"], neighbours: int, shrinkage: float) -> Kernel:
    """The kernel with, on each point, the second moments of the way to its nearest neighbours.

    Args:
        support: Support points, float64.
        neighbours: How many neighbours, below ``m``.
        shrinkage: Share of the isotropic matrix, in (0, 1]; 1 leaves a bandwidth for each point.
    """
    order = torch.cdist(support, support).fill_diagonal_(torch.inf).argsort(1)[:, :neighbours]
    ways = support[order] - support[:, None]
    moments = ways.mT @ ways / neighbours
    trace = moments.diagonal(dim1=1, dim2=2).sum(1)
    missing = (_FLOOR * trace.mean() - trace).clamp_min(0) / support.shape[1]
    moments = moments + missing[:, None, None] * torch.eye(support.shape[1], dtype=support.dtype)
    mean = moments.diagonal(dim1=1, dim2=2).sum(1).mean()
    moments = moments * (_covariance(support).trace() / mean)
    return _kernel(f"local, {neighbours} neighbours, shrinkage {shrinkage:g}", moments, shrinkage)


def mahalanobis_kernels(support: Float[Tensor, "m d"]) -> list[Kernel]:
    """The Mahalanobis kernels that are tried, the isotropic one among them."""
    one = isotropic(support)
    return [one] if support.shape[1] == 1 else [one, *(mahalanobis(support, share) for share in SHRINKAGE)]


def local_kernels(support: Float[Tensor, "m d"]) -> list[Kernel]:
    """The local kernels that are tried, the isotropic one among them."""
    numbers = [k for k in NEIGHBOURS if k < len(support)] or [len(support) - 1]
    shares = (1.0,) if support.shape[1] == 1 else LOCAL_SHRINKAGE
    return [isotropic(support), *(local(support, k, share) for k in numbers for share in shares)]


def log_kernels(
    kernel: Kernel, x: Float[Tensor, "n d"], support: Float[Tensor, "m d"], bandwidth: float = 1.0, noise: float = 0.0
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "#m"]]:
    r"""Exponents of :math:`N(x; s_i, b^2 C_i + h^2 I)`: squared distances in its metric, and half its log-determinant.

    Args:
        kernel: The kernels.
        x: Points.
        support: Support points.
        bandwidth: ``b``.
        noise: ``h``.
    """
    variances = bandwidth**2 * kernel.variances + noise**2
    half = 0.5 * variances.log().sum(-1).reshape(-1)
    if not kernel.is_local:
        a, b = (y @ kernel.basis / variances.sqrt() for y in (x, support))
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_(), half
    parts = [
        ((ways @ basis).square_() / spread[:, None]).sum(2).mT
        for ways, basis, spread, _ in _ways(kernel, variances, x, support)
    ]
    return torch.cat(parts, 1), half


def posterior_mean(
    kernel: Kernel, x: Float[Tensor, "n d"], support: Float[Tensor, "m d"], bandwidth: float, noise: float
) -> Float[Tensor, "n d"]:
    r"""Mean of the datum given ``x = datum + noise z``, for data of the kernel density estimate.

    Each kernel's own posterior mean is :math:`s_i + b^2 C_i (b^2 C_i + h^2 I)^{-1} (x - s_i)`; they are weighted by
    :math:`N(x; s_i, b^2 C_i + h^2 I)`.

    Example:
        >>> at, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        >>> posterior_mean(Kernel("standard", one[0], one), 4 * one, at, 1.0, 1.0)
        tensor([[2.]], dtype=torch.float64)
    """
    squares, half = log_kernels(kernel, x, support, bandwidth, noise)
    weights = torch.softmax(-0.5 * squares - half, 1)
    variances = bandwidth**2 * kernel.variances
    kept = variances / (variances + noise**2)
    if not kernel.is_local:
        mean = weights @ support
        return mean + ((x - mean) @ kernel.basis * kept) @ kernel.basis.mT
    moved, first = torch.zeros_like(x), 0
    for ways, basis, share, points in _ways(kernel, kept, x, support):
        ends = points[:, None] + ((ways @ basis) * share[:, None]) @ basis.mT
        moved += torch.einsum("nm,mnd->nd", weights[:, first : first + len(points)], ends)
        first += len(points)
    return moved


def _ways(
    kernel: Kernel, values: Float[Tensor, "m d"], x: Float[Tensor, "n d"], support: Float[Tensor, "m d"]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """In tiles of support points: differences to ``x`` ``(tile, n, d)``, bases, values along them, and the points."""
    size = max(1, _TILE // max(1, x.numel()))
    tiles = (kernel.basis.split(size), values.split(size), support.split(size))
    for basis, some, points in zip(*tiles, strict=True):
        yield x[None] - points[:, None], basis, some, points


def _covariance(points: Float[Tensor, "m d"]) -> Float[Tensor, "d d"]:
    centred = points - points.mean(0)
    return centred.mT @ centred / len(points)


def _kernel(label: str, matrix: Float[Tensor, "*m d d"], share: float) -> Kernel:
    """The matrix mixed with the multiple of the identity that has the same trace."""
    values, basis = torch.linalg.eigh(matrix)
    return Kernel(label, (1 - share) * values.clamp_min(0) + share * values.mean(-1, keepdim=True), basis)
