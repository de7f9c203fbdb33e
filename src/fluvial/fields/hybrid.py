"""One field early, another late."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_tensor, row_times
from fluvial.fields.base import Field, breakpoints, singular_at_end
from fluvial.kinds import checked


@checked
class Hybrid:
    """Field that follows ``before`` for ``t < tau`` and ``after`` from ``tau`` on (``before`` to the end if tau = 1).

    With the exact field first and a learned one after, it shows from which time on a model's errors create something
    new.

    Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", section 4.2.

    Args:
        before: Field used while ``t < tau``.
        after: Field used from ``t = tau`` on.
        tau: Time of the change, in [0, 1].

    Raises:
        ValueError: If ``tau`` is outside [0, 1].

    Example:
        >>> field = Hybrid(lambda x, t, cond: 0 * x, lambda x, t, cond: 0 * x + 1, tau=0.5)
        >>> field(torch.zeros(2, 1), torch.tensor([0.4, 0.5]))
        tensor([[0.],
                [1.]])
    """

    def __init__(self, before: Field, after: Field, tau: float) -> None:
        if not 0 <= tau <= 1:
            raise ValueError(f"tau must be in [0, 1], got {tau}")
        self.before = before
        self.after = after
        self.tau = tau

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """The change itself, and what the two fields declare on their side of it."""
        early = [b for b in breakpoints(self.before) if b < self.tau]
        late = [b for b in breakpoints(self.after) if b > self.tau]
        return (*early, self.tau, *late)

    @property
    def _last(self) -> Field:
        return self.after if self.tau < 1 else self.before

    @property
    def singular_at_end(self) -> bool:
        """As the field that arrives at ``t = 1``."""
        return singular_at_end(self._last)

    @property
    def path(self) -> Any:
        """Path of the field that arrives at ``t = 1``; only fields that are singular there have one."""
        return getattr(self._last, "path", None)

    def __call__(self, x: Float[Tensor, "B *D"], t: Float[Tensor, "*T"], cond: Any = None) -> Float[Tensor, "B *D"]:
        """Velocity at ``(x, t)``; each row is evaluated by its own side only."""
        return self._by_side(self.before, self.after, x, t, cond)

    @property
    def divergence(self) -> Callable[..., Tensor]:
        """Divergence of the velocity, a function of ``(x, t, cond)``; absent unless both fields know theirs."""
        before, after = (getattr(field, "divergence", None) for field in (self.before, self.after))
        if before is None or after is None:
            raise AttributeError("not both fields know their divergence")
        return partial(self._by_side, before, after)

    def _by_side(
        self, before: Callable[..., Tensor], after: Callable[..., Tensor], x: Tensor, t: Tensor, cond: Any = None
    ) -> Tensor:
        t = row_times(t, x)
        rows = hasattr(cond, "__len__") and hasattr(cond, "__getitem__") and not isinstance(cond, list | tuple | str)
        if cond is not None and (not rows or (isinstance(cond, Tensor) and cond.ndim == 0)):
            raise TypeError(f"cond must have a row for each point, got {type(cond).__name__}")
        if isinstance(cond, Tensor):
            require_tensor("cond", cond)
        if cond is not None and len(cond) != len(x):
            raise ValueError(f"cond must have {len(x)} rows, one for each point, got {len(cond)}")
        early = (t < self.tau) | (self.tau == 1)
        if bool(early.all()):
            return before(x, t, cond)
        if not bool(early.any()):
            return after(x, t, cond)
        late = ~early
        first = before(x[early], t[early], None if cond is None else cond[early])
        out = first.new_empty((len(x), *first.shape[1:]))
        out[early] = first
        out[late] = after(x[late], t[late], None if cond is None else cond[late])
        return out
