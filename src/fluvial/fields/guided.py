"""Classifier-free guidance."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import row_times
from fluvial.fields.base import Field, breakpoints, singular_at_end
from fluvial.kinds import checked


@checked
class Guided:
    r"""Field pushed from its unconditional towards its conditional velocity.

    .. math:: v = v_\text{null} + w (v_\text{cond} - v_\text{null}), \qquad w = 1 \text{ is no guidance.}

    Outside ``interval`` the conditional velocity is used alone. Where ``cond`` is None the field is unconditional
    and no second evaluation is made.

    Sources: Ho and Salimans 2022, "Classifier-Free Diffusion Guidance"; Kynkäänniemi et al. 2024, "Applying Guidance in
    a Limited Interval Improves Sample and Distribution Quality".

    Args:
        field: Field that takes a condition and, with None, none.
        scale: ``w``; finite.
        interval: Times ``(start, end)`` between which guidance acts, ``start`` included.

    Raises:
        ValueError: If ``scale`` is not finite or ``interval`` is not ordered inside [0, 1].

    Example:
        >>> field = Guided(lambda x, t, cond: 0 * x if cond is None else 0 * x + 1, scale=3.0)
        >>> field(torch.zeros(1, 1), torch.tensor([0.5]), torch.tensor([7]))
        tensor([[3.]])
    """

    def __init__(self, field: Field, scale: float, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        if not abs(scale) < float("inf"):
            raise ValueError(f"scale must be finite, got {scale}")
        if len(interval) != 2:
            raise ValueError(f"interval must be (start, end), got {interval}")
        start, end = interval
        if not 0 <= start < end <= 1:
            raise ValueError(f"interval must satisfy 0 <= start < end <= 1, got {interval}")
        self.field = field
        self.scale = scale
        self.interval = (float(start), float(end))

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """The interval's ends inside (0, 1), and what the guided field declares."""
        ends = [end for end in self.interval if 0 < end < 1]
        return tuple(sorted({*ends, *breakpoints(self.field)}))

    @property
    def singular_at_end(self) -> bool:
        """As the guided field."""
        return singular_at_end(self.field)

    @property
    def path(self) -> Any:
        """Path of the guided field, if it has one."""
        return getattr(self.field, "path", None)

    def __call__(self, x: Float[Tensor, "B *D"], t: Float[Tensor, "*T"], cond: Any = None) -> Float[Tensor, "B *D"]:
        """Guided velocity at ``(x, t)``."""
        return self._guided(self.field, x, t, cond)

    @property
    def divergence(self) -> Callable[..., Tensor]:
        """Divergence of the guided velocity, a function of ``(x, t, cond)``; absent where the field knows none."""
        inner = getattr(self.field, "divergence", None)
        if inner is None:
            raise AttributeError("the guided field knows no divergence")
        return partial(self._guided, inner)

    def _guided(self, quantity: Callable[..., Tensor], x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """A quantity that is linear in the velocity, guided."""
        t = row_times(t, x)
        conditional = quantity(x, t, cond)
        if cond is None or self.scale == 1:
            return conditional
        start, end = self.interval
        inside = (t >= start) & ((t < end) | (end == 1))
        if not bool(inside.any()):
            return conditional
        null = quantity(x, t, None)
        scale = torch.where(inside, x.new_tensor(self.scale), x.new_tensor(1.0))
        return null + scale.reshape(-1, *[1] * (null.ndim - 1)) * (conditional - null)
