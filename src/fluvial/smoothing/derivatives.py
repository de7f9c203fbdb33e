"""Second moments of the posterior: what the field's divergence and derivatives are made of.

They run over the same exponents as :class:`~fluvial.smoothing.query.Moments`, each row in the way that was found to be
accurate enough there. Rows that rest on few candidates run over those alone.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fluvial.smoothing.affinities import Precision
from fluvial.smoothing.candidates import candidates
from fluvial.smoothing.logits import Exponents, pair_exponents, tilt
from fluvial.smoothing.query import Effort, Moments, Query, Way, row_blocks
from fluvial.smoothing.support import TILE_BYTES, Support

# Weights of some points at a block of rows without the top point's, and the points' values and squared norms.
_Tile = tuple[Tensor, Tensor, Tensor]


def spread(support: Support, query: Query, found: Moments, effort: Effort | None = None) -> Tensor:
    """Trace of the weighted covariance of the support's values at every row, shape ``(B,)``, float64."""
    result = torch.empty_like(found.normaliser)
    for index, way, part, tiles in _groups(support, query, found, effort):
        top = support.values(part.top_index, torch.float64)
        total = torch.zeros_like(part.normaliser)
        for weights, values, norms in tiles:
            total = total + (weights * _squared_distances(way, values, norms, top)).sum(1)
        result[index] = total - part.offset.double().square().sum(1)
    return result


def covariance_product(
    support: Support, query: Query, found: Moments, direction: Tensor, rate: Tensor, effort: Effort | None = None
) -> Tensor:
    r"""Derivative of the mean when exponent ``i`` moves by :math:`\langle v, s_i \rangle + c \|s_i\|^2` (values).

    Args:
        support: The points.
        query: The rows that ``found`` belongs to.
        found: Their moments.
        direction: ``v``, shape ``(B, d)``.
        rate: ``c``, shape ``(B,)``.
        effort: Tolerance and memory.

    Returns:
        :math:`\mathrm{Cov}_w(s, \cdot)` applied to that motion, shape ``(B, d)``, float64.
    """
    result = torch.empty_like(direction, dtype=torch.float64)
    for index, _, part, tiles in _groups(support, query, found, effort):
        v, c = direction[index].double(), rate[index].double()
        top = support.values(part.top_index, torch.float64)
        at_top = (v * top).sum(1) + c * support.squared_norms[part.top_index]
        total, mass = torch.zeros_like(top), torch.zeros_like(at_top)
        for weights, values, norms in tiles:
            moved = weights * (v @ values.T + c[:, None] * norms - at_top[:, None])
            total = total + moved @ values
            mass = mass + moved.sum(1)
        result[index] = total - mass[:, None] * (top + part.offset.double())
    return result


def _groups(
    support: Support, query: Query, found: Moments, effort: Effort | None
) -> Iterator[tuple[Tensor, Way, Moments, Iterator[_Tile]]]:
    """Rows that are computed alike and fit the memory, with their moments and tiles."""
    effort = Effort() if effort is None else effort
    query = query.in_values(support)
    for way in Way:
        alike = torch.nonzero(found.way == int(way)).flatten()
        budget = max(1, effort.memory // (8 * 16 * support.dim))
        for block in row_blocks(len(alike), 1, min(budget, 1024)) if len(alike) else ():
            index = alike[block]
            rows, part = query.rows(index), found.rows(index)
            sparse = _sparse_tile(support, rows, part, effort) if way == Way.CANDIDATES else None
            yield index, way, part, iter([sparse]) if sparse else _dense_tiles(way, support, rows, part)


def _dense_tiles(way: Way, support: Support, query: Query, found: Moments) -> Iterator[_Tile]:
    scaled = Exponents(way, query, support)
    for part, values in support.tiles(0, len(support), torch.float64):
        norms = support.squared_norms[part]
        logits = tilt(scaled(values.to(scaled.dtype), norms), support, query, part)
        weights = torch.exp(logits.double() - found.top_exponent[:, None]) / found.normaliser[:, None]
        points = torch.arange(part.start, part.stop, device=weights.device)
        yield weights.masked_fill_(points == found.top_index[:, None], 0.0), values, norms


def _sparse_tile(support: Support, query: Query, found: Moments, effort: Effort) -> _Tile | None:
    """One tile of the points that are a candidate at any of the rows; None where a row has too many after all."""
    near = candidates(support, query, effort, Precision.NATIVE)
    points, column = torch.unique(near.points, return_inverse=True)
    if not bool(near.few.all()) or len(points) * support.dim * 8 > 8 * TILE_BYTES:
        return None
    exponents = pair_exponents(support, query, near.rows, near.points)
    pairs = torch.exp(exponents - found.top_exponent[near.rows]) / found.normaliser[near.rows]
    pairs = pairs.masked_fill(near.points == found.top_index[near.rows], 0.0)
    weights = pairs.new_zeros((len(query.x), len(points))).index_put((near.rows, column), pairs)
    return weights, support.values(points, torch.float64), support.squared_norms[points]


def _squared_distances(way: Way, values: Tensor, norms: Tensor, top: Tensor) -> Tensor:
    """Squared distances of points from each row's top point, float64 ``(b, n)``."""
    if way in (Way.DISTANCE, Way.CANDIDATES):
        return torch.cdist(top, values, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.addmm(norms + top.square().sum(1)[:, None], top, values.T, alpha=-2.0).clamp_min(0.0)
