r"""A net that is conditioned on a handful of examples: each point looks at the support through cross-attention.

Supports come in all sizes, and a net that sees them as they are spends itself on the large ones. It therefore works in
units of the support's scale :math:`c`, its root mean square. If the data were Gaussian with that standard deviation,
the velocity of a path would be

.. math:: v(x, t) = \frac{\alpha \dot\alpha c^2 + \sigma \dot\sigma}{\alpha^2 c^2 + \sigma^2}\, x;

the net predicts what is missing, in units of :math:`g = c\, (\sigma \dot\alpha - \alpha \dot\sigma) /
\sqrt{\alpha^2 c^2 + \sigma^2}`, in which it is of order 1 at every time.

Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", section 5, whose
preconditioning this is, with the data's standard deviation taken from each support.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluvial.checks import require_beside, require_tensor
from fluvial.kinds import checked
from fluvial.nn.attention import attend, check_heads, join_heads, split_heads
from fluvial.nn.embeddings import TimeEmbedding
from fluvial.paths import CondOT, GaussianPath

_TIME_FEATURES = 32
_TIME_SCALE = 100.0
_LEAST_SCALE = 1e-6

Head = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A velocity from points ``(B, n, d)``, times ``(B, n)`` and supports ``(B, m, d)``."""


class _Block(nn.Module):
    """Points take from the support what they attend to, and are transformed one by one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, h: Float[Tensor, "B n F"], tokens: Float[Tensor, "B m F"]) -> Float[Tensor, "B n F"]:
        k, v = (split_heads(part, self.heads) for part in self.key_value(tokens).chunk(2, 2))
        h = h + self.out(join_heads(attend(split_heads(self.query(self.norm(h)), self.heads), k, v)))
        out: Tensor = h + self.feed(h)
        return out


@checked
class SupportNet(nn.Module):
    r"""Velocity of points given a support set: ``L`` blocks of cross-attention from the points to the examples.

    Points do not see one another and the support has no order, so that the net is a field for each task: permuting
    examples changes nothing. Tokens and queries carry their norm beside their coordinates; without it a net of this
    size does not learn distances from the centre. With a ``head``, such as ``fv.support.KernelAttention``, the head's
    posterior mean is one more input of the last layers; its velocity is unbounded late in time.

    It is a field for a batch of tasks: ``fv.solve(net, x0, cond=support)`` moves ``n`` points of ``B`` tasks.

    Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", section 5.

    Args:
        dim: Dimension ``d`` of the points.
        width: Features of a point or an example.
        blocks: Number of blocks ``L``.
        heads: Heads of each attention; they divide ``width``.
        head: ``head(x, t, support) -> velocity``, fused in; None for none. A module is trained with the net.
        path: The path whose velocity it predicts; ``CondOT(sigma_min=0.01)`` if absent.

    Raises:
        ValueError: If a size is not positive or ``heads`` does not divide ``width``; in ``forward``, if shapes do not
            fit.

    Example:
        >>> net = fv.nn.SupportNet(2, width=32, blocks=1)
        >>> net(torch.randn(4, 100, 2), torch.rand(4), torch.randn(4, 5, 2)).shape
        torch.Size([4, 100, 2])
    """

    def __init__(
        self,
        dim: int,
        width: int = 96,
        blocks: int = 3,
        heads: int = 4,
        *,
        head: Head | None = None,
        path: GaussianPath | None = None,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        for name, value in (("dim", dim), ("blocks", blocks)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.dim, self.head = dim, head
        self.path = CondOT(sigma_min=0.01) if path is None else path
        self.time = TimeEmbedding(_TIME_FEATURES, _TIME_SCALE)
        self.query = nn.Linear(dim + 2 + _TIME_FEATURES, width)
        self.token = nn.Linear(dim + 1, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(blocks))
        self.exact = None if head is None else nn.Linear(dim, width)
        joined = width if head is None else 2 * width
        end = nn.Linear(width, dim)
        nn.init.zeros_(end.weight)
        nn.init.zeros_(end.bias)
        self.last = nn.Sequential(nn.LayerNorm(joined), nn.Linear(joined, width), nn.GELU(), end)

    @property
    def singular_at_end(self) -> bool:
        """Whether the head's velocity is infinite at ``t = 1``; the net's own part never is."""
        return bool(getattr(self.head, "singular_at_end", False))

    def forward(self, x: Tensor, t: Tensor | float, cond: Any) -> Float[Tensor, "B n d"]:
        """Velocity at ``(x, t)`` for each task.

        Args:
            x: Points, shape ``(B, n, d)``.
            t: Times: a scalar, ``(B,)`` for one of each task, or ``(B, n)`` for one of each point.
            cond: Support of each task, shape ``(B, m, d)``.
        """
        self._check(x, t, cond)
        times = point_times(t, x)
        scale = support_scale(cond)[:, None]
        alpha, sigma = self.path.alpha(times), self.path.sigma(times)
        power = (alpha * scale).square() + sigma.square()
        inner = x / power.sqrt()[..., None]
        clock = self.time(times.flatten()).unflatten(0, times.shape)
        size = scale.log()[..., None].expand(*times.shape, 1)
        h = self.query(torch.cat([_with_norm(inner), size, clock], 2))
        tokens = self.token(_with_norm(cond / scale[..., None]))
        for block in self.blocks:
            h = block(h, tokens)
        alpha_dot, sigma_dot = self.path.alpha_dot(times), self.path.sigma_dot(times)
        if self.head is not None and self.exact is not None:
            velocity = self.head(x, times, cond)
            mean = (sigma[..., None] * velocity - sigma_dot[..., None] * x) / self.path.wronskian(times)[..., None]
            h = torch.cat([h, self.exact(mean / scale[..., None])], 2)
        linear = (alpha * alpha_dot * scale.square() + sigma * sigma_dot) / power
        out: Tensor = linear[..., None] * x + self.gain(times, cond)[..., None] * self.last(h)
        return out

    def gain(self, t: Float[Tensor, "B n"], cond: Float[Tensor, "B m d"]) -> Float[Tensor, "B n"]:
        """Unit of the net's own part of the velocity: the error of a point divided by it is of order 1 at all times.

        Args:
            t: Times, shape ``(B, n)``.
            cond: Supports, shape ``(B, m, d)``.
        """
        scale = support_scale(cond)[:, None]
        power = (self.path.alpha(t) * scale).square() + self.path.sigma(t).square()
        return scale * self.path.wronskian(t) / power.sqrt()

    def _check(self, x: Tensor, t: Tensor | float, cond: Any) -> None:
        require_tensor("x", x)
        if x.ndim != 3 or x.shape[2] != self.dim:
            raise ValueError(f"x must have shape (B, n, {self.dim}), got {tuple(x.shape)}")
        if not isinstance(cond, Tensor) or cond.ndim != 3 or cond.shape[2] != self.dim or len(cond) != len(x):
            given = tuple(cond.shape) if isinstance(cond, Tensor) else type(cond).__name__
            raise ValueError(f"cond must be supports of shape ({len(x)}, m, {self.dim}), got {given}")
        for name, value in (("x", x), ("cond", cond)):
            if value.layout != torch.strided or not value.is_floating_point() or value.dtype != x.dtype:
                raise ValueError(
                    f"{name} must be dense and {x.dtype if x.is_floating_point() else 'floating'}, got {value.dtype}"
                )
            require_beside(name, value, "the net's weights", next(self.parameters()))
        if isinstance(t, Tensor):
            require_tensor("t", t)
            require_beside("t", t, "x", x)
        if cond.shape[1] < 1:
            raise ValueError("cond must hold at least one example in each support, got m = 0")


def support_scale(support: Float[Tensor, "B m d"]) -> Float[Tensor, "B"]:
    """Root mean square of the coordinates of each support, at least 1e-6.

    Example:
        >>> support_scale(torch.tensor([[[3.0, 4.0], [-3.0, -4.0]]]))
        tensor([3.5355])
    """
    return support.square().mean((1, 2)).sqrt().clamp_min(_LEAST_SCALE)


def point_times(t: Tensor | float, x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n"]:
    """Times of all points, from one time, one for each task, or one for each point.

    Raises:
        TypeError: If ``t`` is neither a number nor a tensor.
        ValueError: If ``t`` has another shape.

    Example:
        >>> point_times(torch.tensor([0.0, 1.0]), torch.zeros(2, 3, 4)).tolist()
        [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    if not isinstance(t, Tensor | int | float):
        raise TypeError(f"t must be a number or a tensor, got {type(t).__name__}")
    times = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    shape = x.shape[:2]
    if times.shape not in (shape, shape[:1], ()):
        raise ValueError(f"t must be a scalar or have shape ({shape[0]},) or {tuple(shape)}, got {tuple(times.shape)}")
    return (times[:, None] if times.ndim == 1 else times).expand(shape)


def _with_norm(x: Float[Tensor, "B n d"]) -> Float[Tensor, "B n D"]:
    return torch.cat([x, x.norm(dim=2, keepdim=True)], 2)
