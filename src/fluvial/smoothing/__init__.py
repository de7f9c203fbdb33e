r"""The Nadaraya-Watson engine under the exact field.

Every evaluation needs weighted sums over a support, with weights :math:`w_i \propto \pi_i e^{-\|x - \alpha s_i\|^2 /
2 \sigma^2}`. No ``(B, N, D)`` tensor is ever made.

* :mod:`~fluvial.smoothing.points`: where the points lie, in memory or in a file, as floats or pixels.
* :mod:`~fluvial.smoothing.support`: the points with what every evaluation needs of them.
* :mod:`~fluvial.smoothing.query`: what is asked, with what effort, and what comes back.
* :mod:`~fluvial.smoothing.logits`: the exponents, and how accurately they can be had.
* :mod:`~fluvial.smoothing.engine`: which way of computing serves which rows; the ways are
  :mod:`~fluvial.smoothing.dense`, :mod:`~fluvial.smoothing.attention` and :mod:`~fluvial.smoothing.screening`.
* :mod:`~fluvial.smoothing.span`, :mod:`~fluvial.smoothing.running`, :mod:`~fluvial.smoothing.locking`: whole
  trajectories; ``shards``: over many ranks.
* :mod:`~fluvial.smoothing.derivatives`, :mod:`~fluvial.smoothing.local_mean`: second moments, and the mean as a
  differentiable function.
"""

from fluvial.smoothing.combine import combined
from fluvial.smoothing.derivatives import spread
from fluvial.smoothing.engine import moments
from fluvial.smoothing.local_mean import local_mean, needs_derivatives
from fluvial.smoothing.logits import log_total
from fluvial.smoothing.query import DEFAULT_MEMORY, Effort, Moments, Query, error_bound
from fluvial.smoothing.support import Support

__all__ = [
    "DEFAULT_MEMORY",
    "Effort",
    "Moments",
    "Query",
    "Support",
    "combined",
    "error_bound",
    "local_mean",
    "log_total",
    "moments",
    "needs_derivatives",
    "spread",
]
