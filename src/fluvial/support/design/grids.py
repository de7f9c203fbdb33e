r"""Nodes of time, or the bandwidth of a path, from what is wanted along the way.

**Equal errors.** Euler's step on a straight path, in :math:`y = x/\alpha` from bandwidth ``h`` to ``h'``, is
:math:`y' = m + (h'/h)(y - m)`: exact but for the change of ``m``, so its error is :math:`\tfrac12 (\Delta\tau)^2\,
|dm/d\tau|` with :math:`\tau = -\ln h`. For Gaussian data of standard deviation ``s`` the flow is :math:`y \propto
\sqrt{s^2 + h^2}` and :math:`m = s^2 y / (s^2 + h^2)`, so that :math:`|dm/d\tau| \propto s^2 h^2 / (s^2 + h^2)^{3/2}`,
and the rest of the flow shrinks an error at h by :math:`s / \sqrt{s^2 + h^2}`. The sum of the errors at the end is
least where each step contributes the same: nodes as dense in :math:`\tau` as the root of the product, :math:`h / (s^2 +
h^2)`, which is the derivative of :math:`-\arctan(h/s)`. So K steps have nodes

.. math:: h_k = s \cot\frac{\pi k}{2 K},

the bandwidths of :class:`~fluvial.Cosine` for data in units of their standard deviation.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from fluvial.kinds import checked
from fluvial.nn.attention import carries_tangent
from fluvial.paths import CondOT, FromBandwidth, GaussianPath
from fluvial.support.design.sizes import SizeCurve

_KNOTS = 256  # of a designed bandwidth

_LARGEST_SCALE = 1e100  # of data, far from where their squares or tangents overflow


@checked
def geometric_sizes(m: int, floor: float = 1.1) -> Callable[[float], float]:
    """Effective sample sizes that fall by the same factor in equal steps, from ``m`` to ``floor``.

    Args:
        m: Size of the support.
        floor: Where it ends, above 1, which no positive bandwidth reaches.

    Raises:
        ValueError: Unless ``1 < floor < m``.

    Example:
        >>> from fluvial.support.design import geometric_sizes
        >>> [round(geometric_sizes(16, 4.0)(share), 6) for share in (0.0, 0.5, 1.0)]
        [16.0, 8.0, 4.0]
    """
    if not 1 < floor < m:
        raise ValueError(f"floor must be between 1 and m = {m}, got {floor}")
    return lambda share: m * (floor / m) ** share


@checked
def balanced_sizes(curve: SizeCurve, share: float = 0.85) -> Callable[[float], float]:
    """Effective sample sizes along the way on which Euler's steps weigh the same at the end.

    They are those at :func:`balanced_bandwidths`: few in the first steps, which contract the cloud of noise, and early
    most of the way to 1.

    Args:
        curve: Measured by :func:`effective_sizes` on tasks like those to come.
        share: Scale of the balance over the data's; the default was chosen on validation tasks.

    Raises:
        ValueError: If ``share`` is not positive.

    Example:
        >>> from fluvial.support.design import balanced_sizes, effective_sizes
        >>> curve = effective_sizes(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)), 20, tasks=10)
        >>> wanted = balanced_sizes(curve)
        >>> 20 > wanted(0.1) > wanted(0.5) > wanted(0.9) > 1
        True
    """
    _check_scale(share, "share")
    scale = share * curve.scale
    return lambda part: float(curve.size_at([scale / math.tan(0.5 * math.pi * part)])[0])


@checked
def bandwidth_grid(bandwidths: Sequence[float] | np.ndarray, path: GaussianPath | None = None) -> list[float]:
    """Times at which a path has the given bandwidths, between 0 and 1: nodes for ``fv.solve(grid=...)``.

    It carries a grid from one path to another: ``bandwidth_grid(other.bandwidth(nodes), path)``.

    Args:
        bandwidths: Of the nodes between the ends, strictly decreasing, positive.
        path: The path of the field; ``CondOT(sigma_min=0.01)`` if absent.

    Returns:
        0, the times, 1.

    Raises:
        ValueError: If they are not strictly decreasing, or the path does not reach one of them inside (0, 1).

    Example:
        >>> from fluvial.support.design import bandwidth_grid
        >>> bandwidth_grid([3.0, 1.0], fv.CondOT())
        [0.0, 0.25, 0.5, 1.0]
    """
    path = CondOT(sigma_min=0.01) if path is None else path
    h = torch.as_tensor(np.asarray(bandwidths, dtype=np.float64))
    if h.ndim != 1 or not bool(((h > 0) & torch.isfinite(h)).all()) or not bool((h.diff() < 0).all()):
        raise ValueError(f"bandwidths must be positive, finite and strictly decreasing, got {h.tolist()}")
    ends = [float(path.bandwidth(torch.tensor(t, dtype=torch.float64))) for t in (0.0, 1.0)]
    if len(h) and not ends[1] < float(h[-1]) <= float(h[0]) < ends[0]:
        raise ValueError(
            f"bandwidths must be within those of the path, from {ends[0]:g} to {ends[1]:g}, got {float(h[0]):g} to "
            f"{float(h[-1]):g}"
        )
    return [0.0, *path.time_at_bandwidth(h).tolist(), 1.0]


@checked
def balanced_bandwidths(scale: float, steps: int) -> list[float]:
    """Bandwidths between ``steps`` steps whose errors weigh the same at the end, for data of standard deviation
    ``scale``.

    Args:
        scale: In one coordinate, in data units; ``SizeCurve.scale``.
        steps: Steps of the solver.

    Returns:
        ``steps - 1`` bandwidths, decreasing.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from fluvial.support.design import balanced_bandwidths
        >>> [round(h, 3) for h in balanced_bandwidths(2.0, 4)]
        [4.828, 2.0, 0.828]
    """
    _check_steps(steps)
    _check_scale(scale)
    return [scale / math.tan(0.5 * math.pi * k / steps) for k in range(1, steps)]


@checked
def even_bandwidths(scale: float, steps: int, first: float = 6.0, last: float = 0.06) -> list[float]:
    """Bandwidths between ``steps`` steps that are equal in the logarithm, for methods that look at the end of a step.

    Heun's method evaluates the field at the path's own last bandwidth, where a mean that still moves is divided by a
    small sigma: its last step must begin at a small bandwidth.

    Args:
        scale: Standard deviation of the data in one coordinate; ``SizeCurve.scale``.
        steps: Steps of the solver.
        first: First bandwidth, in units of ``scale``.
        last: Last one between the ends; the only one is the geometric mean of both.

    Returns:
        ``steps - 1`` bandwidths, decreasing.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from fluvial.support.design import even_bandwidths
        >>> [round(h, 3) for h in even_bandwidths(1.0, 4, first=4.0, last=0.25)]
        [4.0, 1.0, 0.25]
    """
    _check_steps(steps)
    _check_scale(scale)
    if not 0 < last < first < math.inf:
        raise ValueError(f"first and last must satisfy 0 < last < first, got {first} and {last}")
    if steps == 2:
        return [scale * math.sqrt(first * last)]
    return [scale * first * (last / first) ** (k / (steps - 2)) for k in range(steps - 1)]


@checked
def design_grid(
    curve: SizeCurve, sizes: Callable[[float], float], steps: int, path: GaussianPath | None = None
) -> list[float]:
    """Nodes of time at which the held-out effective sample size is what is wanted.

    Args:
        curve: Measured by :func:`effective_sizes` on tasks like those to come.
        sizes: The size wanted after a share of the steps, decreasing on (0, 1); :func:`geometric_sizes` is one.
        steps: Steps of the solver; node k has the size ``sizes(k / steps)``, the ends are the path's own.
        path: The path of the field; ``CondOT(sigma_min=0.01)`` if absent.

    Returns:
        ``steps + 1`` times from 0 to 1.

    Raises:
        ValueError: If ``sizes`` does not decrease, or leaves what was measured.

    Example:
        >>> from fluvial.support.design import design_grid, effective_sizes, geometric_sizes
        >>> curve = effective_sizes(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)), 20, tasks=10)
        >>> grid = design_grid(curve, geometric_sizes(20), 5)
        >>> len(grid), grid[0], grid[-1]
        (6, 0.0, 1.0)
    """
    _check_steps(steps)
    return bandwidth_grid(curve.bandwidth_at(_wanted(sizes, [k / steps for k in range(1, steps)])), path)


@checked
def design_bandwidth(curve: SizeCurve, sizes: Callable[[float], float]) -> FromBandwidth:
    r"""A path along which the held-out effective sample size is ``sizes(t)``.

    The bandwidth is a monotone cubic interpolation of log h against log t, with a continuous derivative: it begins at
    infinity as c/t and ends at the bandwidth of ``sizes(1)``. It is evaluated on the CPU, and cannot be differentiated.

    Args:
        curve: Measured by :func:`effective_sizes` on tasks like those to come.
        sizes: The size wanted at a time, decreasing on (0, 1].

    Raises:
        ValueError: If ``sizes`` does not decrease, or leaves what was measured.

    Example:
        >>> from fluvial.support.design import design_bandwidth, effective_sizes, geometric_sizes
        >>> curve = effective_sizes(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)), 20, tasks=10)
        >>> path = design_bandwidth(curve, geometric_sizes(20))
        >>> float(path.alpha(torch.tensor(0.0)))
        0.0
    """
    t = np.arange(1, _KNOTS + 1) / _KNOTS
    h = curve.bandwidth_at(_wanted(sizes, t.tolist()))
    if not (np.diff(h) < 0).all():
        raise ValueError("sizes must decrease fast enough to tell 256 times apart by their bandwidths")
    # Two knots in front, on the course c/t that is followed from there back to t = 0.
    before = np.array([2.0, 1.0])
    log_t = np.concatenate([np.log(t[0]) - before, np.log(t)])
    log_h = np.concatenate([np.log(h[0]) + before, np.log(h)])
    spline = PchipInterpolator(log_t, log_h)
    slope = spline.derivative()

    def bandwidth(times: Tensor) -> Tensor:
        if times.requires_grad or carries_tangent(times):
            raise ValueError("a designed path has no derivatives in t beyond its rates: detach the times")
        x = times.detach().cpu().log().numpy()
        early = np.minimum(x - log_t[0], 0.0)
        return torch.as_tensor(np.exp(spline(np.maximum(x, log_t[0])) - early)).to(times)

    def rate(times: Tensor) -> Tensor:
        x = times.detach().cpu().log().numpy()
        return bandwidth(times) * torch.as_tensor(slope(np.maximum(x, log_t[0]))).to(times) / times

    return FromBandwidth(bandwidth, rate)


def _wanted(sizes: Callable[[float], float], shares: Sequence[float]) -> Float[np.ndarray, " k"]:
    sought = [sizes(share) for share in shares]
    if not all(isinstance(size, int | float | np.number) for size in sought):
        raise TypeError(f"sizes must return numbers, got {type(sought[0]).__name__}")
    found = np.array(sought, dtype=float)
    if not np.isfinite(found).all() or not (np.diff(found) < 0).all():
        first = ", ".join(f"{size:.4g}" for size in found[:4])
        raise ValueError(f"sizes must be a finite, strictly decreasing function of the share, got {first}, ...")
    return found


def _check_steps(steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, got {steps!r}")


def _check_scale(scale: float, name: str = "scale") -> None:
    if not 0 < scale < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {scale:g}")
    if scale > _LARGEST_SCALE:
        raise ValueError(f"{name} must be at most {_LARGEST_SCALE:g}, got {scale:g}")
