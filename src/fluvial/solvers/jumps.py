r"""Jumps along average velocities: what a net trained by Mean Flows is sampled with.

.. math:: x_r = x_t + (r - t)\, U(x_t, t, r),

exact for the exact average velocity, whatever the number of steps: one is enough.

Source: Geng et al. 2025, "Mean Flows for One-step Generative Modeling", equation 12.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fluvial.fields.base import Field, knows_averages
from fluvial.progress import Progress, ProgressCallback
from fluvial.solvers.grid import Step
from fluvial.solvers.saves import Saves
from fluvial.solvers.velocity import share_not_finite

JUMP_METHODS = ("meanflow",)


def check_averages(field: Field) -> None:
    """Raises ValueError unless the field knows average velocities."""
    if not knows_averages(field):
        raise ValueError(
            "method 'meanflow' needs a field that takes a second time, field(x, t, cond, r): a net with gap=True that "
            "was trained by MeanFlow"
        )


def integrate_jumps(
    field: Any, x: Tensor, steps: Sequence[Step], cond: Any, *, saves: Saves, progress: ProgressCallback | None
) -> tuple[Tensor, int]:
    """Walk the steps by one jump each; the last states and the number of evaluations.

    A requested time inside a step is jumped to from the same state, so that the walk is the same whatever is requested.

    Args:
        field: The average velocity.
        x: First states, shape ``(B, *D)``.
        steps: The steps in order.
        cond: Condition, passed as it is.
        saves: Requested times.
        progress: Called after each step.

    Raises:
        ValueError: If the field returns another shape, or the last states are not finite.
    """
    evaluations = 0
    for number, step in enumerate(steps, start=1):
        targets = [step.stop, *saves.between(step.start, step.stop)]
        arrived = []
        for target in targets:
            t, r = x.new_full(x.shape[:1], step.start), x.new_full(x.shape[:1], target)
            average = field(x, t, cond, r)
            if not isinstance(average, Tensor) or average.shape != x.shape:
                given = tuple(average.shape) if isinstance(average, Tensor) else type(average).__name__
                raise ValueError(f"field must return a tensor of the shape of x, {tuple(x.shape)}, got {given}")
            arrived.append(x + (target - step.start) * average.to(x.dtype))
        x, *kept = arrived
        evaluations += len(targets)
        saves.keep(targets[1:], kept)
        saves.arrive(step.stop, x)
        if progress is not None:
            progress(Progress("solve", number, len(steps)))
    share = share_not_finite(x)
    if share is not None:
        raise ValueError(f"field: meanflow with {len(steps)} steps left the finite numbers; {share} are not finite")
    return x, evaluations
