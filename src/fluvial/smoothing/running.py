r"""Rows that are evaluated again and again while they move little, over pixels: their exponents and means in int8.

**Exponents.** A step of a walk takes a state to :math:`x' = a x + c \Delta + r`, with :math:`\Delta` its last move and
a small rest ``r``. So the inner products of ``x'`` with all points follow from those of ``x`` and of :math:`\Delta`,
and from those of the rest alone, for which one digit of 7 bits is mostly enough: an exact product in int8, in a quarter
of the time of one in float32. What the digits leave out is in the next rest, so it does not add up.

**Means** are products in int8 too. The weights of all points but the top one are taken in units of a small part of the
second largest, as whole numbers. Fractions are rounded up at points spread so evenly that their sum stays, and many
small weights count for what they weigh together; there are as many digits as bring the error down to that of float32.
"""

import math

import torch
from torch import Tensor

from fluvial.smoothing.logits import product_error, rounding_bound, tilt, unit_roundoff
from fluvial.smoothing.products import MOST_SUMMANDS, Digits, takes_int8
from fluvial.smoothing.query import Effort, Moments, Query, Way, nothing
from fluvial.smoothing.rounding import settled
from fluvial.smoothing.support import DIGITS_BYTES, Support

# Below so many dimensions, or numbers in the support, it does not pay: for one group of rows, and for more, of which
# torch's products are faster.
_LEAST_DIMENSIONS = 512
_WORTH_FOLLOWING = (2**22, 2**25)
# Numbers of each row in an elementwise pass: temporaries stay in the cache.
_PASS = 2**12
# Rows that are followed together.
_ROWS = 64
# Kept of a row for each point (two kinds of products, the exponent, a copy of one when rows are forgotten) and for each
# dimension (state and move); and what a dimension takes besides of those that are worked on.
_BYTES_PER_NUMBER = 16
_BYTES_AT_WORK = 96
_ROUNDOFF = unit_roundoff(torch.float32)
# Usual error of the velocity from whole weights, relative to the noise's norm; against float64 a walk is then as
# accurate as one in float32.
_TOLERANCE = 2e-6
_MOST_DIGITS = 4
# Largest first digit of a whole number, which rounding may then still increase.
_LARGEST = 126
# Usual error of a number that is rounded to a whole one.
_USUAL = 0.3
# Below this share of points with a weight, they are picked out of a tile.
_FEW = 0.5
# A state and a move that are closer to parallel than this would cancel one another.
_LEAST_SINE = 0.03
_BELOW_ONE = 1 - 2.0**-24
_GOLDEN = 0.6180339887498949


def rows_to_follow(support: Support, rows: int, dtype: torch.dtype, effort: Effort) -> list[Tensor]:
    """Which rows of a walk are followed together rather than evaluated anew: those that fit the memory, if it pays."""
    suits = support.pixels and dtype == torch.float32 and takes_int8(support.dim, support.device.type)
    size = _WORTH_FOLLOWING[rows > _ROWS]
    if not suits or support.dim < _LEAST_DIMENSIONS or len(support) * support.dim < size:
        return []
    kept = _BYTES_PER_NUMBER * (len(support) + support.dim)  # of a row
    most = (effort.memory - _ROWS * _BYTES_AT_WORK * support.dim) // kept
    return list(torch.arange(max(0, min(rows, most)), device=support.device).split(_ROWS)) if most > 0 else []


class RunningRows:
    """Rows whose inner products with all points are kept up to date.

    Args:
        support: The points, pixels.
        rows: Numbers of the rows, ``(R,)``, in ascending order; a few dozen, so that what is made of them stays in the
            cache.

    Attributes:
        rows: Those that are not forgotten.
    """

    def __init__(self, support: Support, rows: Tensor) -> None:
        count, device = len(rows), support.device
        self._support = support
        self.rows = rows
        # What the products are known of, and how it moved last; the products, and bounds on their errors.
        self._state, self._move = torch.zeros(2, count, support.dim, dtype=torch.float64, device=device)
        self._products, self._moved = torch.zeros(2, count, len(support), dtype=torch.float32, device=device)
        self._error, self._move_error = torch.zeros(2, count, dtype=torch.float64, device=device)
        self._exponents = torch.empty(count, len(support), dtype=torch.float32, device=device)
        self._calls = 0

    def moments(self, rows: Tensor, query: Query) -> tuple[Moments, Tensor]:
        """Softmax sums of the rows that these settle, and which ones they are, bool ``(R,)``.

        Rows that are not asked for are forgotten, and may not be asked for again.

        Args:
            rows: Which of ``rows``, in ascending order.
            query: Where they are, in the support's values.
        """
        self._keep(rows)
        if not len(rows):
            return nothing(query), torch.ones_like(rows, dtype=torch.bool)
        slack = self._follow(query)
        found = self._weigh(query, slack)
        sound = settled(self._support, query, found, Way.PRODUCT)
        return found.rows(sound), sound

    def _keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        if len(rows) == len(self.rows):
            return
        stay = torch.isin(self.rows, rows)
        for name in ("rows", "_state", "_move", "_products", "_moved", "_error", "_move_error"):
            setattr(self, name, getattr(self, name)[stay])
        self._exponents = self._exponents[: len(rows)]

    def _follow(self, query: Query) -> Tensor:
        """Bring products and exponents of all points up to date; returns a bound on the exponents' errors, ``(R,)``."""
        support, x = self._support, query.precise(self._support)
        self._restart(x)
        keep, repeat, digits = self._step(x)
        radius, size, moved = support.radius, _norms(self._state), _norms(self._move)
        self._move.mul_(repeat[:, None]).add_(digits.rounded)
        self._state.mul_(keep[:, None]).add_(self._move)
        columns = (keep, repeat, -0.5 * query.alpha, query.gain)
        a, c, half, gain = (column[:, None].float() for column in columns)
        for part, values in support.tiles(0, len(support), torch.int8, DIGITS_BYTES):
            move = self._moved[:, part].mul_(c).add_(digits.inner(values))
            products = torch.addcmul(move, self._products[:, part], a, out=self._products[:, part])
            norms, exponents = support.squared_norms[None, part].float(), self._exponents[:, part]
            tilt(torch.addcmul(products, half, norms, out=exponents).mul_(gain), support, query, part)
        # Each factor, digit, product and sum is rounded once: less than eight times here, and four below.
        terms = repeat.abs() * moved + _norms(digits.rounded)
        self._move_error = repeat.abs() * self._move_error + 8 * _ROUNDOFF * radius * terms
        terms = keep.abs() * size + _norms(self._move)
        self._error = keep.abs() * self._error + self._move_error + 4 * _ROUNDOFF * radius * terms
        error: Tensor = query.gain * (_norms(x - self._state) * support.reach + self._error)
        return error + 8 * product_error(query, support, torch.float32)

    def _restart(self, x: Tensor) -> None:
        """Have rows whose errors have added up to half of what a product in float32 may have begin anew."""
        limit = 0.5 * rounding_bound(self._support.dim) * _ROUNDOFF * _norms(x) * self._support.radius
        stale = torch.nonzero(self._error + self._move_error > limit).flatten()
        for part in (self._state, self._move, self._products, self._moved, self._error, self._move_error):
            part[stale] = 0.0

    def _step(self, x: Tensor) -> tuple[Tensor, Tensor, Digits]:
        """How much of the last state and of the last move is in new states, ``(R,)`` both, and the rest."""
        state, move = self._state, self._move
        square, cross, last = (state * state).sum(1), (state * move).sum(1), (move * move).sum(1)
        along, beside = (x * state).sum(1), (x * move).sum(1)
        determinant = square * last - cross.square()
        both = determinant > _LEAST_SINE**2 * square * last
        safe = determinant.where(both, 1.0)
        keep = torch.where(both, (along * last - beside * cross) / safe, along / square.where(square > 0, 1.0))
        repeat = torch.where(both, (beside * square - along * cross) / safe, 0.0)
        rest = x - keep[:, None] * state - repeat[:, None] * move
        # As large as the usual error of products in float32.
        allowed = _ROUNDOFF * _norms(x)
        return keep, repeat, Digits(rest, _digits(_USUAL * rest.abs().amax(1) / (127 * allowed), 128))

    def _weigh(self, query: Query, slack: Tensor) -> Moments:
        """Moments from the exponents, which are turned into weights relative to the top one."""
        support, weights = self._support, self._exponents
        top, index = weights.max(1)
        floor = torch.where(top == -torch.inf, 0.0, top)
        weights.scatter_(1, index[:, None], -torch.inf)
        negligible = _ROUNDOFF / (8 * len(support))  # of all such weights together: an eighth of a rounding
        runner_up, mass, power = torch.full_like(top, -torch.inf), torch.zeros_like(top), torch.zeros_like(top)
        for low in range(0, len(support), _PASS):
            part = weights[:, low : low + _PASS].sub_(floor[:, None])
            runner_up = torch.maximum(runner_up, part.amax(1))
            torch.threshold_(part.clamp_(min=-80.0).exp_(), negligible, 0.0)
            mass += part.sum(1)
            power += part @ support.squared_norms[low : low + _PASS].float()
        runner_up, normaliser = runner_up.double(), 1 + mass.double()
        second = runner_up.exp().clamp_min(negligible)
        offset = self._offset(query, index, second, normaliser)
        power = (power.double() + support.squared_norms[index]) / normaliser
        omitted = negligible * len(support) * torch.exp(torch.clamp(2 * slack, max=50.0))
        top, way = top.double(), torch.full_like(index, int(Way.PRODUCT))
        return Moments(index, offset, normaliser, top, way, top, top, top, runner_up, power, slack, omitted)

    def _offset(self, query: Query, index: Tensor, second: Tensor, normaliser: Tensor) -> Tensor:
        """Weighted mean less the top point, from the weights, of which ``second`` is the largest but for the top."""
        support = self._support
        # Of the velocity, relative to the noise's norm, were the second point's whole number 1.
        usual = _USUAL * second / normaliser * math.sqrt(len(support) / support.dim) * support.reach
        usual = usual * (support.unit + query.alpha / query.sigma)
        digits = _digits(usual / (_LARGEST * _TOLERANCE), 256)
        units = _LARGEST * 256.0 ** (digits - 1) / second
        sums, scale = WholeSums(digits, support.dim), units[:, None].float()
        self._calls += 1
        for part, values in support.tiles(0, len(support), torch.int8, DIGITS_BYTES):
            # Evenly spread over the points, and others in the next call.
            number = torch.arange(part.start, part.stop, dtype=torch.float64, device=support.device)
            thresholds = torch.frac(_GOLDEN * number + math.sqrt(2) * self._calls).float().clamp_(max=_BELOW_ONE)
            whole = torch.addcmul(thresholds, self._exponents[:, part], scale).to(torch.int32)
            sums.add(whole, values)
        moved = sums.total - sums.count[:, None] * support.values(index, torch.float64)
        return moved.div_((units * normaliser)[:, None]).float()


class WholeSums:
    """Exact sums of int8 rows, weighted by whole numbers.

    Args:
        digits: How many digits in base 256 hold the weights of each sum, ``(R,)``; up to 4.
        dim: Columns.

    Attributes:
        count: Sums of the weights, float64 ``(R,)``.

    Example:
        >>> sums = WholeSums(torch.tensor([2, 1]), 2)
        >>> sums.add(torch.tensor([[1000, 1], [0, 3]]).int(), torch.tensor([[1, 2], [3, 4]], dtype=torch.int8))
        >>> sums.total.tolist(), sums.count.tolist()
        ([[1003.0, 2004.0], [9.0, 12.0]], [1001.0, 3.0])
    """

    def __init__(self, digits: Tensor, dim: int) -> None:
        self._rows = [torch.nonzero(digits > place).flatten() for place in range(int(digits.max()))]
        self._sums = torch.zeros(int(digits.sum()), dim, dtype=torch.int32, device=digits.device)
        self._summands = 0
        self._total = torch.zeros(len(digits), dim, dtype=torch.float64, device=digits.device)
        self.count = torch.zeros(len(digits), dtype=torch.float64, device=digits.device)

    def add(self, weights: Tensor, values: Tensor) -> None:
        """Add rows ``(n, dim)``, int8.

        Args:
            weights: Shape ``(R, n)``, int32, from 0 to ``127 * 256**(digits - 1)``; used up.
            values: The rows; fewer than ``MOST_SUMMANDS``.
        """
        self.count += weights.sum(1)
        active = torch.nonzero(weights.amax(0)).flatten()
        if len(active) < _FEW * len(values):
            weights, values = weights[:, active], values[active]
        if not len(active):
            return
        if self._summands + len(values) >= MOST_SUMMANDS:
            self._flush()
        self._summands += len(values)
        digits = []
        for rows in self._rows:  # from -128 to 127, the last place first
            digit = (weights & 255).to(torch.uint8).view(torch.int8)
            digits.append(digit if len(rows) == len(digit) else digit[rows])
            weights = weights.add_(128).bitwise_right_shift_(8)
        self._sums += torch._int_mm(torch.cat(digits), values)

    @property
    def total(self) -> Tensor:
        """The sums, float64 ``(R, dim)``."""
        self._flush()
        return self._total

    def _flush(self) -> None:
        parts = self._sums.split([len(rows) for rows in self._rows])
        for place, (rows, sums) in enumerate(zip(self._rows, parts, strict=True)):
            self._total.index_add_(0, rows, sums.double(), alpha=256**place)
        self._sums.zero_()
        self._summands = 0


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _digits(excess: Tensor, base: int) -> Tensor:
    """How many digits take an error, with one digit this many times what is allowed, to what is allowed, ``(R,)``."""
    worst = excess.nan_to_num(1.0, 1.0, 1.0).clamp_min(1.0)
    return (1 + torch.ceil(torch.log(worst) / math.log(base))).clamp_max(_MOST_DIGITS).long()
