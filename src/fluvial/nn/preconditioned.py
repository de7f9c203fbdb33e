r"""A net that starts as the velocity of a Gaussian and learns what the data have beyond one.

Where data are white, :math:`x_1 \sim N(0, I)`, the marginal velocity is linear in x and what a pair's velocity has
beside it is of one size at each time:

.. math::
    E[u_t | x_t] = \frac{\alpha\dot\alpha + \sigma\dot\sigma}{\alpha^2 + \sigma^2}\, x_t, \qquad
    \mathrm{Var}[u_t | x_t] = \frac{(\sigma\dot\alpha - \alpha\dot\sigma)^2}{\alpha^2 + \sigma^2}.

The net adds to that mean, in units of that deviation, and sees points of variance 1 at all times.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from fluvial.checks import as_times
from fluvial.kinds import checked
from fluvial.paths import CondOT, GaussianPath


@checked
class Preconditioned(nn.Module):
    """Velocity of white data plus a net's own part, for data of mean 0 and covariance 1.

    A net whose last layer starts at zero, as those of ``fv.nn`` do, makes standard normal samples before its first
    update; it is finite wherever the path's rates are, where sigma = 0 too.

    Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", section 5, for
    denoisers; here for velocities of any Gaussian path.

    Args:
        net: The net, ``net(x, t, cond) -> v``.
        path: The path whose velocity it predicts.

    Example:
        >>> net = fv.nn.Preconditioned(fv.nn.MLP((2,), width=8))
        >>> net(torch.ones(2, 2), torch.tensor([0.0, 1.0]))
        tensor([[-1., -1.],
                [ 1.,  1.]], grad_fn=<AddBackward0>)
    """

    def __init__(self, net: nn.Module, path: GaussianPath | None = None) -> None:
        super().__init__()
        self.net, self.path = net, CondOT() if path is None else path

    def forward(self, x: Float[Tensor, "B *D"], t: Tensor | float, cond: Any = None) -> Float[Tensor, "B *D"]:
        """Velocity at ``(x, t)``.

        Args:
            x: Points, shape ``(B, *D)``.
            t: Times, a scalar or ``(B,)``.
            cond: Condition, as the net takes it.
        """
        times = as_times(t, x).to(x.dtype).expand(len(x))
        at = times.reshape(-1, *[1] * (x.ndim - 1))
        alpha, sigma = self.path.alpha(at), self.path.sigma(at)
        power = alpha.square() + sigma.square()
        mean = (alpha * self.path.alpha_dot(at) + sigma * self.path.sigma_dot(at)) / power
        scale = power.rsqrt()
        out: Tensor = mean * x + self.path.wronskian(at) * scale * self.net(x * scale, times, cond)
        return out
