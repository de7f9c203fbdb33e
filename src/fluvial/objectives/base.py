"""What an objective takes and returns.

An objective is a frozen description of a regression: ``objective(net, batch, generator=g) -> Loss``. It holds no state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.devices import to_device
from fluvial.fields.base import Field


@dataclass(frozen=True)
class Batch:
    """Data that one step sees.

    Args:
        x1: Data, shape ``(B, *D)``, floating.
        cond: Condition of each row, such as labels ``(B,)`` with -1 for none; or None.
        index: Position of each row in the data set, shape ``(B,)``; spares Empirical Flow Matching a search.

    Example:
        >>> len(Batch(torch.zeros(4, 2)))
        4
    """

    x1: Tensor
    cond: Any = None
    index: Tensor | None = None

    def __post_init__(self) -> None:
        require_tensor("x1", self.x1)
        if not self.x1.is_floating_point() or self.x1.ndim < 2 or len(self.x1) == 0:
            raise ValueError(
                f"x1 must be floating with shape (B, *D), B > 0, got {self.x1.dtype} {tuple(self.x1.shape)}"
            )
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
        logs: Named scalars worth recording, detached, on the device.
    """

    loss: Tensor
    per_sample: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """Anything a net can be trained on."""

    def __call__(self, net: Field, batch: Batch, *, generator: torch.Generator) -> Loss: ...


def squared_error(prediction: Tensor, target: Tensor) -> Loss:
    """Mean squared error over rows and elements, with each row's own mean."""
    if prediction.shape != target.shape:
        raise ValueError(f"the net must return shape {tuple(target.shape)}, got {tuple(prediction.shape)}")
    per_sample = (prediction - target).square().flatten(1).mean(1)
    return Loss(per_sample.mean(), per_sample.detach())


def noise_like(x1: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of ``x1``'s shape, drawn on the generator's device so that the draw is the same on any
    other."""
    return to_device(torch.randn(x1.shape, generator=generator, device=generator.device, dtype=x1.dtype), x1.device)
