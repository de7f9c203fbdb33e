"""A residual multilayer perceptron for points, tables and small images."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from fluvial.checks import require_shape
from fluvial.kinds import checked
from fluvial.nn.conditioning import Conditioning

# Time and labels need fewer features than the data, down to this many.
_LEAST_CONDITION = 32


class _Block(nn.Module):
    """Residual layer whose normalised input is scaled and shifted, and whose output is gated, by the condition."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(condition, 3 * width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift, gate = self.modulation(condition).chunk(3, 1)
        update = nn.functional.silu(self.inner(self.norm(h) * (1 + scale) + shift))
        out: Tensor = h + (1 + gate) * self.outer(update)
        return out


@checked
class MLP(nn.Module):
    """Residual perceptron whose blocks are modulated by time, and by a label or an embedding where it takes one.

    Safe under forward-mode differentiation.

    Args:
        shape: Shape ``D`` of one datum; data is flattened inside.
        width: Features in a layer; a multiple of 8.
        depth: Residual blocks.
        classes: Number of labels, None for a net without.
        embedding: Length of the embeddings that it is conditioned on, None for a net without.
        time_scale: Factor that times in [0, 1] are multiplied by before their sines and cosines are taken; by default
            1000, and 1 with a gap, since Mean Flows regress on the derivative in time as well, which the factor
            multiplies.
        gap: Whether the net takes a second time ``r >= t`` and predicts average velocities (Mean Flows).

    Raises:
        ValueError: If a size is not positive; in ``forward``, if ``x`` has another shape, a condition is not what
            the net takes, a label is out of range (checked on the CPU, where it costs no synchronisation), or ``r``
            comes to a net without a gap.

    Example:
        >>> net = fv.nn.MLP((1, 8, 8), width=64, classes=10)
        >>> net(torch.randn(5, 1, 8, 8), torch.rand(5), torch.tensor([0, 1, 2, -1, 9])).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 256,
        depth: int = 6,
        *,
        classes: int | None = None,
        embedding: int | None = None,
        time_scale: float | None = None,
        gap: bool = False,
    ) -> None:
        super().__init__()
        if not shape or min(shape) < 1:
            raise ValueError(f"shape must hold positive sizes, got {shape}")
        if width < 8 or width % 8:
            raise ValueError(f"width must be a positive multiple of 8, got {width}")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.shape = tuple(shape)
        self.gap = gap
        dim = math.prod(shape)
        condition = max(_LEAST_CONDITION, width // 4)
        self.condition = Conditioning(condition, classes=classes, embedding=embedding, gap=gap, time_scale=time_scale)
        self.first = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width, condition) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        x: Float[Tensor, "B *D"],
        t: Tensor | float,
        cond: Any = None,
        r: Tensor | float | None = None,
    ) -> Float[Tensor, "B *D"]:
        """Velocity at ``(x, t)``, or with ``r`` the average velocity from ``t`` to ``r``.

        Args:
            x: Points, shape ``(B, *D)``.
            t: Times, a scalar or ``(B,)``.
            cond: Labels ``(B,)`` with -1 for none, or an ``Embedding``; None for none in all rows.
            r: Second times, like ``t``; None means ``r = t``.
        """
        require_shape(x, self.shape)
        condition = self.condition(x, t, cond, r)
        h = self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h, condition)
        out: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return out.reshape(x.shape)
