r"""A field as a solver asks it: at one time for the whole batch, under one condition, counting.

Where a field is singular at the end (sigma = 0), the solver lands on the posterior mean :math:`m`. In the
coordinates :math:`y = x/\alpha`, :math:`h = \sigma/\alpha` every path obeys :math:`dy/dh = (y - m)/h`; one
Euler step in ``h`` is

.. math:: x_s = \alpha_s m + \frac{\sigma_s}{\sigma_t} (x_t - \alpha_t m),

which at :math:`s = 1` is :math:`m` itself, and for CondOT is the Euler step in time.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fluvial.fields.base import Course, Field, singular_at_end
from fluvial.paths import GaussianPath


class Velocity:
    """A field with its condition, and the number of times that it was evaluated.

    Args:
        field: The field.
        cond: Passed to the field as it is; ``None`` is not passed.

    Attributes:
        course: The field's own way along the trajectory, evaluated instead where it is set.
        path: The path of a field that is singular at its end, to land on; None for other fields.
        evaluations: Number of evaluations so far.

    Raises:
        ValueError: If the field is singular at its end and has no ``path``.
    """

    def __init__(self, field: Field, cond: Any) -> None:
        self.evaluations = 0
        self.path: GaussianPath | None = None
        self._field = field
        self.cond = cond
        self.course: Course | None = None
        if singular_at_end(field):
            path = getattr(field, "path", None)
            if not isinstance(path, GaussianPath):
                raise ValueError(f"field: singular_at_end needs a GaussianPath as .path, got {path!r}")
            self.path = path

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        """Velocity of the batch ``x`` at time ``t``, a number or a scalar tensor of x's type.

        Raises:
            ValueError: If the field returns something else than a tensor of x's shape.
        """
        self.evaluations += 1
        rows = x.shape[:1]
        times = t.expand(rows) if isinstance(t, Tensor) else x.new_full(rows, t)
        if self.course is not None:
            return self.course(x, times)
        v = self._field(x, times) if self.cond is None else self._field(x, times, self.cond)
        if not isinstance(v, Tensor) or v.shape != x.shape:
            given = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            raise ValueError(f"field must return a tensor of the shape of x, {tuple(x.shape)}, got {given}")
        return v if v.dtype == x.dtype else v.to(x.dtype)


def land(velocity: Velocity, path: GaussianPath, x: Tensor, t: float, targets: Sequence[float]) -> list[Tensor]:
    """States at later times, from one evaluation at ``t``, if the posterior mean stays what it is there.

    Args:
        velocity: The field, singular at its end.
        path: The path of the field.
        x: States at ``t``, shape ``(B, *D)``.
        t: A time before the end.
        targets: Times from ``t`` to 1.
    """
    now = x.new_tensor(t)
    mean = path.convert(velocity(x, now), x, now, source="velocity", target="denoiser")
    noise = (x - path.alpha(now) * mean) / path.sigma(now)
    times = [x.new_tensor(target) for target in targets]
    return [path.alpha(s) * mean + path.sigma(s) * noise for s in times]


def share_not_finite(x: Tensor) -> str | None:
    """Rows with a value that is not finite, as in ``"3 of 8 rows (37.5 %)"``; None if there are none.

    Example:
        >>> share_not_finite(torch.tensor([[0.0, torch.nan], [1.0, 2.0]]))
        '1 of 2 rows (50 %)'
    """
    if math.isfinite(float(x.detach().sum())):  # any value that is not finite would show
        return None
    finite = torch.isfinite(x)
    return None if bool(finite.all()) else share_of_rows(~finite.reshape(len(x), -1).all(1))


def share_of_rows(marked: Tensor) -> str:
    """How many rows are marked, of shape ``(B,)``.

    Example:
        >>> share_of_rows(torch.tensor([True, False, False]))
        '1 of 3 rows (33.3 %)'
    """
    count, total = int(marked.sum()), len(marked)
    return f"{count} of {total} rows ({100 * count / total:.3g} %)"
