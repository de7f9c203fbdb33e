r"""Which points can matter to which rows, from approximate affinities.

With :math:`|\tilde a_i - a_i| \le \delta` (:mod:`~fluvial.smoothing.affinities`) every point outside of

.. math:: C = \{ i : \tilde a_i \ge \max_j \tilde a_j - 2 \delta - \tfrac{\sigma^2}{\alpha} \Gamma \}

has :math:`\ell_i < \ell_\text{top} - \Gamma`: with ``j`` the maximiser, :math:`a_i \le \tilde a_i + \delta < \tilde
a_j - \delta - \tfrac{\sigma^2}{\alpha} \Gamma \le a_j - \tfrac{\sigma^2}{\alpha} \Gamma`. So all of them together
weigh less than :math:`\omega = N e^{-\Gamma}` of the top, and leaving them out moves the mean by at most
:math:`\omega` times the data's diameter :math:`2 \rho`.

``tol`` is the largest error of the predicted noise :math:`(x - \alpha m) / \sigma`, relative to the noise's usual
norm :math:`\sqrt d`, so the weight left out may be :math:`\omega = \mathrm{tol} \sqrt d \, \sigma / (2 \rho \alpha)`.

Where many points come close, the sum of the approximate weights says more than their number: every :math:`i` has
:math:`e^{\ell_i - \ell_\text{top}} \le e^{2 \delta'} e^{(\alpha / \sigma^2)(\tilde a_i - \max_j \tilde a_j)}` with
:math:`\delta' = (\alpha / \sigma^2) \delta`, so points may be left out as long as the right sides add up to less than
:math:`\omega`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fluvial.smoothing.affinities import GROUP, Affinities, Precision
from fluvial.smoothing.logits import unit_roundoff
from fluvial.smoothing.query import Effort, Query
from fluvial.smoothing.support import Support

MOST = 64
"""A row with more candidates than this is not evaluated pair by pair."""

_LOWEST = -80.0
_LARGEST_GAIN = 1e30
_PASS = 2**19  # numbers of an elementwise pass, whose temporaries stay in the cache
NARROWER = (8.0, 6.5, 5.0)
"""By how many nats the margin is narrowed, where the sum allows for it."""


@dataclass(frozen=True)
class Candidates:
    """Pairs of a row and a point that can matter to it, ordered by row.

    Args:
        rows: Shape ``(P,)``.
        points: Shape ``(P,)``.
        omitted: Bound on the weight of all other points relative to the top one, per row, ``(B,)``.
        few: Whether a row has few enough candidates; the pairs of other rows are not listed.
    """

    rows: Tensor
    points: Tensor
    omitted: Tensor
    few: Tensor


def allowance(support: Support, query: Query, effort: Effort) -> Tensor:
    """Weight relative to the top one that may be left out at each row, float64 ``(B,)``; at most 1."""
    tolerance = max(effort.tol, unit_roundoff(query.x.dtype) / 8)
    share = query.sigma / query.alpha * tolerance * math.sqrt(support.dim) / (2 * support.reach)
    return share.nan_to_num(1.0).clamp_max(1.0)


def candidates(support: Support, query: Query, effort: Effort, precision: Precision) -> Candidates:
    """The points that can matter at every row.

    They are searched chunk by chunk, against the best affinity so far; what stays is searched again in the end.
    """
    allowed = allowance(support, query, effort)
    search = _Search(query, torch.log(len(support) / allowed))
    affinities = Affinities(support, query, precision)
    chunk = max(4096, effort.memory // (8 * query.x.element_size() * max(1, len(query.x))))
    for low in range(0, len(support), chunk):
        search.add(*affinities(slice(low, min(low + chunk, len(support)))), low)
    return search.result(allowed)


class _Search:
    """Pairs whose affinity comes close enough to the best of its row."""

    def __init__(self, query: Query, margin: Tensor) -> None:
        self._margin = margin * query.sigma.square() / query.alpha
        self._best = query.x.new_full((len(query.x),), -torch.inf)
        self._few = torch.ones(len(query.x), dtype=torch.bool, device=query.x.device)
        self._threshold = self._best
        self._found: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, affinities: Tensor, error: Tensor, start: int) -> None:
        """Search a chunk of points, padded to whole groups with minus infinity, from point ``start`` on."""
        grouped = affinities.view(len(affinities), -1, GROUP)
        maxima = grouped.amax(2)
        self._best = torch.maximum(self._best, maxima.amax(1))
        width = (2 * error + self._margin) * (1 + 1e-6)
        threshold = (self._best.double() - width).to(affinities.dtype)
        self._threshold = torch.nextafter(threshold, torch.full_like(threshold, -torch.inf))
        least = self._threshold.clamp_min(torch.finfo(affinities.dtype).min)  # excluded points are no candidates
        hot = maxima >= least[:, None]
        self._few &= hot.sum(1) <= MOST
        row, group = torch.nonzero(hot & self._few[:, None]).unbind(1)
        close = grouped[row, group]
        pair, column = torch.nonzero(close >= least[row, None]).unbind(1)
        self._found.append((row[pair], start + group[pair] * GROUP + column, close[pair, column]))

    def result(self, omitted: Tensor) -> Candidates:
        """The pairs that stay, ordered by row."""
        row, point, affinity = (torch.cat(part) for part in zip(*self._found, strict=True))
        stay = affinity >= self._threshold[row]
        row, point = row[stay], point[stay]
        counts = torch.bincount(row, minlength=len(self._few))
        few = self._few & (counts > 0) & (counts <= MOST) & torch.isfinite(self._threshold)
        stay = few[row]
        row, point = row[stay], point[stay]
        order = torch.argsort(row, stable=True) if len(self._found) > 1 else slice(None)
        return Candidates(row[order], point[order], omitted, few)


def close_points(support: Support, query: Query, effort: Effort, precision: Precision) -> Tensor:
    """Whether a point can matter at a row, bool ``(B, N)``; see the module's docstring on sums."""
    affinities, error = Affinities(support, query, precision)(slice(0, len(support)))
    affinities = affinities[:, : len(support)]
    best = affinities.amax(1, keepdim=True)
    # Below e^-80 nothing counts, and denormal numbers are slow.
    gain = query.gain.clamp_max(_LARGEST_GAIN)[:, None].to(affinities.dtype)  # less than it is lets more points pass
    allowed = allowance(support, query, effort)
    slack = 2 * error * query.gain * (1 + 1e-6) + 1e-3  # the last for the arithmetic of this function
    cut = torch.log(len(support) / allowed) + slack
    step = max(64, _PASS // max(1, len(cut)))
    for weights in affinities.split(step, 1):
        weights.sub_(best).mul_(gain).clamp_(min=_LOWEST).exp_()
    left = torch.arange(len(cut), device=cut.device)
    for narrower in NARROWER:
        rows = affinities if len(left) == len(affinities) else affinities[left]
        tried = (cut[left] - narrower).clamp_min(0.0)
        most = torch.exp(-tried)[:, None].to(rows.dtype)
        outside = sum(torch.where(part < most, part, 0.0).sum(1).double() for part in rows.split(step, 1))
        enough = outside * torch.exp(slack[left]) <= allowed[left]
        cut[left[enough]] = tried[enough]
        left = left[~enough]
        if not len(left):
            break
    return torch.logical_not(affinities < torch.exp(-cut)[:, None].to(affinities.dtype))  # true where not known
