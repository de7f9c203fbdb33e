r"""Effective sample size against bandwidth, measured on points that are not in the support.

At bandwidth ``h`` the exact field of a support of ``m`` points averages over them with weights :math:`w_i(y)`; the
effective sample size :math:`1 / \sum_i w_i^2` says over how many, from m (at infinite bandwidth) down to 1. It is taken
at :math:`y = x_1 + h z` with fresh points :math:`x_1` of the task, where a sample that is new would be: at points of
the support itself the own datum would hide the collapse.

Source: Kish 1965, "Survey Sampling", section 11.7 (the effective sample size); Matsui Smola 2026, "Support-Conditioned
Flow Matching Is Kernel Smoothing", section 5 (collapse on the nearest neighbour).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.kinds import checked
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.support.kernel.weighing import weights
from fluvial.support.tasks.base import Family, require_counts

_REACH = 100.0  # largest bandwidth that is looked at, in units of the data's scale
_SMALLEST = 1e-3  # smallest one
_BANDWIDTHS = 80
_CLOSE = 1e-9  # log-odds nearer than this are one value


@dataclass(frozen=True)
class SizeCurve:
    """Held-out effective sample size as a function of bandwidth, averaged over tasks.

    Args:
        bandwidths: Decreasing, in data units, shape ``(K,)``, float64.
        sizes: Mean effective sample sizes, shape ``(K,)``, between 1 and m.
        errors: Standard errors of these means over tasks, shape ``(K,)``.
        m: Size of the supports.
        scale: Standard deviation of the data of a task in one coordinate, root mean square over coordinates and tasks.
    """

    bandwidths: Float[Tensor, " K"]
    sizes: Float[Tensor, " K"]
    errors: Float[Tensor, " K"]
    m: int
    scale: float

    def bandwidth_at(self, sizes: Sequence[float] | np.ndarray) -> Float[np.ndarray, " k"]:
        """Bandwidths at which the effective sample size is what is wanted.

        The curve is inverted by a monotone cubic interpolation of the logarithm of the bandwidth against the log-odds
        of the size between 1 and m, in which both ends are nearly straight.

        Args:
            sizes: Wanted sizes, each within what was measured.

        Raises:
            ValueError: If one is outside of it.

        Example:
            >>> from fluvial.support.design import SizeCurve
            >>> h = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
            >>> curve = SizeCurve(h, torch.tensor([9.0, 5.0, 2.0], dtype=torch.float64), 0 * h, 10, 1.0)
            >>> curve.bandwidth_at([5.0])
            array([2.])
        """
        wanted = np.atleast_1d(np.asarray(sizes, dtype=np.float64))
        odds, bandwidths = self._knots()
        low, high = self._size(odds[0]), self._size(odds[-1])
        bad = wanted[~((wanted >= low * (1 - 1e-9)) & (wanted <= high * (1 + 1e-9)))]
        if len(bad):
            raise ValueError(
                f"sizes must lie between {low:.6g} and {high:.6g}, those measured at bandwidths from "
                f"{np.exp(bandwidths[0]):.3g} to {np.exp(bandwidths[-1]):.3g}, got {bad[0]:.6g}"
            )
        found = PchipInterpolator(odds, bandwidths)(self._odds(wanted).clip(odds[0], odds[-1]))
        return np.exp(np.asarray(found, dtype=np.float64))

    def size_at(self, bandwidths: Sequence[float] | np.ndarray) -> Float[np.ndarray, " k"]:
        """Effective sample sizes at bandwidths, those outside of what was measured taken to its ends."""
        odds, knots = self._knots()
        h = np.log(np.atleast_1d(np.asarray(bandwidths, dtype=np.float64))).clip(knots[0], knots[-1])
        return np.asarray(self._size(np.asarray(PchipInterpolator(knots, odds)(h))), dtype=np.float64)

    def _odds(self, sizes: np.ndarray) -> np.ndarray:
        tiny = np.finfo(np.float64).eps
        share = ((sizes - 1) / (self.m - 1)).clip(tiny, 1 - tiny)
        return np.asarray(np.log(share) - np.log1p(-share))

    def _size(self, odds: np.ndarray | float) -> np.ndarray:
        return np.asarray(1 + (self.m - 1) / (1 + np.exp(-np.asarray(odds))))

    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds and log-bandwidths, both strictly increasing; noise that breaks the order is smoothed away."""
        bandwidths = self.bandwidths.flip(0).log().numpy()
        odds = np.maximum.accumulate(self._odds(self.sizes.flip(0).numpy()))
        kept = np.concatenate([[True], np.diff(odds) > _CLOSE])
        return odds[kept], bandwidths[kept]


@checked
def effective_sizes(
    source: Family | Tensor,
    m: int = 50,
    bandwidths: Sequence[float] | Tensor | None = None,
    *,
    tasks: int = 1000,
    queries: int = 20,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> SizeCurve:
    r"""Held-out effective sample size of supports of ``m`` points, at each bandwidth.

    Args:
        source: A family of tasks, or points ``(N, d)`` of one distribution, of which random supports and other points
            as queries are drawn for each task.
        m: Size of the supports, at least 2.
        bandwidths: Positive, in data units, in any order; by default 80 from a thousandth to a hundred times the scale
            of the data, evenly in the logarithm.
        tasks: How many tasks to average over, at least 2: they differ more from one another than their points do.
        queries: Held-out points of each task.
        seed: Seed of tasks and noise.
        progress: Called after each bandwidth.

    Returns:
        The curve, float64.

    Raises:
        TypeError: If ``source`` is neither.
        ValueError: If a number is out of range, or there are not enough points.

    Source:
        Kish 1965, section 11.7.

    Example:
        >>> from fluvial.support.design import effective_sizes
        >>> points = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> curve = effective_sizes(points, 20, [100.0, 0.5, 1e-3], tasks=10)
        >>> [round(size, 1) for size in curve.sizes.tolist()][::2]
        [20.0, 1.0]
    """
    require_counts(queries=queries)
    for name, value in (("m", m), ("tasks", tasks)):
        if value < 2:
            raise ValueError(f"{name} must be at least 2, got {value}")
    support, points = _draw(source, m, tasks, queries, seed)
    scale = float(torch.cat([support, points], 1).var(1).mean().sqrt())
    if not scale > 0:
        raise ValueError("source must hold different points, got copies of one")
    h = _checked_bandwidths(bandwidths, scale)
    noise = torch.randn(points.shape, generator=generator(seed, 1), dtype=torch.float64)
    means, errors = [], []
    for number, width in enumerate(h.tolist(), start=1):
        found = weights(points + width * noise, support, width).square().sum(-1).reciprocal().mean(1)
        means.append(found.mean())
        errors.append(found.std() / tasks**0.5)
        if progress is not None:
            progress(Progress("effective sizes", number, len(h)))
    return SizeCurve(h, torch.stack(means), torch.stack(errors), m, scale)


def _draw(source: Family | Tensor, m: int, tasks: int, queries: int, seed: int) -> tuple[Tensor, Tensor]:
    """Supports ``(B, m, d)`` and queries ``(B, n, d)``, float64."""
    if not isinstance(source, Tensor):
        if not isinstance(source, Family):
            raise TypeError(f"source must be a family of tasks or a tensor of points, got {type(source).__name__}")
        found = source.batch(tasks, m, queries, generator(seed))
        return found.support.double(), found.targets.double()
    require_tensor("source", source)
    if source.ndim != 2 or not source.is_floating_point() or not bool(torch.isfinite(source).all()):
        raise ValueError(f"source must be finite floating points (N, d), got {source.dtype} {tuple(source.shape)}")
    if len(source) <= m:
        raise ValueError(f"source must have more than m = {m} points, so that some are held out, got {len(source)}")
    rows = torch.stack([torch.randperm(len(source), generator=generator(seed, 0, task)) for task in range(tasks)])
    points = source.double().cpu()[rows[:, : m + queries]]
    return points[:, :m], points[:, m:]


def _checked_bandwidths(bandwidths: Sequence[float] | Tensor | None, scale: float) -> Tensor:
    if bandwidths is None:
        steps = torch.linspace(np.log(_REACH), np.log(_SMALLEST), _BANDWIDTHS, dtype=torch.float64)
        return scale * steps.exp()
    h = torch.as_tensor(bandwidths, dtype=torch.float64).detach().cpu()
    if h.ndim != 1 or len(h) < 2 or not bool(((h > 0) & torch.isfinite(h)).all()) or len(h.unique()) < len(h):
        raise ValueError(f"bandwidths must be at least two different positive numbers, got {h.tolist()}")
    return h.sort(descending=True).values
