"""Whether the rounding of exponents can matter to a row.

It cannot if it is small, if it moves the mean by little (by no more than the spread of the posterior times the
rounding), or if the top point is so far ahead that no rounding could change it.
"""

import math

import torch
from torch import Tensor

from fluvial.smoothing.logits import HARMLESS, product_error, unit_roundoff
from fluvial.smoothing.query import Moments, Query, Way
from fluvial.smoothing.support import Support

# Rounding of a product against its usual size, as it is allowed for where that decides.
SAFETY = 8.0
HARM = {torch.float32: 1.5e-4, torch.float64: 3e-11}
"""Harm that rounding may do to the predicted noise, relative to its usual norm; by the dtype of x."""


def settled(support: Support, query: Query, found: Moments, way: Way) -> Tensor:
    """Rows whose rounding cannot matter, ``(B,)``."""
    if way == Way.DISTANCE:
        return torch.ones(len(query.x), dtype=torch.bool, device=query.x.device)
    dtype = query.x.dtype if way == Way.PRODUCT else torch.float64
    error = product_error(query, support, dtype)
    harmless = error <= HARMLESS[query.x.dtype]
    if bool(harmless.all()):
        return harmless
    # By the bound, not by what is usual: images of one colour exceed that by far, and a wrong top point is no trifle.
    lead = lead_needed(found.slack / SAFETY, len(support), query.x.dtype)
    done = harmless | ((found.runner_up <= -lead) & torch.isfinite(error))  # false where not known
    rest = torch.nonzero(~done & (error < 0.1)).flatten()
    if len(rest):
        done[rest] = _little_harm(support, query.rows(rest), found.rows(rest), error[rest])
    return done


def lead_needed(error: Tensor, points: int, dtype: torch.dtype) -> Tensor:
    """How far the top exponent must be ahead so that its point is alone whatever the rounding, ``(B,)``."""
    return 2 * SAFETY * error - math.log(unit_roundoff(dtype) / points)


def _little_harm(support: Support, query: Query, found: Moments, error: Tensor) -> Tensor:
    """Rows at which the product of the posterior's spread and of the rounding where its weight lies is small enough."""
    mean = support.values(found.top_index, query.x.dtype).add_(found.offset)
    length = torch.linalg.vector_norm(mean, dim=1).double()
    power = found.power.clamp_min(0.0)
    deviation = ((power - length.square()).clamp_min(0.0) + 16 * unit_roundoff(query.x.dtype) * power).sqrt()
    near = torch.clamp(length + 3 * deviation, max=support.radius)  # nearly all of the weight lies within
    size = torch.linalg.vector_norm(query.x, dim=1).double()
    full = size * support.radius + 0.5 * query.alpha * support.radius**2
    local = error * (size * near + 0.5 * query.alpha * near.square()) / full
    harm: Tensor = deviation * local * query.alpha / query.sigma
    return harm <= HARM[query.x.dtype] * math.sqrt(support.dim)
