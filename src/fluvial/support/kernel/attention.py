r"""The exact field of a handful of examples as a cross-attention head.

For a support :math:`s_1, \dots, s_m` the velocity that transports noise to it is

.. math:: v(x, t) = \dot\alpha m + \frac{\dot\sigma}{\sigma} (x - \alpha m), \qquad
          m = \sum_i w_i s_i, \qquad w = \mathrm{softmax}_i \Big(-\frac{\|x - \alpha s_i\|^2}{2 \sigma^2}\Big):

attention from points to their task's support, its temperature the flow time, followed by an affine map. It has no
parameter to learn. Heads may see the points through projections of their own, which changes the kernel's metric; the
values stay the support itself. NaN in a point comes out as NaN. How the logits are computed:
:mod:`~fluvial.support.kernel.logits`.

Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", theorem 5.2 and corollary 5.3.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fluvial.conditions import Tokens
from fluvial.kinds import checked
from fluvial.paths import CondOT, GaussianPath
from fluvial.smoothing.logits import unit_roundoff
from fluvial.support.kernel.checks import checked_block, checked_factor, checked_heads
from fluvial.support.kernel.logits import (
    TOLERANCE,
    Block,
    Heads,
    differentiates_forward,
    fused_offset,
    kernel_weights,
    noise_error,
    velocity,
)
from fluvial.support.kernel.tiles import OfBlock, tiled


@checked
class KernelAttention(nn.Module):
    """Cross-attention head whose output is the exact velocity of each task's own support; see the module's docstring.

    It is a field for a batch of tasks: ``fv.solve(head, x0, cond=support)``. Points at which the fused product is
    accurate enough, early in time, go through ``scaled_dot_product_attention``, task by task; others are computed in
    float64. Extra memory is bounded by tiles, in backward passes too, which compute a tile's weights again. It is
    differentiable in the points, times, support and parameters, and in forward mode; results have the points' type.

    Args:
        path: The probability path; ``CondOT(sigma_min=0.01)`` if absent.
        dim: Dimension ``d`` of the points; needed for what is learned.
        heads: Heads. More than one are learned: each has its projection, and their means are mixed by learned convex
            weights. With ``rank = d`` they start as rotations, so that the head starts as the exact field.
        metric: ``M`` of logits :math:`-(x - \\alpha s)^T M (x - \\alpha s) / 2 \\sigma^2`: a symmetric, positive
            semidefinite tensor ``(d, d)``, or ``"learned"``, which starts as the identity. None for the identity.
        factor: ``L`` of a fixed metric ``M = L L^T`` instead, shape ``(d, r)``.
        rank: Rows of each learned projection; ``dim`` if absent. Fewer start as random orthonormal ones.

    Attributes:
        projections: Shape ``(H, r, d)``, a parameter if learned; None in the isotropic case.
        mixture: Logits of the heads' shares, shape ``(H,)``; None for one head.

    Raises:
        ValueError: If options contradict each other, or the metric is no metric.

    Source:
        Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", theorem 5.2.

    Example:
        >>> support = torch.tensor([[[-1.0], [1.0]]])
        >>> head = KernelAttention(fv.CondOT())
        >>> head(torch.tensor([[[0.0], [0.5]]]), 0.5, support)
        tensor([[[0.0000],
                 [0.5232]]])
    """

    projections: Tensor | None
    mixture: Tensor | None

    def __init__(
        self,
        path: GaussianPath | None = None,
        *,
        dim: int | None = None,
        heads: int = 1,
        metric: Tensor | str | None = None,
        factor: Tensor | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        if path is not None and not isinstance(path, GaussianPath):
            raise TypeError(f"path must be a path such as fv.CondOT(), got {path!r}")
        self.path = CondOT(sigma_min=0.01) if path is None else path
        self.dim, rank = checked_heads(dim, heads, metric, factor, rank)
        if self.dim is not None and (heads > 1 or isinstance(metric, str)):
            self.projections = nn.Parameter(_starting_projections(heads, rank, self.dim))
        else:
            fixed = checked_factor(metric if isinstance(metric, Tensor) else None, factor)
            self.register_buffer("projections", None if fixed is None else fixed.T[None].contiguous())
        # Heads that start as one kernel have one gradient as well: different shares let them part.
        self.register_parameter("mixture", nn.Parameter(0.1 * torch.randn(heads)) if heads > 1 else None)

    @property
    def singular_at_end(self) -> bool:
        """Whether the velocity is infinite off the support at ``t = 1`` (sigma = 0 there)."""
        return self.path.last_sigma == 0

    def forward(
        self,
        x: Float[Tensor, "B n d"],
        t: Tensor | float,
        support: Tensor | Tokens,
        mask: Bool[Tensor, "B m"] | None = None,
    ) -> Float[Tensor, "B n d"]:
        """Velocity at ``(x, t)`` of the path from noise to each task's support.

        Args:
            x: Points of ``B`` tasks, in data units; those that are not finite give NaN.
            t: Times in [0, 1]: a scalar, one for each task ``(B,)`` or one for each point ``(B, n)``.
            support: Examples of each task, shape ``(B, m, d)``; or ``Tokens`` of them with their mask.
            mask: Which examples are there, at least one of each task; None for all.

        Returns:
            Velocities, of x's type.

        Raises:
            TypeError: If an argument is no tensor.
            ValueError: If shapes do not fit, a value is not finite, a time is outside [0, 1], or sigma is 0 there.
        """
        block = checked_block(x, t, support, mask, self.dim, self.path, needs_noise=True)
        return self._mapped(block, velocity).to(x.dtype)

    def posterior_mean(
        self, x: Float[Tensor, "B n d"], t: Tensor | float, support: Tensor | Tokens, mask: Tensor | None = None
    ) -> Float[Tensor, "B n d"]:
        """Mean of the support under the weights; where sigma = 0 the nearest point.

        Arguments and errors are those of the velocity, but for sigma = 0.

        Example:
            >>> KernelAttention().posterior_mean(torch.zeros(1, 1, 1), 0.0, torch.tensor([[[1.0], [3.0]]]))
            tensor([[[2.]]])
        """
        block = checked_block(x, t, support, mask, self.dim, self.path, needs_noise=False)
        return self._mapped(block, lambda part, _, offset: offset + part.centre()).to(x.dtype)

    def weights(
        self, x: Float[Tensor, "B n d"], t: Tensor | float, support: Tensor | Tokens, mask: Tensor | None = None
    ) -> Float[Tensor, "B n m"]:
        """Weight of each example at each point, the heads' mixed; where sigma = 0 their limit.

        Arguments and errors are those of the velocity, but for sigma = 0.

        Example:
            >>> KernelAttention().weights(torch.zeros(1, 1, 1), 0.5, torch.tensor([[[-1.0], [1.0]]]))
            tensor([[[0.5000, 0.5000]]])
        """
        block = checked_block(x, t, support, mask, self.dim, self.path, needs_noise=False)
        return self._tiled(self._weights, block, self._late(block)).to(x.dtype)

    def effective_sample_size(
        self, x: Float[Tensor, "B n d"], t: Tensor | float, support: Tensor | Tokens, mask: Tensor | None = None
    ) -> Float[Tensor, "B n"]:
        """``1 / sum_i w_i^2`` at each point, between 1 and m; arguments and errors are those of the weights.

        Example:
            >>> KernelAttention().effective_sample_size(torch.zeros(1, 1, 1), 0.0, torch.tensor([[[-1.0], [1.0]]]))
            tensor([[2.]])
        """
        block = checked_block(x, t, support, mask, self.dim, self.path, needs_noise=False)

        def size(part: Block, subtract: Tensor | None) -> Tensor:
            return 1 / self._weights(part, subtract).square().sum(2)

        return self._tiled(size, block, self._late(block)).to(x.dtype)

    def extra_repr(self) -> str:
        shape = "isotropic" if self.projections is None else f"projections={tuple(self.projections.shape)}"
        return f"path={self.path!r}, {shape}"

    @property
    def _heads(self) -> Heads:
        return Heads(self.projections, None if self.mixture is None else torch.softmax(self.mixture, 0))

    def _weights(self, block: Block, subtract: Tensor | None) -> Tensor:
        return kernel_weights(block, self.path, self._heads, subtract)

    def _mapped(self, block: Block, result: Callable[[Block, GaussianPath, Tensor], Tensor]) -> Tensor:
        """A function of each block and its mean's offset; tasks that are early throughout go by fused attention."""

        def fused(part: Block, _: Tensor | None) -> Tensor:
            return result(part, self.path, fused_offset(part, self.path, self._heads))

        def direct(part: Block, late: Tensor | None) -> Tensor:
            return result(part, self.path, self._weights(part, late) @ (part.support.double() - part.centre()))

        error, tolerance = noise_error(block, self.path, self._heads), TOLERANCE[block.x.dtype]
        late = self._late(block, error)
        early = (error <= tolerance).all(1)
        # Fused attention has no derivative in forward mode.
        count = 0 if differentiates_forward(block.x, block.t, block.support, *self._learned()) else int(early.sum())
        if count == 0:
            return self._tiled(direct, block, late)
        if count == len(early):
            return self._tiled(fused, block)
        order = torch.argsort(early.int(), stable=True, descending=True)
        first, rest = order[:count], order[count:]
        parts = [self._tiled(fused, block.part(first)), self._tiled(direct, block.part(rest), late[rest])]
        return torch.cat(parts)[order.argsort()]

    def _late(self, block: Block, error: Tensor | None = None) -> Tensor:
        """Points at which products lose too much in float64 as well, ``(b, n)``; those that are not finite count."""
        error = noise_error(block, self.path, self._heads) if error is None else error
        finer = unit_roundoff(torch.float64) / unit_roundoff(block.x.dtype)
        return ~(error * finer <= TOLERANCE[block.x.dtype])

    def _learned(self) -> list[Tensor]:
        return [part for part in (self.projections, self.mixture) if part is not None]

    def _tiled(self, function: OfBlock, block: Block, late: Tensor | None = None) -> Tensor:
        copies = 1 if self.projections is None else len(self.projections)
        # Half precision would cost the logits the digits that the field is made of.
        with torch.autocast(block.x.device.type, enabled=False):
            return tiled(function, block, late, copies, self._learned())


def _starting_projections(heads: int, rank: int, dim: int) -> Tensor:
    """The identity and, for further heads, rotations; random orthonormal rows if they are fewer than ``dim``."""
    parts = [nn.init.orthogonal_(torch.empty(rank, dim)) for _ in range(heads)]
    if rank == dim:
        parts[0] = torch.eye(dim)
    return torch.stack(parts)
