"""The plug-in at its best: its bandwidth chosen on validation tasks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fluvial.progress import Progress, ProgressCallback
from fluvial.support.evaluation.plug_in import plug_in_mmd2
from fluvial.support.evaluation.targets import plan_targets
from fluvial.support.tasks.base import Family, require_counts

DEFAULT_BANDWIDTHS = tuple(0.01 * 10 ** (k / 6) for k in range(16))
"""Bandwidths among which :func:`tuned_bandwidth` chooses: .01 to about 3.2, six to a decade, in the data's units."""

_BLOCK = 10  # tasks drawn at once


@dataclass(frozen=True)
class TunedBandwidth:
    """The best of a grid of bandwidths for a family's plug-in.

    Args:
        bandwidth: The best one, in the data's units.
        grid: Those that were tried.
        mmd2: Mean squared MMD of each over the validation tasks.
        tasks: How many these were.

    Example:
        >>> TunedBandwidth(0.1, (0.1, 1.0), (0.01, 0.02), 40).bandwidth
        0.1
    """

    bandwidth: float
    grid: tuple[float, ...]
    mmd2: tuple[float, ...]
    tasks: int


def tuned_bandwidth(
    family: Family,
    m: int,
    tasks: int,
    generator: torch.Generator,
    *,
    points: int = 500,
    grid: Sequence[float] | None = None,
    progress: ProgressCallback | None = None,
) -> TunedBandwidth:
    """The bandwidth with which the plug-in comes nearest to fresh targets, on validation tasks of the family.

    The squared MMD is that of the plug-in's distribution itself, :func:`plug_in_mmd2`, so that nothing but tasks and
    targets is random, and all bandwidths see the same ones. The kernel's bandwidth is the median distance of further
    targets of each task.

    Args:
        family: The tasks.
        m: Support points of each.
        tasks: How many validation tasks.
        generator: Where they come from; take another stream than that of the tasks that are evaluated.
        points: Targets of each task, and as many to fix the kernel's bandwidth; fewer where a task has not so many.
        grid: Bandwidths to try, in the data's units; by default .01 to 3.2, six to a decade.
        progress: Called after every ten tasks.

    Returns:
        The best bandwidth and the mean squared MMD of all.

    Raises:
        ValueError: If a number is not positive, ``points`` below 2, or the grid is empty or holds a negative number.

    Example:
        >>> from fluvial.support.evaluation.tuning import tuned_bandwidth
        >>> from fluvial.support.tasks.shells import Shells
        >>> seeded = torch.Generator().manual_seed(0)
        >>> tuned_bandwidth(Shells(2), 20, 4, seeded, points=50, grid=(0.01, 0.3, 9.0)).bandwidth
        0.3
    """
    require_counts(m=m, tasks=tasks)
    tried = DEFAULT_BANDWIDTHS if grid is None else tuple(float(value) for value in grid)
    if not tried or not all(0 <= value < math.inf for value in tried):
        raise ValueError(f"grid must hold bandwidths of at least 0, all finite and at least one, got {tried}")
    plan = plan_targets(family, m, points)
    totals = torch.zeros(len(tried), dtype=torch.float64)
    for start in range(0, tasks, _BLOCK):
        drawn = plan.draw(family, min(_BLOCK, tasks - start), generator)
        values = [plug_in_mmd2(drawn.support, drawn.targets, value, drawn.bandwidth) for value in tried]
        totals += torch.stack([value.sum() for value in values])
        if progress is not None:
            progress(Progress("tune the plug-in", min(start + _BLOCK, tasks), tasks))
    means = (totals / tasks).tolist()
    return TunedBandwidth(tried[means.index(min(means))], tried, tuple(means), tasks)
