"""Running means of what a training logs, kept on the device so that no update waits for it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fluvial.training.checkpoints import Checkpoint


@dataclass(frozen=True)
class Means:
    """Means over the updates since they were last taken.

    Args:
        loss: Mean loss.
        grad_norm: Mean norm of the gradient before clipping.
        logs: Means of what the objective logs.
        updates: How many updates they are means of.
        skipped: How many were skipped.
    """

    loss: float
    grad_norm: float
    logs: Mapping[str, float] = field(default_factory=dict)
    updates: int = 0
    skipped: int = 0


class RunningMeans:
    """Sums of loss, gradient norm and logs over updates, and their number.

    Args:
        lr: Peak learning rate, for the message of a training that diverged.
        device: Where the sums are kept.
        logged: Names of what the objective logs.
        gradients: Whether a gradient that is not finite ends the training; a scaler of fp16 skips such updates.

    Example:
        >>> means = RunningMeans(0.1, "cpu")
        >>> for loss in (1.0, 3.0):
        ...     means.add(torch.tensor(loss), torch.tensor(0.5))
        >>> means.take(step=2)
        Means(loss=2.0, grad_norm=0.5, logs={}, updates=2, skipped=0)
    """

    def __init__(
        self, lr: float, device: torch.device | str, logged: Sequence[str] = (), *, gradients: bool = False
    ) -> None:
        self._lr, self._logged, self._gradients = lr, tuple(logged), gradients
        self._sums, self._count = torch.zeros(2 + len(self._logged), device=device), 0
        self._skipped = torch.zeros((), device=device)

    def add(
        self, loss: Tensor, norm: Tensor, logs: Mapping[str, Tensor] | None = None, *, skipped: Tensor | None = None
    ) -> None:
        """One update more; of one that was skipped (1, not 0) nothing but the number is kept."""
        values = torch.stack([loss.detach(), norm, *((logs or {})[name] for name in self._logged)])
        if skipped is not None:
            values = torch.where(skipped > 0, 0.0, values)
            self._skipped += skipped
        self._sums += values
        self._count += 1

    def means(self, step: int) -> Means:
        """Means since the last :meth:`take`; waits for the device.

        Args:
            step: Updates made, for the message.

        Raises:
            ValueError: If the loss is not finite, or the gradient where that ends the training.
        """
        skipped = int(self._skipped)
        loss, norm, *logs = (self._sums / max(self._count - skipped, 1)).tolist()
        if not math.isfinite(loss) or (self._gradients and not math.isfinite(norm)):
            what = f"loss is {loss}" if not math.isfinite(loss) else f"norm of the gradient is {norm}"
            raise ValueError(f"the {what} at step {step}: training diverged; try a smaller lr than {self._lr}")
        return Means(loss, norm, dict(zip(self._logged, logs, strict=True)), self._count - skipped, skipped)

    def take(self, step: int) -> Means:
        """:meth:`means`, after which the sums start anew."""
        means = self.means(step)
        self._sums, self._count = torch.zeros_like(self._sums), 0
        self._skipped = torch.zeros_like(self._skipped)
        return means

    def values(self) -> dict[str, Any]:
        """What a checkpoint holds as JSON; float32 sums survive it exactly."""
        return {"sums": self._sums.tolist(), "count": self._count, "skipped": int(self._skipped)}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: If it holds no sums of this kind.
        """
        try:
            sums, count = [float(value) for value in checkpoint.state["sums"]], int(checkpoint.state["count"])
            skipped = int(checkpoint.state.get("skipped", 0))
            if len(sums) != len(self._sums):
                raise ValueError(f"there are {len(sums)} sums, and {len(self._sums)} are kept")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{checkpoint.folder} holds no running sums: {error}") from error
        self._sums, self._count = torch.tensor(sums, device=self._sums.device), count
        self._skipped = torch.tensor(float(skipped), device=self._sums.device)
