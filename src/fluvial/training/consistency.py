"""How far a net in training is from being the average of one velocity: a measure of Mean Flows that needs no target."""

import math

import torch
from torch import nn

from fluvial.data import Dataset
from fluvial.objectives import self_consistency
from fluvial.paths import GaussianPath
from fluvial.randomness import generator

ROWS = 64
_STREAM = 5  # third counter; 1 to 4 are those of training and of subsets


@torch.no_grad()
def inconsistency(net: nn.Module, path: GaussianPath, train: Dataset, *, seed: int, step: int) -> float:
    """Root mean square of the difference between one jump and two, over that of the jump; 0 for an average velocity.

    Args:
        net: A net with a gap.
        path: Its path.
        train: Training data, of which 64 are drawn.
        seed: The run's seed.
        step: Updates made; with the seed it decides the draw.

    Returns:
        A number from 0.

    Source:
        Guo et al. 2025, "SplitMeanFlow": the additivity of the integral.

    Example:
        >>> class Constant(nn.Module):
        ...     def forward(self, x, t, cond=None, r=None):
        ...         return torch.ones_like(x)
        >>> inconsistency(Constant(), fv.CondOT(), fv.Dataset(torch.zeros(4, 2)), seed=0, step=0)
        0.0
    """
    g = generator(seed, step, 0, _STREAM)
    x1, _ = train.take(torch.randint(len(train), (ROWS,), generator=g))
    x0 = torch.randn(x1.shape, generator=g)
    t, s, r = torch.rand(3, ROWS, generator=g).sort(0).values
    xt = path.sample(x0, x1, t).xt
    device = next((weight.device for weight in net.parameters()), xt.device)
    difference, whole = self_consistency(net, *(part.to(device) for part in (xt, t, s, r)))
    scale = float(whole.sum())
    return math.sqrt(float(difference.sum()) / scale) if scale > 0 else 0.0
