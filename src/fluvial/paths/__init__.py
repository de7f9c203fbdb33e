r"""Gaussian probability paths between noise and data.

A path joins noise :math:`x_0 \sim N(0, I)` and data :math:`x_1` by

.. math:: x_t = \alpha_t x_1 + \sigma_t x_0, \qquad u_t = \dot\alpha_t x_1 + \dot\sigma_t x_0,

with :math:`\alpha` rising to 1 and :math:`\sigma` falling to (about) 0. Its bandwidth :math:`h_t = \sigma_t /
\alpha_t` is the width of the kernel with which the exact field of a data set smooths at time ``t``. Velocity
:math:`u`, score :math:`\nabla \log p_t`, denoiser :math:`E[x_1 | x_t]` and noise :math:`E[x_0 | x_t]` are linear
functions of one another given :math:`x_t`; :meth:`GaussianPath.convert` goes from any one to any other.

Rates and complements (:math:`1 - \alpha`) come in forms that stay exact at both ends of time. Every method keeps the
shape, dtype and device of ``t``.
"""

from fluvial.paths.base import GaussianPath, PathSample, align
from fluvial.paths.schedules import VP, CondOT, Cosine, FromBandwidth, Polynomial

__all__ = ["VP", "CondOT", "Cosine", "FromBandwidth", "GaussianPath", "PathSample", "Polynomial", "align"]
