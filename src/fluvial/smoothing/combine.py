"""The velocity from the moments of the posterior."""

import torch
from torch import Tensor

from fluvial.smoothing.query import Moments, Query
from fluvial.smoothing.support import Support

# Numbers of an elementwise pass, so that its temporaries stay in the cache.
_PASS = 2**19


def combined(support: Support, query: Query, found: Moments, rates: tuple[Tensor, ...]) -> Tensor:
    """Velocity in the moments' own buffer, a few columns at a time, ``(B, d)``; no gradient.

    Args:
        support: The points.
        query: Where, in data units.
        found: The moments there; used up.
        rates: Rate of alpha, logarithmic rate of sigma and 1 - alpha, columns ``(B, 1)`` of x's type.
    """
    alpha_dot, rate, rest = rates
    width = max(64, _PASS // max(1, len(query.x))) if support.in_memory else support.dim
    for low in range(0, support.dim, width):
        part = slice(low, low + width)
        top = support.data(found.top_index, query.x.dtype, part)
        offset = found.offset[:, part]
        if support.unit != 1:
            offset.mul_(support.unit)
        mean = top + offset
        residual = torch.sub(query.x[:, part], top, out=top).sub_(offset).addcmul_(rest, mean).mul_(rate)
        torch.addcmul(residual, alpha_dot, mean, out=offset)
    return found.offset
