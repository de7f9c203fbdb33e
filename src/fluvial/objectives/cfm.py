r"""Conditional Flow Matching.

.. math:: L = E \|v_\theta(x_t, t) - u_t(x_t | x_1)\|^2

has the same gradient as the regression on the marginal velocity, and differs from it by :math:`E\,\mathrm{Var}[u_t |
x_t]`.
"""

from dataclasses import dataclass, field

import torch

from fluvial.conditions import labels_of
from fluvial.couplings import Coupling, Independent
from fluvial.fields.base import Field
from fluvial.kinds import checked
from fluvial.objectives.base import Batch, Loss, met, noise_like, require_call, squared_error, times_like
from fluvial.paths import CondOT, GaussianPath
from fluvial.times import Times, Uniform


@checked
@dataclass(frozen=True)
class CFM:
    """Regression on the conditional velocity of each (noise, datum) pair.

    Sources: Lipman et al. 2023, "Flow Matching for Generative Modeling", equation 9; with
    :class:`~fluvial.couplings.OptimalTransport` as coupling, Tong et al. 2024, "Improving and Generalizing Flow-Based
    Generative Models with Minibatch Optimal Transport".

    Args:
        path: Probability path.
        coupling: Which noise meets which datum.
        times: Distribution of the times.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> loss = CFM()(lambda x, t, cond: 0 * x, fv.Batch(torch.zeros(1000, 4)), generator=g)
        >>> loss.per_sample.shape, round(loss.loss.item(), 1)
        (torch.Size([1000]), 1.0)
    """

    path: GaussianPath = field(default_factory=CondOT)
    coupling: Coupling = field(default_factory=Independent)
    times: Times = field(default_factory=Uniform)

    def __call__(self, net: Field, batch: Batch, *, generator: torch.Generator) -> Loss:
        """Loss of ``net`` on ``batch``; all draws come from ``generator``."""
        require_call(net, batch, generator)
        x1 = batch.x1
        x0 = noise_like(x1, generator)
        t = times_like(self.times, x1, generator)
        x0 = met(self.coupling, x0, x1, labels_of(batch.cond), generator)
        point = self.path.sample(x0, x1, t)
        return squared_error(net(point.xt, t, batch.cond), point.ut, t)
