"""One training step as one forward pass."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluvial.nn.attention import carries_tangent
from fluvial.objectives import Batch, Loss, Objective


class TrainStep(nn.Module):
    """A net and its objective as one module, so that data-parallel wrappers see one forward pass.

    Only the net runs under autocast: the path, the coupling and the weights of a bank keep their full
    precision.

    Args:
        net: The net, ``net(x, t, cond)``.
        objective: What it is regressed on.
        autocast: Makes the context that the net runs in.

    Example:
        >>> from contextlib import nullcontext
        >>> step = TrainStep(fv.nn.MLP((2,), width=8, depth=1), fv.CFM(), nullcontext)
        >>> step(fv.Batch(torch.zeros(4, 2)), torch.Generator().manual_seed(0)).loss.shape
        torch.Size([])
    """

    def __init__(
        self, net: nn.Module, objective: Objective, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        super().__init__()
        self.net, self._objective, self._autocast = net, objective, autocast

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The objective's loss on one batch."""
        # Accelerate wraps this whole pass in autocast; only the net is to have it.
        with torch.autocast(batch.x1.device.type, enabled=False):
            return self._objective(self._velocity, batch, generator=generator)

    def _velocity(
        self,
        x: Float[Tensor, "B *D"],
        t: Float[Tensor, "*T"],
        cond: Any = None,
        r: Float[Tensor, "*T"] | None = None,
    ) -> Float[Tensor, "B *D"]:
        arguments = (x, t, cond) if r is None else (x, t, cond, r)
        if carries_tangent(x):  # forward-mode differentiation keeps full precision
            exact: Tensor = self.net(*arguments)
            return exact
        with self._autocast():
            velocity: Tensor = self.net(*arguments)
        return velocity.to(x.dtype)
