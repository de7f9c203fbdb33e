r"""Exponential moving average of a net's weights, :math:`\bar\theta \leftarrow d \bar\theta + (1 - d)
\theta`.

The decay :math:`d` warms up (:func:`fluvial.training.schedule.ema_decay`), so that the first averages forget
the initial weights. Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging".
"""

import copy

import torch
from torch import nn

from fluvial.kinds import checked
from fluvial.training.schedule import ema_decay


@checked
class EMA:
    """A copy of a net, in evaluation mode, whose weights follow the net's as a moving average.

    Args:
        net: The net to follow; its present weights are the first average.
        decay: Largest decay, in [0, 1).

    Attributes:
        net: The averaged net; it needs no gradient.

    Raises:
        ValueError: If ``decay`` is outside [0, 1).

    Example:
        >>> net = torch.nn.Linear(1, 1)
        >>> ema = EMA(net, decay=0.0)
        >>> _ = torch.nn.init.constant_(net.weight, 3.0)
        >>> ema.update(net, step=0)
        >>> ema.net.weight.item()
        3.0
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.net = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Move the average towards a net's weights after update ``step`` (from 0); buffers are copied.

        Args:
            net: The net that was copied, with its new weights.
            step: Updates made before this one.
        """
        weight = 1 - ema_decay(step, self.decay)
        torch._foreach_lerp_(list(self.net.parameters()), list(net.parameters()), weight)
        for average, buffer in zip(self.net.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)
