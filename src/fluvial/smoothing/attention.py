r"""Few dimensions: the field as a fused attention head.

With keys :math:`(s_i, \|s_i\|^2)` and queries :math:`(\tfrac{\alpha}{\sigma^2} x, -\tfrac{\alpha^2}{2 \sigma^2})` the
exponents are inner products, and ``scaled_dot_product_attention`` takes the softmax without writing it to memory. The
values are the keys themselves: their last column gives the mean of :math:`\|s\|^2`, hence the spread by which the
effect of rounding is judged.

Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", corollary 5.3.
"""

import torch

from fluvial.smoothing.query import Effort, Moments, Query, Way
from fluvial.smoothing.support import Support

# Beyond this many dimensions two products are faster.
MOST_DIMENSIONS = 128
_LEAST_POINTS = 64


def suits(support: Support, query: Query, effort: Effort) -> bool:
    """Whether the head can compute these rows and is the fastest way to."""
    plain = query.labels is None and query.log_prior is None and support.log_prior is None
    small = support.dim <= MOST_DIMENSIONS and len(support) >= _LEAST_POINTS
    fits = 8 * len(support) * (support.dim + 1) <= effort.memory // 2
    on_cpu = query.x.device.type == "cpu" and query.x.dtype == torch.float32
    return plain and small and fits and on_cpu and support.in_memory


def attention_moments(support: Support, query: Query) -> Moments:
    """Mean and power of every row; the statistics are not filled in, and the top point is merely the first one."""
    keys = support.lifted()
    gain = query.gain[:, None]
    dim, rows = support.dim, len(query.x)
    queries = torch.zeros(rows, keys.shape[1])
    torch.mul(query.x, gain.float(), out=queries[:, :dim])
    queries[:, dim] = -0.5 * query.alpha * gain[:, 0]
    head = torch.nn.functional.scaled_dot_product_attention(
        queries[None, None], keys[None, None], keys[None, None], scale=1.0
    )[0, 0]
    index = torch.zeros(rows, dtype=torch.int64)
    unknown = torch.full((rows,), torch.nan, dtype=torch.float64)
    offset = head[:, :dim] - keys[0, :dim]
    way = torch.full_like(index, int(Way.PRODUCT))
    return Moments(
        index,
        offset,
        unknown,
        unknown,
        way,
        unknown,
        unknown,
        unknown,
        unknown,
        head[:, dim].double(),
        unknown,
        unknown,
    )
