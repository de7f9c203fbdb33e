r"""Approximate exponents with proven bounds on their errors, from cheap products.

The affinity of point ``i`` at a row is :math:`a_i = \langle x, s_i \rangle - \tfrac{\alpha}{2} \|s_i\|^2`, so that
the exponent is :math:`\ell_i = (\alpha / \sigma^2) a_i`. The bound :math:`\delta` on its error, up to a constant of the
row, adds up

* rounding of x to :math:`\tilde x`: :math:`\|x - \tilde x\| \cdot \max_i \|s_i - \bar s\|`, the norm being that of the
  actual residue; the part along the mean :math:`\bar s` is the same for all points and drops out;
* rounding of the points to bfloat16: :math:`2^{-8} \|\tilde x\| r`, ``r`` their largest norm; nothing for pixels, which
  int8 and bfloat16 hold exactly;
* rounding of the product: :math:`2^{-8} \max_i |\langle \tilde x, s_i \rangle|` to bfloat16; in int8 it is exact but
  for its conversion to float32, which the next term holds;
* accumulation in float32: :math:`(d + 8) 2^{-24} (\|x\| r + \alpha r^2 / 2)`, and the rounding of priors.

It is infinite where a product or a squared norm could overflow.
"""

import math
from enum import Enum

import torch
from torch import Tensor

from fluvial.smoothing.logits import rounding_bound, row_norms, tilt, unit_roundoff
from fluvial.smoothing.products import Digits, has_fast_bfloat16, inner, inner_bfloat16, takes_int8
from fluvial.smoothing.query import Query
from fluvial.smoothing.support import DIGITS_BYTES, TILE_BYTES, Support

_BFLOAT16 = 2.0**-8
# Points are searched in groups of this many; the affinities' last dimension is a multiple of it.
GROUP = 64


class Precision(Enum):
    """In what the products are taken: the type of the values, None for the rows' own, and the number of digits."""

    BFLOAT16 = (torch.bfloat16, 0)
    INT8_COARSE = (torch.int8, 1)
    INT8 = (torch.int8, 2)
    NATIVE = (None, 0)


def coarse_precision(support: Support, query: Query) -> Precision:
    """The cheapest precision that there is for these rows; ``NATIVE`` if none is cheaper than their own type."""
    if fine_precision(support, query) == Precision.INT8:
        return Precision.INT8_COARSE
    cheap = query.x.dtype == torch.float32 and has_fast_bfloat16(query.x.device.type)
    return Precision.BFLOAT16 if cheap else Precision.NATIVE


def fine_precision(support: Support, query: Query) -> Precision:
    """The cheapest precision whose error is far below one nat."""
    fits = support.pixels and query.x.dtype == torch.float32
    exact = fits and takes_int8(support.dim, query.x.device.type)
    return Precision.INT8 if exact else Precision.NATIVE


class Affinities:
    """Affinities of a block of rows to one chunk of points after the other.

    Args:
        support: The points.
        query: The rows, in the support's values.
        precision: Of the products.
    """

    def __init__(self, support: Support, query: Query, precision: Precision) -> None:
        self._support, self._query, self._precision = support, query, precision
        self._half = (-0.5 * query.alpha)[:, None].to(query.x.dtype)
        self._largest = query.alpha.new_zeros(len(query.x))
        self._tilted = query.alpha.new_zeros(len(query.x))
        self._buffer: Tensor | None = None
        size = row_norms(query.x)
        radius, dtype = support.radius, query.x.dtype
        product = size * radius + 0.5 * query.alpha * radius**2
        self._error = rounding_bound(support.dim) * unit_roundoff(dtype) * product
        safe = torch.clamp(product, min=radius**2) < 0.125 * torch.finfo(dtype).max
        self._error.masked_fill_(~safe, torch.inf)
        if precision != Precision.NATIVE:
            count = torch.full((len(query.x),), precision.value[1], device=query.x.device)
            self._digits = Digits(query.precise(support), count) if precision.value[1] else None
            self._rounded = query.x.bfloat16()
            rounded = self._rounded.double() if self._digits is None else self._digits.rounded
            residue = torch.linalg.vector_norm(query.precise(support) - rounded, dim=1)
            stored = 0.0 if support.pixels else _BFLOAT16
            self._error += residue * support.reach + (1 + _BFLOAT16) * stored * size * radius

    def __call__(self, points: slice) -> tuple[Tensor, Tensor]:
        """Affinities of some points, tilted by priors, and the bound on the error of all so far, ``(B,)``.

        Their shape is ``(B, M)``, ``M`` the next multiple of the group's size, filled with minus infinity; they are
        valid until the next call.
        """
        count = points.stop - points.start
        width = math.ceil(count / GROUP) * GROUP
        if self._buffer is None or self._buffer.shape[1] != width:
            self._buffer = self._query.x.new_empty((len(self._query.x), width))
        out = self._buffer[:, :count]
        self._buffer[:, count:] = -torch.inf
        norms, dtype = self._support.squared_norms, self._query.x.dtype
        kind, digits = self._precision.value
        size = DIGITS_BYTES if digits else TILE_BYTES
        for part, values in self._support.tiles(points.start, points.stop, kind or dtype, size):
            product = self._product(values)
            here = slice(part.start - points.start, part.stop - points.start)
            torch.addcmul(product, self._half, norms[None, part].to(dtype), out=out[:, here])
        self._tilted = torch.maximum(self._tilted, self._tilt(out, points))
        return self._buffer, self._error + _BFLOAT16 * self._largest + self._tilted

    def _product(self, values: Tensor) -> Tensor:
        if self._precision == Precision.NATIVE:
            return inner(self._query.x, values)
        if self._digits is not None:
            return self._digits.inner(values)
        product = inner_bfloat16(self._rounded, values)
        low, high = torch.aminmax(product, dim=1)
        self._largest = torch.maximum(self._largest, torch.maximum(-low, high).double())
        return product

    def _tilt(self, out: Tensor, points: slice) -> Tensor:
        """Add the priors, in affinities' units of ``sigma^2 / alpha``; returns a bound on their rounding, ``(B,)``."""
        query, support = self._query, self._support
        if query.log_prior is None and support.log_prior is None and query.labels is None:
            return query.alpha.new_zeros(len(out))
        scale, least = query.sigma.square() / query.alpha, torch.finfo(out.dtype).tiny
        # Never 0, or it would turn minus infinity into NaN.
        added = tilt(torch.zeros_like(out), support, query, points).mul_(scale.clamp_min(least)[:, None].to(out.dtype))
        out += added
        size = added.abs_().masked_fill_(added == torch.inf, 0.0).amax(1).double()
        return torch.where(scale < least, 1.0, 4 * unit_roundoff(out.dtype)) * size
