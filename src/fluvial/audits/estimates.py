"""Means over independent data, and differences of two, with 95 % intervals."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

LEVEL = 0.95
"""Share of intervals that hold the truth."""


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, with its 95 % interval.

    Args:
        value: The figure.
        low: Lower end; None where one datum alone tells nothing of the spread.
        high: Upper end.

    Example:
        >>> Estimate.mean(torch.tensor([1.0, 2.0, 3.0])).text()
        '2.00 [-0.48, 4.48]'
    """

    value: float
    low: float | None
    high: float | None

    @classmethod
    def mean(cls, values: Float[Tensor, " n"]) -> "Estimate":
        """The mean over data drawn independently, with Student's interval."""
        return cls._of(float(values.mean()), *_squared_error(values))

    @classmethod
    def difference(cls, a: Float[Tensor, " n"], b: Float[Tensor, " m"]) -> "Estimate":
        """The difference of the means of two independent sets.

        Source: Welch 1947, "The generalization of 'Student's' problem when several different population variances are
        involved".
        """
        (first, free), (second, others) = _squared_error(a), _squared_error(b)
        square = first + second
        defined = free and others
        freedom = square**2 / (first**2 / free + second**2 / others) if defined and square else float(free + others)
        return cls._of(float(a.mean() - b.mean()), square, freedom if defined else 0.0)

    @classmethod
    def _of(cls, value: float, square: float, freedom: float) -> "Estimate":
        if not freedom:
            return cls(value, None, None)
        reach = float(student.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(square)
        return cls(value, value - reach, value + reach)

    def text(self, digits: int = 2) -> str:
        """The figure and its interval."""
        known = self.low is not None and self.high is not None
        return f"{self.value:.{digits}f}" + (f" [{self.low:.{digits}f}, {self.high:.{digits}f}]" if known else "")


def _squared_error(values: Tensor) -> tuple[float, float]:
    """Squared standard error of a mean, and its degrees of freedom."""
    freedom = len(values) - 1
    return (float(values.double().var()) / len(values), float(freedom)) if freedom else (0.0, 0.0)
