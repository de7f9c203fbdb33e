r"""Bandwidth by design: the schedule as a grid of time, chosen from data.

With :math:`y = x/\alpha` and :math:`\tau = -\ln h` every Gaussian path obeys :math:`dy/d\tau = m - y`, so all schedules
share one exact flow and a solver differs by the bandwidths at which it looks at the field alone. ``sizes`` measures, on
held-out points, among how many examples the field averages at each bandwidth; ``grids`` places the nodes of a solver,
or the bandwidth of a path, by a wanted course of that number or by equal errors; ``comparison`` samples any field on
several grids and compares them task by task.
"""

from fluvial.support.design.comparison import GridComparison, compare_grids
from fluvial.support.design.grids import (
    balanced_bandwidths,
    balanced_sizes,
    bandwidth_grid,
    design_bandwidth,
    design_grid,
    even_bandwidths,
    geometric_sizes,
)
from fluvial.support.design.sizes import SizeCurve, effective_sizes

__all__ = [
    "GridComparison",
    "SizeCurve",
    "balanced_bandwidths",
    "balanced_sizes",
    "bandwidth_grid",
    "compare_grids",
    "design_bandwidth",
    "design_grid",
    "effective_sizes",
    "even_bandwidths",
    "geometric_sizes",
]
