r"""The local mean of a support as a differentiable function of the point, of alpha and of sigma.

In the support's values, with ``x`` moved and scaled alike, the exponents are :math:`\ell_i = (\alpha/\sigma^2) \langle
x, s_i \rangle - (\alpha^2 / 2 \sigma^2) \|s_i\|^2`, and the mean moves by :math:`dm = \mathrm{Cov}_w(s, d\ell)`. In
``x`` that is :math:`(\alpha/\sigma^2) \mathrm{Cov}_w`, symmetric, so one tiled product serves both modes of
differentiation and autograd never runs through the tiles. It can be differentiated once.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fluvial.smoothing.derivatives import covariance_product
from fluvial.smoothing.engine import moments
from fluvial.smoothing.query import Effort, Moments, Query
from fluvial.smoothing.support import Support


class _LocalMean(torch.autograd.Function):
    """All moments of a query; the offset of the mean from the top point alone carries derivatives."""

    @staticmethod
    def forward(
        x: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        support: Support,
        labels: Tensor | None,
        log_prior: Tensor | None,
        effort: Effort,
    ) -> tuple[Tensor, ...]:
        return moments(support, Query(x, alpha, sigma, labels, log_prior), effort, stats=True).parts()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, alpha, sigma, ctx.support, labels, log_prior, ctx.effort = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(part for part in output if part is not output[Moments.OFFSET]))
        ctx.save_for_backward(x, alpha, sigma, labels, log_prior, *output)
        ctx.save_for_forward(x, alpha, sigma, labels, log_prior, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = grads[Moments.OFFSET]
        if grad is None:
            return None, None, None, None, None, None, None
        motion = _Motion(ctx)
        by_x = motion.by_x(grad) if ctx.needs_input_grad[0] else None
        by_alpha = (grad * motion.by_alpha(1.0)).sum(1) if ctx.needs_input_grad[1] else None
        by_sigma = (grad * motion.by_sigma(1.0)).sum(1) if ctx.needs_input_grad[2] else None
        return by_x, by_alpha, by_sigma, None, None, None, None

    @staticmethod
    def jvp(
        ctx: Any, x: Tensor | None, alpha: Tensor | None, sigma: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        motion = _Motion(ctx)
        moved = torch.zeros_like(motion.query.x)
        if x is not None:
            moved = moved + motion.by_x(x)
        if alpha is not None:
            moved = moved + motion.by_alpha(alpha)
        if sigma is not None:
            moved = moved + motion.by_sigma(sigma)
        return tuple(moved if i == Moments.OFFSET else None for i in range(len(fields(Moments))))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        size = info.batch_size

        def fold(part: Any, dim: int | None) -> Any:
            if not isinstance(part, Tensor):
                return part
            part = part.movedim(dim, 0) if dim is not None else part.expand(size, *part.shape)
            return part.flatten(0, 1)

        folded = _all_moments(*(fold(part, dim) for part, dim in zip(inputs, in_dims, strict=True)))
        outputs = tuple(part.unflatten(0, (size, -1)) for part in folded)
        return outputs, (0,) * len(outputs)


class _Once(torch.autograd.Function):
    """Passes a first derivative on, tied to what it depends on, so that a second one fails instead of being silently
    wrong."""

    generate_vmap_rule = True

    @staticmethod
    def forward(derivative: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return derivative.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError("the exact field can be differentiated once, not twice")

    @staticmethod
    def jvp(ctx: Any, *_: Tensor | None) -> Any:
        raise RuntimeError("the exact field can be differentiated once, not twice")


_all_moments: Callable[..., tuple[Tensor, ...]] = _LocalMean.apply
_once: Callable[..., Tensor] = _Once.apply


class _Motion:
    """How the mean of a query, in the support's values, moves as its point, its alpha or its sigma moves."""

    def __init__(self, ctx: Any) -> None:
        x, alpha, sigma, labels, log_prior, *found = ctx.saved_tensors
        self.support: Support = ctx.support
        self.effort: Effort = ctx.effort
        self.query = Query(x, alpha, sigma, labels, log_prior)
        self.found = Moments(*found)
        # A unit of the point is 1 / unit of a value, and so is one of sigma.
        self._x = self.query.in_values(self.support).precise(self.support)
        self._sigma = sigma / self.support.unit

    def by_x(self, rate: Tensor) -> Tensor:
        gain = self.query.alpha / self._sigma.square()
        direction = rate.double() * (gain / self.support.unit)[:, None]
        return self._product(direction, torch.zeros_like(gain))

    def by_alpha(self, rate: Tensor | float) -> Tensor:
        direction, shift = self._x, self.support.shift
        if shift is not None:
            direction = direction - self.query.alpha[:, None] * shift
        scale = rate / self._sigma.square()
        return self._product(direction * scale[:, None], -self.query.alpha * scale)

    def by_sigma(self, rate: Tensor | float) -> Tensor:
        scale = -2 * rate * self.query.alpha / (self._sigma**3 * self.support.unit)
        return self._product(self._x * scale[:, None], -0.5 * self.query.alpha * scale)

    def _product(self, direction: Tensor, rate: Tensor) -> Tensor:
        product = covariance_product(self.support, self.query, self.found, direction, rate, self.effort)
        return _once(product.to(self.query.x.dtype), self.query.x, self.query.alpha, self.query.sigma)


def needs_derivatives(*inputs: Tensor | float) -> bool:
    """Whether a result must carry derivatives with respect to any of the inputs, in whatever mode.

    Where it need not, cheaper ways of computing are open.
    """
    tensors = [part for part in inputs if isinstance(part, Tensor)]
    if torch.is_grad_enabled() and any(part.requires_grad for part in tensors):
        return True
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return any(wrapped(part) or forward_ad.unpack_dual(part).tangent is not None for part in tensors)


def local_mean(support: Support, query: Query, effort: Effort | None = None) -> tuple[Tensor, Tensor]:
    """Top point of every row and the mean's offset from it, both ``(B, d)``; their sum is the mean.

    They are kept apart because ``x - mean`` is exact as ``(x - top) - offset`` where ``x`` is close to the top point.
    Differentiable, once, in the query's ``x``, ``alpha`` and ``sigma``.

    Example:
        >>> support = Support(torch.tensor([[0.0], [2.0]]))
        >>> half = torch.full((1,), 0.5, dtype=torch.float64)
        >>> local_mean(support, Query(torch.tensor([[0.5]]), half, half))
        (tensor([[0.]]), tensor([[1.]]))
    """
    effort = Effort() if effort is None else effort
    found = Moments(*_all_moments(query.x, query.alpha, query.sigma, support, query.labels, query.log_prior, effort))
    return support.data(found.top_index, found.offset.dtype), found.offset * support.unit
