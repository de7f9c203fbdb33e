"""Attention that a module writes out itself, as a product of queries and keys that reaches a softmax.

Between the two, the product may be scaled, cast, masked, and have biases added.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from fluvial.support.probing.calls import ABSENT, AttentionCall, four_dimensional

_MATMUL = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)
_TIMES = (torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__)
_OVER = (torch.div, Tensor.div, Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__)
_PLUS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
_FILL = (torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_)
_SAME = (Tensor.float, Tensor.half, Tensor.double, Tensor.to, Tensor.type, Tensor.contiguous, Tensor.clone)
_TURNS = (torch.transpose, Tensor.transpose, Tensor.permute, torch.permute, *_SAME)
_SOFTMAX = (torch.softmax, nn.functional.softmax, Tensor.softmax)


@dataclass(frozen=True)
class _Product:
    """``factor q k^T + mask``, whose columns ``there`` says count."""

    q: Tensor
    k: Tensor
    factor: float = 1.0
    mask: Tensor | None = None

    def plus(self, mask: Tensor) -> "_Product":
        return replace(self, mask=mask if self.mask is None else self.mask + mask)


class WrittenAttention:
    """Follows products of queries and keys to their softmax.

    Example:
        >>> written, q, k = WrittenAttention(), torch.ones(1, 2, 4), torch.ones(1, 3, 4)
        >>> logits = torch.bmm(q, k.mT)
        >>> written.see(torch.bmm, (q, k.mT), {}, logits, None)
        >>> call = written.see(torch.softmax, (logits, -1), {}, logits.softmax(-1), None)
        >>> call.k.shape, call.scale
        (torch.Size([1, 1, 3, 4]), 1.0)
    """

    def __init__(self) -> None:
        self._products: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._factors: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def see(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any, heads: int | None
    ) -> AttentionCall | None:
        """The call that a softmax completes; None for all else.

        Args:
            func: Function of torch that was called.
            args: Its positional arguments.
            kwargs: Its other arguments.
            out: What it returned.
            heads: Heads that may be folded into the batch.
        """
        if func is Tensor.__setitem__:
            self._products.pop(args[0], None)
        if not isinstance(out, Tensor):
            return None
        if func in _SOFTMAX:
            return self._finished(args, kwargs, heads)
        product = self._begun(func, args, kwargs) or self._changed(func, args, kwargs, out)
        if product is not None and product.q.ndim == product.k.ndim == out.ndim:
            self._products[out] = product
        else:
            # What was changed in place in a way that is not followed is a product no more.
            self._products.pop(out, None)
        return None

    def _begun(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Product | None:
        if func in _MATMUL and len(args) == 2:
            return self._of(args[0], args[1])
        if func is torch.baddbmm and len(args) == 3:
            product = self._of(args[1], args[2])
            beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
            if product is None:
                return None
            product = replace(product, factor=product.factor * alpha)
            return product.plus(beta * args[0]) if beta else product
        if func is torch.einsum and len(args) == 3 and isinstance(args[0], str):
            operands = _as_product(*args)
            return None if operands is None else self._of(operands[0], operands[1].mT, args[1:])
        return None

    def _of(self, q: Any, kt: Any, scaled: tuple[Any, ...] | None = None) -> _Product | None:
        """The product of two stacks of matrices; scales that were applied to either before go to the factor."""
        if not (isinstance(q, Tensor) and isinstance(kt, Tensor)) or min(q.ndim, kt.ndim) < 3:
            return None
        if isinstance(q, nn.Parameter) or isinstance(kt, nn.Parameter):
            return None
        q_scale, k_scale = (float(self._factors.get(x, 1.0)) for x in (scaled or (q, kt)))
        k = kt.mT
        return _Product(q / q_scale if q_scale != 1 else q, k / k_scale if k_scale != 1 else k, q_scale * k_scale)

    def _changed(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor) -> _Product | None:
        """What becomes of a product, and what becomes of scaled queries and keys."""
        if not args:
            return None
        first, other = args[0], args[1] if len(args) > 1 else kwargs.get("other")
        if func in _TIMES or func in _OVER:
            if not isinstance(first, Tensor):
                first, other = other, first
            factor = _number(other)
            return None if factor is None else self._scaled(first, 1 / factor if func in _OVER else factor, out)
        product: _Product | None = self._products.get(first) if isinstance(first, Tensor) else None
        if product is None:
            if func in _TURNS and isinstance(first, Tensor) and first in self._factors:
                self._factors[out] = self._factors[first]
            turned: _Product | None = self._products.get(other) if func in _PLUS and isinstance(other, Tensor) else None
            return turned.plus(first) if turned is not None and isinstance(first, Tensor) else None
        return _adapted(product, func, args, kwargs)

    def _scaled(self, x: Any, factor: float, out: Tensor) -> _Product | None:
        product: _Product | None = self._products.get(x)
        if product is None:
            if x.ndim >= 3 and factor > 0:
                self._factors[out] = factor * float(self._factors.get(x, 1.0))
            return None
        mask = None if product.mask is None else product.mask * factor
        return replace(product, factor=product.factor * factor, mask=mask)

    def _finished(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], heads: int | None) -> AttentionCall | None:
        logits = args[0] if args else kwargs.get("input")
        product = self._products.get(logits) if isinstance(logits, Tensor) else None
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if product is None or logits is None or dim not in (-1, logits.ndim - 1):
            return None
        q, k = (x.expand(*logits.shape[:-2], *x.shape[-2:]) for x in (product.q, product.k))
        mask = None if product.mask is None else four_dimensional(product.mask.expand(logits.shape), heads)
        return AttentionCall(four_dimensional(q, heads), four_dimensional(k, heads), product.factor, mask)


def _adapted(product: _Product, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Product | None:
    """A product with a mask or a bias added, or cast."""
    if func in _PLUS:
        other = args[1] if len(args) > 1 else kwargs.get("other")
        return product.plus(other) if isinstance(other, Tensor) and kwargs.get("alpha", 1) == 1 else product
    if func in _FILL:
        mask, value = args[1] if len(args) > 1 else kwargs["mask"], _number(args[-1])
        value = _number(kwargs.get("value")) if len(args) < 3 else value
        if value is None or value > ABSENT:
            return None
        return product.plus(torch.zeros_like(mask, dtype=product.q.dtype).masked_fill(mask, -torch.inf))
    return product if func in _SAME else None


def _number(value: Any) -> float | None:
    """A number, or a tensor of one value, as float."""
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Tensor) and value.ndim == 0:
        return float(value)
    return None


def _as_product(equation: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor] | None:
    """Operands of an ``einsum`` as queries and keys, tokens and channels last; None if it is no such product."""
    left, _, out = equation.replace(" ", "").partition("->")
    names = left.split(",")
    if len(names) != 2 or len(out) < 3 or "." in equation or any(len(set(n)) < len(n) for n in (*names, out)):
        return None
    batch, row, column = out[:-2], out[-2], out[-1]
    inner = set(names[0]) & set(names[1]) - set(out)
    if len(inner) != 1:
        return None
    orders = [batch + row + min(inner), batch + column + min(inner)]
    if any(set(order) != set(name) for order, name in zip(orders, names, strict=True)):
        return None
    moved = [
        x.permute([name.index(letter) for letter in order])
        for x, name, order in zip((a, b), names, orders, strict=True)
    ]
    return moved[0], moved[1]
