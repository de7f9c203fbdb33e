"""What an objective takes and returns.

An objective is a frozen description of a regression: ``objective(net, batch, generator=g) -> Loss``. It holds no state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fluvial.checks import require_dense, require_generator, require_tensor
from fluvial.couplings import Coupling
from fluvial.devices import to_device
from fluvial.fields.base import Field
from fluvial.randomness import RowGenerator, draw_rows
from fluvial.times import Times


@dataclass(frozen=True)
class Batch:
    """Data that one step sees.

    Args:
        x1: Data, shape ``(B, *D)``, floating.
        cond: Condition of each row, such as labels ``(B,)`` with -1 for none; or None.
        index: Position of each row in the data set, shape ``(B,)``; spares Empirical Flow Matching a search.
        classes: Labels that occur in the whole batch, sorted, where other processes have rows of it too; what is drawn
            label by label is then the same on all.

    Example:
        >>> len(Batch(torch.zeros(4, 2)))
        4
    """

    x1: Tensor
    cond: Any = None
    index: Tensor | None = None
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        require_tensor("x1", self.x1)
        require_dense("x1", self.x1)
        if not self.x1.is_floating_point() or self.x1.ndim < 2 or len(self.x1) == 0:
            raise ValueError(
                f"x1 must be floating with shape (B, *D), B > 0, got {self.x1.dtype} {tuple(self.x1.shape)}"
            )
        if self.index is not None:
            require_tensor("index", self.index)
        if self.index is not None and tuple(self.index.shape) != (len(self.x1),):
            raise ValueError(f"index must have shape ({len(self.x1)},), got {tuple(self.index.shape)}")

    def __len__(self) -> int:
        return len(self.x1)


@dataclass(frozen=True)
class Loss:
    """Result of an objective.

    Args:
        loss: Scalar to minimise.
        per_sample: Loss of each row, shape ``(B,)``, detached.
        logs: Named scalars worth recording, detached, on the device: means over the rows.
        times: Time of each row, shape ``(B,)``, where each has one: said of rows whose loss is not finite.
        counts: How many rows a log is the mean of, where that is not all of them.
    """

    loss: Tensor
    per_sample: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    times: Tensor | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """Anything a net can be trained on."""

    def __call__(self, net: Field, batch: Batch, *, generator: torch.Generator) -> Loss: ...


def require_call(net: object, batch: object, generator: object) -> None:
    """Refuse a call of an objective with other kinds of arguments; cheap enough for every step.

    Raises:
        TypeError: If the net cannot be called, or batch or generator are something else; the message names it.

    Example:
        >>> require_call(None, Batch(torch.zeros(4, 2)), torch.Generator())
        Traceback (most recent call last):
        TypeError: net must be callable, got NoneType
    """
    if not callable(net):
        raise TypeError(f"net must be callable, got {type(net).__name__}")
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be a Batch, got {type(batch).__name__}")
    require_generator(generator)


def squared_error(prediction: Tensor, target: Tensor, times: Tensor | None = None) -> Loss:
    """Mean squared error over rows and elements, with each row's own mean and time."""
    require_tensor("what the net returns", prediction)
    if prediction.shape != target.shape:
        raise ValueError(f"the net must return shape {tuple(target.shape)}, got {tuple(prediction.shape)}")
    per_sample = (prediction - target).square().flatten(1).mean(1)
    return Loss(per_sample.mean(), per_sample.detach(), times=times)


def noise_like(x1: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of ``x1``'s shape, drawn on the generator's device so that the draw is the same on any
    other."""

    def draw(count: int, g: torch.Generator) -> Tensor:
        return torch.randn((count, *x1.shape[1:]), generator=g, device=g.device, dtype=x1.dtype)

    return to_device(draw_rows(draw, len(x1), generator), x1.device)


def times_like(times: Times, x1: Tensor, generator: torch.Generator) -> Tensor:
    """A time for each row of ``x1``, of its type and on its device."""
    return draw_rows(lambda count, g: times(count, generator=g, dtype=x1.dtype, device=x1.device), len(x1), generator)


def met(coupling: Coupling, x0: Tensor, x1: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
    """The noise that meets each datum, shape of ``x0``.

    Where several processes have the rows of a batch, a coupling that says ``across_ranks`` pairs all of them: the first
    process decides for all. Others pair the rows of each process.
    """
    if not isinstance(generator, RowGenerator) or generator.ranks.count == 1:
        return x0[coupling(x0, x1, labels, generator=generator)]
    if not getattr(coupling, "across_ranks", False):
        return x0[coupling(x0, x1, labels, generator=generator.apart)]
    ranks, total = generator.ranks, generator.total
    noise, data = ranks.gather(x0, total), ranks.gather(x1, total)
    labels = None if labels is None else ranks.gather(labels, total)
    order = torch.empty(total, dtype=torch.int64, device=x0.device)
    if ranks.first:
        order = coupling(noise, data, labels, generator=generator)
    return noise[ranks.from_first(order)[ranks.rows(total)]]
