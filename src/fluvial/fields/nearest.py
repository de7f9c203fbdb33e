r"""Local means over the k nearest data alone, at many perturbations of each point.

With unnormalised prior weights :math:`\pi_i` (1 if there is no prior) and the set :math:`K` of the ``k`` data nearest
to :math:`z / \alpha`,

.. math:: m_k(z) = \frac{\sum_{i \in K} w_i s_i}{\sum_{i \in K} w_i}, \qquad
          m(z) - m_k(z) = \delta\, (c - m_k(z)), \qquad \delta = \frac{\sum_{i \notin K} w_i}{\sum_i w_i},

``c`` the weighted mean of the data left out: the error is the omitted weight times a distance inside the data's
convex hull. A datum left out is no nearer than the furthest one kept, at distance :math:`r`, so

.. math:: \delta \le \frac{\Omega}{Z + \Omega}, \qquad Z = \sum_{i \in K} \pi_i e^{-\|z - \alpha s_i\|^2 / 2 \sigma^2},
          \qquad \Omega = e^{-\alpha^2 r^2 / 2 \sigma^2} \sum_{i \notin K} \pi_i .

The search ranks data by :math:`\langle z, s_i \rangle - \alpha \|s_i\|^2 / 2`, which has a limit at alpha = 0. Of
:math:`z = x + \delta e_j` the products with ``x`` and with the perturbations ``e_j`` are taken apart, so that all
perturbations of a point cost one product with the data. It runs in float64, tile by tile.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fluvial.fields.exact import ExactField

# Bytes of one float64 tile; a handful of such tiles are alive at once.
_TILE_BYTES = 32 * 2**20
_LEAST_DATA = 256
_PARTS = ("mean", "spread", "omitted")


@dataclass(frozen=True)
class Perturbed:
    """Points at which a local mean is taken, each with its perturbations; all float64.

    Args:
        x: Shape ``(B, d)``.
        alpha: Weight of the datum at each row's time, shape ``(B,)``.
        sigma: Weight of the noise, shape ``(B,)``; may be 0.
        width: Length of a unit of perturbation, shape ``(B,)``.
        offsets: Perturbations that all rows share, shape ``(M, d)``.
    """

    x: Tensor
    alpha: Tensor
    sigma: Tensor
    width: Tensor
    offsets: Tensor

    def rows(self, part: slice | Tensor) -> "Perturbed":
        """Some of the rows."""
        return Perturbed(self.x[part], self.alpha[part], self.sigma[part], self.width[part], self.offsets)


@dataclass(frozen=True)
class Local:
    """What the kept data say, averaged over the perturbations of each row.

    Args:
        mean: Local mean, shape ``(B, d)``.
        spread: Trace of the weights' covariance, shape ``(B,)``.
        omitted: Upper bound on the weight left out, shape ``(B,)``.
    """

    mean: Tensor
    spread: Tensor
    omitted: Tensor


class NearestData:
    """The data of an exact field, of which each point sees the nearest ones only.

    Args:
        exact: The field.
        count: How many data a point sees; fewer if its condition admits fewer.

    Example:
        >>> data = NearestData(ExactField(torch.tensor([[0.0], [1.0], [9.0]])), 2)
        >>> one = torch.ones(1).double()
        >>> data.local(Perturbed(one[:, None] / 2, one, one, 0 * one, torch.zeros(1, 1).double())).mean.item()
        0.5
    """

    def __init__(self, exact: ExactField, count: int) -> None:
        self.count = count
        self._exact = exact
        self._size, self._dim = len(exact._support), math.prod(exact.shape)
        self._labels = exact._support.labels
        blocks = [self._data(part) for part in self._tiles(1)]
        self._centre = torch.stack([block.sum(0) for block in blocks]).sum(0) / self._size
        prior = exact._support.log_prior
        self._log_prior = self._centre.new_zeros(self._size) if prior is None else prior.detach().double()

    def _data(self, index: Tensor | slice) -> Tensor:
        """Some of the data as float64 rows, a copy."""
        if isinstance(index, slice):
            index = torch.arange(index.start, index.stop)
        return self._exact.take(index).flatten(1).to(torch.float64, copy=True)

    def _tiles(self, rows: int) -> Iterator[slice]:
        """Consecutive parts of the data of which ``rows`` rows of scores, and the data themselves, fit the memory."""
        step = max(_LEAST_DATA, _TILE_BYTES // (8 * max(1, rows, self._dim)))
        for start in range(0, self._size, step):
            yield slice(start, min(start + step, self._size))

    def local(self, query: Perturbed, cond: Tensor | None = None) -> Local:
        """Local means; differentiable in the query, with the nearest data held fixed.

        Args:
            query: Where, B rows.
            cond: None, labels ``(B,)`` (-1 for all data) or a log-prior ``(B, N)`` of each row.
        """
        if cond is None or len(cond) == 0:
            return self._local(query, self._log_prior[None])
        if cond.is_floating_point():
            return self._local(query, cond.detach().double())
        found, order = [], []
        for label in torch.unique(cond):  # rows of one label see the same data
            rows = torch.nonzero(cond == label).flatten()
            hidden = (self._labels != label) & (label >= 0)
            found.append(self._local(query.rows(rows), self._log_prior.masked_fill(hidden, -torch.inf)[None]))
            order.append(rows)
        back = torch.argsort(torch.cat(order))
        return Local(*(torch.cat([getattr(part, name) for part in found])[back] for name in _PARTS))

    def _local(self, query: Perturbed, log_prior: Tensor) -> Local:
        """Local means, block by block of rows; ``log_prior`` ``(B, N)``, or ``(1, N)`` for all rows, is -inf for data
        that a row does not see."""
        own = self._size if len(log_prior) > 1 else 0
        size = max(1, _TILE_BYTES // (8 * max(own, len(query.offsets) * max(_LEAST_DATA, self._dim))))
        parts = []
        for start in range(0, max(1, len(query.x)), size):
            part = slice(start, start + size)
            parts.append(self._block(query.rows(part), log_prior if len(log_prior) == 1 else log_prior[part]))
        return Local(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _block(self, query: Perturbed, log_prior: Tensor) -> list[Tensor]:
        """Mean, spread and bound of a few rows, averaged over their perturbations."""
        rows, draws = len(query.x), len(query.offsets)
        index = self._search(query, log_prior)
        prior = log_prior - log_prior.amax(1, keepdim=True)
        total = prior.exp().sum(1).expand(rows).repeat_interleave(draws)
        kept = prior[:, None].expand(rows, draws, -1).gather(2, index).flatten(0, 1)
        points = (query.x[:, None] + query.width[:, None, None] * query.offsets).flatten(0, 1)
        alpha, sigma = (part.repeat_interleave(draws) for part in (query.alpha, query.sigma))
        pairs = (points, alpha, sigma, index.flatten(0, 1), kept, total)
        size = max(1, _TILE_BYTES // (8 * self.count * self._dim))
        blocks = zip(*(part.split(size) for part in pairs), strict=True)
        columns = zip(*(self._weigh(*block) for block in blocks), strict=True)
        return [torch.cat(column).unflatten(0, (rows, draws)).mean(1) for column in columns]

    @torch.no_grad()
    def _search(self, query: Perturbed, log_prior: Tensor) -> Tensor:
        """Rows of the nearest admitted data of every perturbed point, shape ``(B, M, k)``."""
        rows, draws = len(query.x), len(query.offsets)
        alpha, width = query.alpha.detach(), query.width.detach()
        x = query.x.detach() - alpha[:, None] * self._centre
        best = x.new_empty(rows, draws, 0)
        index = torch.empty(rows, draws, 0, dtype=torch.int64, device=x.device)
        for part in self._tiles(rows * draws):
            block = self._data(part).sub_(self._centre)
            own = x @ block.T - 0.5 * alpha[:, None] * block.square().sum(1)
            own = own.masked_fill(log_prior[:, part] == -torch.inf, -torch.inf)
            scores = own[:, None] + width[:, None, None] * (query.offsets @ block.T)
            values, columns = scores.topk(min(self.count, len(block)), dim=2)
            best, index = torch.cat([best, values], 2), torch.cat([index, columns + part.start], 2)
            if best.shape[2] > self.count:
                best, chosen = best.topk(self.count, dim=2)
                index = index.gather(2, chosen)
        return index

    def _weigh(
        self, points: Tensor, alpha: Tensor, sigma: Tensor, index: Tensor, prior: Tensor, total: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, spread and bound at points ``(p, d)`` given their nearest data, best first, and those data's priors."""
        first = self._data(index[:, 0])
        beyond = self._data(index.flatten()).unflatten(0, index.shape).sub_(first[:, None])
        squares = torch.linalg.vector_norm(beyond, dim=2).square()
        along = (beyond @ (points - alpha[:, None] * first)[:, :, None])[:, :, 0]
        sigma = sigma.masked_fill(sigma == 0, 1e-30)
        # relative to the nearest datum and from differences of data: exact where a point rests on it
        falls = (alpha / sigma.square())[:, None] * (along - 0.5 * alpha[:, None] * squares)
        # where a condition admits fewer than k data, others fill the places, without weight
        exponents = falls + prior
        weights = torch.softmax(exponents, 1)
        offset = (weights[:, None] @ beyond)[:, 0]
        spread = ((weights * squares).sum(1) - offset.square().sum(1)).clamp_min(0.0)
        left = (total - prior.exp().sum(1)).clamp_min(0.0) if index.shape[1] < self._size else 0 * total
        furthest = falls.masked_fill(prior == -torch.inf, 0.0).amin(1)
        omitted = torch.sigmoid(left.log() + furthest - torch.logsumexp(exponents, 1))
        return first + offset, spread, omitted
