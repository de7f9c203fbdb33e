"""A residual multilayer perceptron for points, tables and small images."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluvial.checks import as_times
from fluvial.nn.embeddings import LabelEmbedding, TimeEmbedding

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


class MLP(nn.Module):
    """Residual perceptron whose blocks are modulated by time, and by labels where it has classes.

    Safe under forward-mode differentiation.

    Args:
        shape: Shape ``D`` of one datum; data is flattened inside.
        width: Features in a layer; a multiple of 8.
        depth: Residual blocks.
        classes: Number of labels, None for an unconditional net.
        time_scale: Factor that times in [0, 1] are multiplied by before their sines and cosines are taken; by default
            1000, and 1 with a gap, since Mean Flows regress on the derivative in time as well, which the factor
            multiplies.
        gap: Whether the net takes a second time ``r >= t`` and predicts average velocities (Mean Flows).

    Raises:
        ValueError: If a size is not positive, labels come to a net without classes, a label is out of range (checked
            on the CPU, where it costs no synchronisation), or ``r`` to a net without a gap.

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
        self.classes = classes
        self.gap = gap
        dim = math.prod(shape)
        condition = max(_LEAST_CONDITION, width // 4)
        scale = (1.0 if gap else 1000.0) if time_scale is None else time_scale
        self.time = TimeEmbedding(condition, scale)
        self.time_in = nn.Linear(condition, condition)
        self.gap_in = nn.Linear(condition, condition) if gap else None
        self.label = None if classes is None else LabelEmbedding(classes, condition)
        self.condition = nn.Linear(condition, condition)
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
        cond: Int[Tensor, "B"] | None = None,
        r: Tensor | float | None = None,
    ) -> Float[Tensor, "B *D"]:
        """Velocity at ``(x, t)``, or with ``r`` the average velocity from ``t`` to ``r``.

        Args:
            x: Points, shape ``(B, *D)``.
            t: Times, a scalar or ``(B,)``.
            cond: Labels ``(B,)``, -1 for none; None for none in all rows.
            r: Second times, like ``t``; None means ``r = t``.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        t = as_times(t, x).to(x.dtype).expand(len(x))
        r = None if r is None else as_times(r, x).to(x.dtype).expand(len(x))
        condition = self.condition(nn.functional.silu(self._condition(t, cond, r)))
        condition = nn.functional.silu(condition)
        h = self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h, condition)
        out: Tensor = self.last(nn.functional.silu(self.norm(h)))
        return out.reshape(x.shape)

    def _condition(self, t: Tensor, cond: Tensor | None, r: Tensor | None) -> Tensor:
        out: Tensor = self.time_in(self.time(t))
        if self.gap_in is not None:
            out = out + self.gap_in(self.time(torch.zeros_like(t) if r is None else r - t))
        elif r is not None:
            raise ValueError("this net takes no second time r: build it with gap=True")
        if self.label is not None:
            free = cond is not None and cond.device.type == "cpu" and not torch.compiler.is_compiling()
            if free and cond is not None and bool((cond >= self.label.classes).any()):
                raise ValueError(f"labels must be below {self.label.classes}, got {int(cond.max())}")
            out = out + self.label(cond, len(t))
        elif cond is not None:
            raise ValueError("this net takes no labels: build it with classes=")
        return out
