"""Cheaper ways to walk along the exact field; each is the same scheme on the same field.

In the span of the start and the data, where data are fewer than dimensions; otherwise with rows that rest on one datum
evaluated from that datum alone, as long as it is proven that they do, and over pixels with the others followed.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluvial.fields.base import Walk
from fluvial.smoothing import Effort, Moments, Query, combined, moments
from fluvial.smoothing.attention import MOST_DIMENSIONS
from fluvial.smoothing.locking import Locks
from fluvial.smoothing.query import stacked
from fluvial.smoothing.running import RunningRows, rows_to_follow
from fluvial.smoothing.span import Span, span_pays

if TYPE_CHECKING:
    from fluvial.fields.exact import ExactField

# Below this many numbers in the support an evaluation is cheaper than what locking costs.
_WORTH_LOCKING = 2**20


def choose_course(
    field: "ExactField", query: Query, shape: torch.Size, walk: Walk
) -> "SpanCourse | LockingCourse | None":
    """The cheaper way to walk from the query's points, if there is one.

    Args:
        field: The field.
        query: The first states, flattened, with labels and priors.
        shape: Shape of the states, ``(B, *D)``.
        walk: What the solver is about to do.
    """
    support = field._support
    if walk.evaluations < 2 or not len(query.x):
        return None
    if span_pays(support, len(query.x), walk.evaluations, field.effort):
        return SpanCourse(field, query, shape)
    if support.dim > MOST_DIMENSIONS and len(support) * support.dim >= _WORTH_LOCKING:
        return LockingCourse(field, query, shape, walk)
    return None


class SpanCourse:
    """The walk in coordinates of the first states and the data; see :mod:`fluvial.smoothing.span`."""

    def __init__(self, field: "ExactField", query: Query, shape: torch.Size) -> None:
        support = field._support.merged if query.log_prior is None else field._support
        self._field, self._shape = field, shape
        self._span = span = Span(support, query)
        self._locks = Locks(support, query, field.effort, span.start, span.coordinates_of, span.length)
        self.start = span.start

    def __call__(self, coordinates: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, alpha_dot, rate, rest = self._field.rates(t)
        holds = self._locks.hold(coordinates, alpha, sigma)
        weights = self._locks.points[:, 1:].clone()
        left = torch.nonzero(~holds).flatten()
        if len(left):
            rows = coordinates[left]
            weights[left], index, lead = self._span.weights(left, rows, alpha[left], sigma[left])
            self._locks.renew(left, rows, alpha[left], sigma[left], index, lead)
        velocity = rate[:, None] * coordinates
        velocity[:, 1:] += (alpha_dot - rate + rate * rest)[:, None] * weights
        return velocity

    def states(self, coordinates: Tensor) -> Tensor:
        """The states ``(B, *D)`` that coordinates stand for."""
        return self._span.states(coordinates).reshape(self._shape)


class LockingCourse:
    """The walk in the states themselves, with locked rows (:mod:`fluvial.smoothing.locking`) and, over pixels, followed
    ones (:mod:`fluvial.smoothing.running`)."""

    def __init__(self, field: "ExactField", query: Query, shape: torch.Size, walk: Walk) -> None:
        self._field, self._query = field, query
        self._support = support = field._support.merged if query.log_prior is None else field._support
        # The least tolerance there is: screening then leaves out what rounding hides, as the field itself does.
        self._effort = Effort(max(field.effort.tol, 1e-300), field.effort.memory)
        self._locks = Locks(
            support, query, self._effort, query.x, lambda index: support.data(index, query.x.dtype), _norms
        )
        self.start = query.x.reshape(shape)
        # Euler evaluates at states of the scheme alone, as the proof wants it: a stage of Heun's is none.
        convex = walk.method == "euler" and field.path.straight
        equal = support.log_prior is None and query.log_prior is None
        self._decides = walk.end_only and convex and equal
        groups = rows_to_follow(support, len(query.x), query.x.dtype, field.effort)
        self._running = [RunningRows(support, rows) for rows in groups]

    def __call__(self, coordinates: Tensor, t: Tensor) -> Tensor:
        field, x = self._field, coordinates.flatten(1)
        alpha, sigma, *rates = field.rates(t)
        holds = self._locks.hold(x, alpha, sigma)
        query = replace(self._query, x=x, alpha=alpha, sigma=sigma)
        columns = tuple(part[:, None].to(x.dtype) for part in rates)
        alpha_dot, rate, rest = columns
        points = self._locks.points
        velocity = alpha_dot * points + rate * ((x - points) + rest * points)
        left = torch.nonzero(~holds).flatten()
        if len(left):
            rows = query.rows(left)
            found = self._moments(left, rows)
            lead = -found.runner_up - 2 * found.slack
            self._locks.renew(left, rows.x, rows.alpha, rows.sigma, found.top_index, lead)
            if self._decides:
                self._locks.decide(left, found)
            velocity[left] = combined(self._support, rows, found, tuple(part[left] for part in columns))
        return velocity.reshape(coordinates.shape)

    def _moments(self, index: Tensor, query: Query) -> Moments:
        """Moments of some rows: from what is known of where they were, or anew."""
        if not self._running:
            return moments(self._support, query, self._effort, stats=False)
        values, left = query.in_values(self._support), torch.ones_like(index, dtype=torch.bool)
        pieces: list[Moments] = []
        order: list[Tensor] = []
        for group in self._running:
            asked = torch.nonzero(torch.isin(index, group.rows)).flatten()
            found, sound = group.moments(index[asked], values.rows(asked))
            pieces, order = [*pieces, found], [*order, asked[sound]]
            left[asked[sound]] = False
        others = torch.nonzero(left).flatten()
        if len(others):
            pieces.append(moments(self._support, query.rows(others), self._effort, stats=False))
            order.append(others)
        return stacked(pieces).rows(torch.argsort(torch.cat(order)))

    def states(self, coordinates: Tensor) -> Tensor:
        """The states themselves."""
        return coordinates


def _norms(states: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(states, dim=1)
    return norms
