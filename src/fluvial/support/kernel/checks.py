"""Checks of what a kernel attention head is made of and asked, each with one clear line."""

from typing import Any

import torch
from torch import Tensor

from fluvial.checks import require_beside, require_tensor
from fluvial.conditions import Tokens
from fluvial.paths import GaussianPath
from fluvial.support.kernel.logits import Block


def checked_heads(dim: int | None, heads: int, metric: Any, factor: Any, rank: int | None) -> tuple[int | None, int]:
    """Dimension of the points, None where any will do, and rank of a learned projection.

    Raises:
        TypeError: If the metric or its factor is no tensor.
        ValueError: If options contradict each other.

    Example:
        >>> checked_heads(4, 1, "learned", None, None)
        (4, 4)
    """
    if heads < 1:
        raise ValueError(f"heads must be at least 1, got {heads}")
    if dim is not None and dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if isinstance(metric, str) and metric != "learned":
        raise ValueError(f"metric must be a tensor (d, d) or 'learned', got {metric!r}")
    fixed = [(name, value) for name, value in (("metric", metric), ("factor", factor)) if value is not None]
    if len(fixed) > 1:
        raise ValueError("metric and factor say the same: pass one of them")
    if heads > 1 and fixed and metric != "learned":
        raise ValueError(
            f"{fixed[0][0]} fixes the metric of one head, and heads = {heads} are learned: pass one of them"
        )
    if heads > 1 or isinstance(metric, str):
        if dim is None:
            raise ValueError("dim is needed for what is learned: pass dim=, the dimension of the points")
        if rank is not None and not 1 <= rank <= dim:
            raise ValueError(f"rank must be from 1 to dim = {dim}, got {rank}")
        return dim, dim if rank is None else rank
    if rank is not None:
        raise ValueError("rank is of learned projections: pass metric='learned' or heads above 1")
    for name, value in fixed:
        require_tensor(name, value)
        if value.ndim != 2 or dim not in (None, len(value)):
            wanted = "d" if dim is None else dim
            raise ValueError(f"{name} must be a matrix of {wanted} rows, got shape {tuple(value.shape)}")
        dim = len(value)
    return dim, 0 if dim is None else dim


def checked_factor(metric: Tensor | None, factor: Tensor | None) -> Tensor | None:
    """``L`` of ``M = L L^T``, of the type of what is given; None for the identity.

    Raises:
        ValueError: If the metric is not finite, symmetric and positive semidefinite, or the factor not finite.

    Example:
        >>> checked_factor(torch.diag(torch.tensor([4.0, 1.0])), None).abs().sum(0)
        tensor([1., 2.])
    """
    for name, value in (("metric", metric), ("factor", factor)):
        if value is not None and not (value.is_floating_point() and bool(torch.isfinite(value).all())):
            raise ValueError(f"{name} must be floating and finite, got {value.dtype}, or a value that is not finite")
    if metric is None:
        return None if factor is None else factor.detach().clone()
    exact = metric.detach().double()
    if exact.shape[0] != exact.shape[1] or not torch.allclose(
        exact, exact.T, rtol=1e-5, atol=1e-6 * float(exact.abs().max())
    ):
        raise ValueError(
            f"metric must be symmetric, shape (d, d), got shape {tuple(metric.shape)}; pass a factor L as factor="
        )
    values, vectors = torch.linalg.eigh(exact)
    if float(values[0]) < -1e-5 * float(values[-1].abs()):
        raise ValueError(f"metric must be positive semidefinite, got an eigenvalue of {float(values[0]):.4g}")
    root: Tensor = vectors * values.clamp_min(0.0).sqrt()
    return root.to(metric.dtype)


def checked_block(
    x: Any, t: Any, support: Any, mask: Any, dim: int | None, path: GaussianPath, *, needs_noise: bool
) -> Block:
    """What a head is asked, as one block.

    Args:
        x: Points.
        t: Times.
        support: Examples, or tokens of them.
        mask: Which of them are there.
        dim: Dimension that the head asks for; None for any.
        path: The head's path.
        needs_noise: Whether sigma may not be 0.

    Raises:
        TypeError: If an argument is no tensor.
        ValueError: If shapes or types do not fit, or a value is not what it may be.
    """
    if isinstance(support, Tokens):
        if mask is not None:
            raise ValueError("mask must be absent where support is Tokens, which have their own")
        support, mask = support.value, support.mask
    _check_points(x, support, dim)
    times = _times(t, x)
    if mask is not None:
        require_tensor("mask", mask)
        require_beside("mask", mask, "x", x)
        if mask.dtype != torch.bool or mask.shape != support.shape[:2]:
            given = f"{mask.dtype} of shape {tuple(mask.shape)}"
            raise ValueError(f"mask must be torch.bool of shape {tuple(support.shape[:2])}, got {given}")
        support = support.masked_fill(~mask[:, :, None], 0.0)
    _check_values(times, support, mask, path, needs_noise)
    narrow = x.dtype not in (torch.float32, torch.float64)
    return Block(x.float() if narrow else x, times, support, mask)


def _check_points(x: Any, support: Any, dim: int | None) -> None:
    for name, value, letter in (("x", x, "n"), ("support", support, "m")):
        require_tensor(name, value)
        if value.ndim != 3 or 0 in value.shape[1:]:
            raise ValueError(f"{name} must have shape (B, {letter}, d) with {letter} >= 1, got {tuple(value.shape)}")
        if not value.is_floating_point():
            raise ValueError(f"{name} must be floating, got {value.dtype}")
    require_beside("support", support, "x", x)
    if dim is not None and x.shape[2] != dim:
        raise ValueError(f"x must have {dim} coordinates as the head has, got shape {tuple(x.shape)}")
    if support.shape[2] != x.shape[2]:
        raise ValueError(f"support must have {x.shape[2]} coordinates like x, got shape {tuple(support.shape)}")
    if len(support) != len(x):
        raise ValueError(f"support must have {len(x)} tasks like x, got shape {tuple(support.shape)}")


def _times(t: Any, x: Tensor) -> Tensor:
    """Times of all points, float64 ``(B, n)``."""
    if isinstance(t, int | float):
        # Rounded as a tensor of x's type would be, so that both mean the same time.
        kind = x.dtype if x.dtype == torch.float64 else torch.float32
        t = torch.tensor(float(t), dtype=kind, device=x.device)
    require_tensor("t", t)
    if not t.is_floating_point():
        raise ValueError(f"t must be floating, got {t.dtype}")
    require_beside("t", t, "x", x)
    if t.shape not in ((), x.shape[:1], x.shape[:2]):
        tasks, rows = x.shape[:2]
        raise ValueError(f"t must be a scalar or have shape ({tasks},) or ({tasks}, {rows}), got {tuple(t.shape)}")
    times: Tensor = (t[:, None] if t.ndim == 1 else t).double()
    return times.expand(x.shape[:2])


def _check_values(t: Tensor, support: Tensor, mask: Tensor | None, path: GaussianPath, needs_noise: bool) -> None:
    """All that must be read from the device, at once."""
    seen = t.detach()
    outside = ~((seen >= 0) & (seen <= 1)).all()
    ended = (path.sigma(seen) == 0).any() & needs_noise
    wild = ~torch.isfinite(support.detach()).all()
    empty = torch.zeros_like(wild) if mask is None else ~mask.any(1).all()
    is_outside, is_ended, is_wild, is_empty = torch.stack([outside, ended, wild, empty]).tolist()
    if is_outside:
        raise ValueError(f"t must be in [0, 1], got values from {float(seen.min()):g} to {float(seen.max()):g}")
    if is_wild:
        bad = int((~torch.isfinite(support).all(2)).sum())
        raise ValueError(f"support must be finite, got NaN or infinity in {bad} of {support[..., 0].numel()} points")
    if is_empty and mask is not None:
        raise ValueError(f"mask must leave each task an example, got none in task {int((~mask.any(1)).nonzero()[0])}")
    if is_ended:
        raise ValueError("the velocity has no value at t = 1, where sigma = 0: evaluate before, or take posterior_mean")
