r"""The Nadaraya-Watson engine under the exact field.

Every evaluation needs weighted sums over a support, with weights :math:`w_i \propto \pi_i e^{-\|x - \alpha s_i\|^2 /
2 \sigma^2}`.

* :mod:`~fluvial.smoothing.support`: the points, prepared once.
* :mod:`~fluvial.smoothing.logits`: the ways to compute the exponents, and which one is accurate enough for a row.
* :mod:`~fluvial.smoothing.tiles`: the sums, tile by tile with an online softmax, so that no ``(B, N, D)`` tensor
  exists.
* :mod:`~fluvial.smoothing.local_mean`: the weighted mean as a differentiable function.
"""

from fluvial.smoothing.local_mean import local_mean
from fluvial.smoothing.support import Support
from fluvial.smoothing.tiles import Moments, Query, moments, spread

__all__ = ["Moments", "Query", "Support", "local_mean", "moments", "spread"]
