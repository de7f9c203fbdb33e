"""What the components of a Gaussian mixture are made of, checked: means, weights, and covariances in any form."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_tensor

FLOATS = (torch.float32, torch.float64)


def spectra(covariances: Any, means: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues ``(K, d)`` and eigenvectors ``(K, d, d)`` (columns) of covariances; None for the coordinates' own.

    Eigenvalues of full covariances that are 0 up to the rounding of the type they are given in are 0.

    Args:
        covariances: Shape ``(K, d, d)``, ``(K, d)`` for diagonals, ``(K,)`` or a number for multiples of the identity.
        means: Shape ``(K, d)``, float64: says what K and d are.

    Raises:
        TypeError: If the covariances are neither a tensor nor a number.
        ValueError: If their shape does not fit, or they are not finite, symmetric and positive semidefinite.

    Example:
        >>> values, vectors = spectra(torch.tensor([[[2.0, 2.0], [2.0, 2.0]]]), torch.zeros(1, 2).double())
        >>> values
        tensor([[0., 4.]], dtype=torch.float64)
    """
    if isinstance(covariances, int | float):
        covariances = torch.tensor(float(covariances), dtype=torch.float64)
    if not isinstance(covariances, Tensor):
        raise TypeError(f"covariances must be a tensor or a number, got {type(covariances).__name__}")
    count, dim = means.shape
    shapes = [(), (count,), (count, dim), (count, dim, dim)]
    if tuple(covariances.shape) not in shapes:
        wanted = f"({count}, {dim}, {dim}), ({count}, {dim}) or ({count},) like the means, or be a number"
        raise ValueError(f"covariances must have shape {wanted}, got {tuple(covariances.shape)}")
    given = covariances.detach().to(means, copy=True)
    if not bool(torch.isfinite(given).all()):
        raise ValueError(f"covariances must be finite, got NaN or infinity in {int((~given.isfinite()).sum())} places")
    if given.ndim < 3:
        if bool((given < 0).any()):
            raise ValueError(f"covariances must not be negative, got {float(given.min()):g}")
        return (given[:, None] if given.ndim == 1 else given).expand(count, dim), None
    roundoff = torch.finfo(covariances.dtype if covariances.is_floating_point() else torch.float64).eps
    tolerance = 4 * dim * roundoff * given.abs().amax((1, 2))
    skew = (given - given.mT).abs().amax((1, 2))
    if bool((skew > tolerance).any()):
        raise ValueError(f"covariances must be symmetric, got one that is off by {float(skew.max()):.3g}")
    values, vectors = torch.linalg.eigh(given)
    if bool((values < -tolerance[:, None]).any()):
        raise ValueError(f"covariances must be positive semidefinite, got an eigenvalue of {float(values.min()):.4g}")
    return values.masked_fill(values <= tolerance[:, None], 0.0), vectors


def check_means(means: Any) -> None:
    """Refuse means that are none.

    Raises:
        TypeError: If they are no tensor.
        ValueError: If they are not floating, not ``(K, *D)``, or not finite.
    """
    require_tensor("means", means)
    if means.dtype not in FLOATS:
        raise ValueError(f"means must be float32 or float64, got {means.dtype}")
    if means.ndim < 2 or 0 in means.shape:
        raise ValueError(f"means must have shape (K, *D) with at least one component, got {tuple(means.shape)}")
    if not bool(torch.isfinite(means).all()):
        raise ValueError(f"means must be finite, got NaN or infinity in {int((~means.isfinite()).sum())} places")


def checked_weights(weights: Any, means: Tensor) -> Float[Tensor, "K"]:
    """Weights that sum to 1, float64; equal if absent.

    Raises:
        TypeError: If they are no tensor.
        ValueError: If there are more or fewer than means, one is negative or not finite, or all are 0.

    Example:
        >>> checked_weights(torch.tensor([1, 3]), torch.zeros(2, 5))
        tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    weights = torch.ones(len(means)) if weights is None else weights
    require_tensor("weights", weights)
    if tuple(weights.shape) != (len(means),):
        raise ValueError(f"weights must have shape ({len(means)},) like the means, got {tuple(weights.shape)}")
    exact = weights.detach().to(means.device).double()
    if not bool((torch.isfinite(exact) & (exact >= 0)).all()) or float(exact.sum()) == 0:
        raise ValueError(f"weights must be finite, not negative and not all 0, got {weights.tolist()}")
    share: Tensor = exact / exact.sum()
    return share
