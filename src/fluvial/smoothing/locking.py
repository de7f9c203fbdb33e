r"""Rows whose posterior rests on one point, and the proof that it still does after they have moved.

**The odds against the top point never grow once it holds half of the weight.** With :math:`y = x/\alpha` and
:math:`\tau = -\ln h` every Gaussian path obeys :math:`dy/d\tau = m - y`. Let all priors be equal, ``k`` hold the
weight :math:`w_k \ge 1/2`, :math:`p = 1 - w_k`, and :math:`g_i = (\|y - s_i\|^2 - \|y - s_k\|^2) / 2h^2 \ge 0`, so
that :math:`w_i = w_k e^{-g_i}` and the odds against ``k`` are :math:`\sum_{i \ne k} e^{-g_i}`. Along the flow

.. math:: \frac{dg_i}{d\tau} = g_i + \frac{\|m - s_i\|^2 - \|m - s_k\|^2}{2 h^2},

hence :math:`w_k` times the derivative of the odds is :math:`-\sum_{i \ne k} w_i g_i - (2h^2)^{-1} \big(\sum_{i \ne k}
w_i \|m - s_i\|^2 - p \|m - s_k\|^2\big)`. With :math:`\Delta` the distance of ``s_k`` from the mean of the others,
:math:`\|m - s_k\| = p \Delta` and, leaving out the spread of the others about their mean, :math:`\sum_{i \ne k} w_i
\|m - s_i\|^2 \ge p w_k^2 \Delta^2`. So the bracket is at least :math:`p \Delta^2 (w_k^2 - p^2) \ge 0`, and the odds
do not grow: such a row ends on ``s_k``. Single gaps may shrink. With unequal priors it is false: their part of a gap
does not grow with time, and a point with a large prior loses to the nearest one in the end.

**A certificate that holds for any scheme.** A solver takes finite steps, so a row's state is checked rather than the
theorem invoked. Let :math:`e = x - \alpha s_k`. The gap of the kernels alone is

.. math:: g_i = \frac{\alpha}{\sigma^2} \langle e, s_k - s_i \rangle + \frac{\alpha^2}{2 \sigma^2} \|s_k - s_i\|^2 .

Let a row have had gaps of at least ``G`` at :math:`e_0, \alpha_0, \sigma_0`, and split what it has become into
:math:`e = \lambda e_0 + r`. Then, with :math:`\lambda \ge 0` and :math:`z = \|s_k - s_i\|`,

.. math:: g_i \ge \frac{\alpha}{\sigma^2} \Big( \lambda \frac{\sigma_0^2}{\alpha_0} G
          + \tfrac12 (\alpha - \lambda \alpha_0) z^2 - \|r\| z \Big),

whose minimum over ``z`` is known. One pass over the row's coordinates, instead of over the data, thus proves that
every other point still weighs nothing. While ``x`` follows the straight flow to ``s_k``, ``r`` is rounding alone.

**Where only the end matters**, a row can be let go earlier. Let :math:`A_i(y) = h^2 g_i`, an affine function of
``y``. Euler's step on the straight path takes ``y`` to a convex combination of ``y``, with weight :math:`h' / h`, and
of the local mean. With :math:`\rho = \sum_{j \ne k} e^{-g_j} \|s_j - s_k\|`, which is at least
:math:`\sum_j w_j \|s_j - s_k\|`, and :math:`D_i = \|s_i - s_k\|^2`

.. math:: A_i(m) = \tfrac12 w_k D_i + \sum_{j \ne k} w_j A_i(s_j) \ge \tfrac12 D_i - \rho \sqrt{D_i},

which is not negative if the nearest neighbour of ``s_k`` is at least :math:`2 \rho` away. Then :math:`g_i' = A_i(y')
/ h'^2 \ge g_i h / h'`: every gap grows at every step, so :math:`\rho` falls, and the argument repeats. At the end,
where sigma is 0, the row lands on ``s_k``. Whatever is done meanwhile, the end is the same; the row follows its
scheme with ``s_k`` for the mean.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fluvial.smoothing.candidates import allowance
from fluvial.smoothing.logits import unit_roundoff
from fluvial.smoothing.products import inner, takes_int8
from fluvial.smoothing.query import Effort, Moments, Query
from fluvial.smoothing.support import Support


class Locks:
    """What is known of rows that rested on one point when they were last evaluated in full.

    States are known by coordinates of which they are a linear function.

    Args:
        support: The points, equal ones merged.
        query: The rows, for their labels and priors.
        effort: Tolerance: what the other points weigh is below what it, or rounding, allows.
        start: Coordinates of the first states, ``(B, K)``.
        coordinates_of: Coordinates ``(R, K)`` of the points with given indices ``(R,)``.
        length: Upper bound on the norms, in data units, of the states with given coordinates ``(B, K)``.
    """

    def __init__(
        self,
        support: Support,
        query: Query,
        effort: Effort,
        start: Tensor,
        coordinates_of: Callable[[Tensor], Tensor],
        length: Callable[[Tensor], Tensor],
    ) -> None:
        rows = len(start)
        self._support, self._query, self._effort = support, query, effort
        self._coordinates_of, self._length = coordinates_of, length
        self._lead = query.alpha.new_full((rows,), -torch.inf)
        self._alpha, self._sigma = torch.ones_like(query.alpha), torch.ones_like(query.sigma)
        self._residue, self._square = torch.zeros_like(start), torch.ones_like(query.alpha)
        self.index = torch.zeros(rows, dtype=torch.int64, device=start.device)
        self.points = torch.zeros_like(start)
        self._priors = support.log_prior if query.log_prior is None else query.log_prior
        self._lowest, self._highest = self._range_of_priors(rows, query.alpha)
        self._decided = torch.zeros(rows, dtype=torch.bool, device=start.device)
        self._separations: dict[int, float] = {}

    def hold(self, coordinates: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Whether rows are proven to rest on their point still, bool ``(B,)``.

        The points are those of ``index``, their coordinates ``points``.
        """
        support, roundoff = self._support, unit_roundoff(coordinates.dtype)
        residue = torch.addcmul(coordinates, self.points, -alpha[:, None].to(coordinates.dtype))
        share = (residue * self._residue).sum(1).double() / self._square
        rest = torch.addcmul(residue, self._residue, -share[:, None].to(coordinates.dtype))
        norm = (self._length(rest) + 4 * roundoff * self._length(coordinates)).double()
        slope, diameter = alpha - share * self._alpha, 2 * support.reach * support.unit
        rising = torch.minimum(norm.square() / (2 * slope.clamp_min(1e-300)), norm * diameter)
        falling = norm * diameter - 0.5 * slope * diameter**2
        drop = torch.where(slope > 0, rising, falling)
        gain = alpha / sigma.square()
        gap = gain * (share * self._sigma.square() * self._lead / self._alpha - drop)
        question = replace(self._query, alpha=alpha, sigma=sigma / support.unit)
        margin = torch.log(len(support) / allowance(support, question, self._effort))
        proven = (share >= 0) & (gap - (self._highest - self._prior_of(self.index)) >= margin)
        return proven | self._decided

    def renew(
        self, rows: Tensor, coordinates: Tensor, alpha: Tensor, sigma: Tensor, index: Tensor, lead: Tensor
    ) -> None:
        """Remember rows that have been evaluated in full.

        Args:
            rows: Which ones, ``(R,)``.
            coordinates: Their coordinates, ``(R, K)``.
            alpha: Weight of the datum there, ``(R,)``.
            sigma: Weight of the noise there, ``(R,)``.
            index: Their top points, ``(R,)``.
            lead: By how much the top exponent is at least ahead of all others, priors included, ``(R,)``.
        """
        lead = lead - (self._prior_of(index, rows) - self._lowest[rows])
        known = torch.nonzero((lead > 1) & (alpha > 0)).flatten()
        if not len(known):
            return
        rows, alpha, index = rows[known], alpha[known], index[known]
        points = self._coordinates_of(index)
        residue = coordinates[known] - alpha[:, None].to(coordinates.dtype) * points
        self._lead[rows], self._alpha[rows], self._sigma[rows] = lead[known], alpha, sigma[known]
        self.index[rows], self.points[rows], self._residue[rows] = index, points, residue
        self._square[rows] = residue.double().square().sum(1).clamp_min(1e-300)

    def decide(self, rows: Tensor, found: Moments) -> None:
        """Let rows rest on their top point for good where it is proven that they end on it; see the module's docstring.

        Only for equal priors, Euler's steps on the straight path down to sigma = 0, and where the end alone matters.

        Args:
            rows: Which ones, ``(R,)``, just evaluated in full.
            found: Their moments.
        """
        against = (found.normaliser - 1 + found.omitted) * torch.exp(2 * found.slack)
        distance = 2 * self._support.reach * against  # of the others from the top point, by their weights
        near = torch.nonzero((against < 0.5) & (4 * distance < self._support.reach)).flatten()
        if not len(near):
            return
        self._measure(found.top_index[near])
        separation = [self._separations[k] for k in found.top_index[near].tolist()]
        apart = torch.tensor(separation, dtype=torch.float64, device=rows.device)
        sure = near[apart >= 2 * distance[near]]
        self._decided[rows[sure]] = True
        self.index[rows[sure]] = found.top_index[sure]
        self.points[rows[sure]] = self._coordinates_of(found.top_index[sure])

    def _measure(self, index: Tensor) -> None:
        """Distances of points from their nearest neighbours, in the support's values, from below."""
        new = [k for k in torch.unique(index).tolist() if k not in self._separations]
        if not new:
            return
        support, which = self._support, torch.tensor(new, device=index.device)
        whole = support.pixels and takes_int8(support.dim, index.device.type)
        dtype = torch.int8 if whole else torch.float32
        values, norms = support.values(which, dtype), support.squared_norms
        nearest = torch.full((len(new),), torch.inf, dtype=torch.float64, device=index.device)
        for part, others in support.tiles(0, len(support), dtype):
            products = torch._int_mm(values, others.T) if whole else inner(values, others)
            squares = norms[which][:, None] + norms[part] - 2 * products.double()
            squares[torch.arange(part.start, part.stop, device=index.device) == which[:, None]] = torch.inf
            nearest = torch.minimum(nearest, squares.amin(1))
        rounding = 4 * (support.dim + 8) * unit_roundoff(torch.float32) * support.radius**2
        for k, square in zip(new, nearest.tolist(), strict=True):
            self._separations[k] = max(0.0, square - rounding) ** 0.5

    def _prior_of(self, index: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        if self._priors is None:
            return torch.zeros(len(index), dtype=torch.float64, device=index.device)
        priors = self._priors[rows].gather(1, index[:, None])[:, 0] if self._priors.ndim == 2 else self._priors[index]
        return priors.double()

    def _range_of_priors(self, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest finite and highest log-prior of each row, float64 ``(B,)``; excluded points never matter."""
        if self._priors is None:
            return like.new_zeros(rows), like.new_zeros(rows)
        finite = self._priors.masked_fill(self._priors == -torch.inf, torch.inf)
        lowest, highest = finite.amin(-1).double(), self._priors.amax(-1).double()
        return lowest.expand(rows), highest.expand(rows)
