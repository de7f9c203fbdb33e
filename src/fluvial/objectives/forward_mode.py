r"""Derivatives along a direction, in forward mode and at the cost of what they must compute.

A dual number is a value with its tangent. Where only one operand of an operation has a tangent, as with the weights
of a net, torch makes zeros for the other and adds what comes of them in Python: about 0.1 ms each time, which in a
small net is several times the work itself. Here the operations that nets are made of follow a shorter rule, and all
others torch's own.

Normalisations have the Jacobian :math:`(I - 1 1^\top/n - \hat x \hat x^\top/n)/\sigma`, with :math:`\hat x` the
normalised input, and the softmax :math:`\mathrm{diag}(p) - p p^\top`. Both are symmetric, so that the product with a
tangent is the product with a gradient, for which torch has one fused operation.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


def derivative_along(function: Callable[..., Tensor], at: Sequence[Tensor], along: Sequence[Tensor]) -> Tensor:
    """Derivative of a function of tensors along a direction, without a gradient.

    Args:
        function: Takes as many tensors as there are in ``at``, and gives one.
        at: Where the derivative is taken.
        along: The direction, one tensor like each of ``at``.

    Returns:
        The derivative, of the shape of the function's value; zeros where it does not depend on its arguments.

    Example:
        >>> derivative_along(lambda x, t: x * t, (torch.tensor(2.0), torch.tensor(3.0)), (torch.ones(()),) * 2)
        tensor(5.)
    """
    # Fused attention and compiled code have no forward mode.
    with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), _uncompiled():
        duals = [forward_ad.make_dual(value, tangent) for value, tangent in zip(at, along, strict=True)]
        with _ShortRules():
            value, tangent = forward_ad.unpack_dual(function(*duals))
    return torch.zeros_like(value) if tangent is None else tangent


def _uncompiled() -> AbstractContextManager[object]:
    """Inside, compiled nets run as they were written."""
    if "torch._dynamo" not in sys.modules or torch.compiler.is_compiling():  # without it nothing has been compiled
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


class _ShortRules(TorchFunctionMode):
    """Applies a short rule where there is one and it fits the operands, and otherwise torch's."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        rule = _RULES.get(func)
        found = None if rule is None else rule(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is None else found


# Rules call their arguments as torch does, since callers may pass them by name; they give None where they do not fit.


def _affine(
    func: Callable[..., Tensor], input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any
) -> Tensor | None:
    """A matrix product or convolution is linear in its input where the weights stand still."""
    value, tangent = _parts(input)
    if tangent is None or _moves(weight, bias):
        return None
    moved = func(tangent, weight, None, *rest, **named)
    return _dual(func(value, weight, bias, *rest, **named), moved)


def _product(func: Callable[..., Tensor], input: Any, other: Any, **named: Any) -> Tensor | None:
    """A product is linear in the factor that moves where the other stands still."""
    (a, a_tangent), (b, b_tangent) = _parts(input), _parts(other)
    if named or (a_tangent is None) == (b_tangent is None):
        return None
    return _dual(func(a, b), func(a, b_tangent) if a_tangent is None else func(a_tangent, b))


def _quotient(func: Callable[..., Tensor], input: Any, other: Any, **named: Any) -> Tensor | None:
    return None if _moves(other) else _product(func, input, other, **named)


def _sum(func: Callable[..., Tensor], input: Any, other: Any, **named: Any) -> Tensor | None:
    """A constant moves nothing. The tangent is a copy, since a later operation in place may change it."""
    (a, a_tangent), (b, b_tangent) = _parts(input), _parts(other)
    if named or (a_tangent is None) == (b_tangent is None):
        return None
    value, tangent = func(a, b), b_tangent if a_tangent is None else a_tangent
    if tangent is None or tangent.dtype != value.dtype:
        return None
    tangent = tangent.expand(value.shape)
    return _dual(value, -tangent if a_tangent is None and func in _DIFFERENCES else tangent.clone())


def _layer_norm(
    func: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    x, tangent = _parts(input)
    if tangent is None or not _full_precision(x, weight, bias):
        return None
    value, mean, scale = torch.native_layer_norm(x, normalized_shape, weight, bias, eps)
    back = torch.ops.aten.native_layer_norm_backward
    moved: Tensor = back(tangent, x, normalized_shape, mean, scale, None, None, [True, False, False])[0]
    return _dual(value, moved if weight is None else moved * weight)


def _group_norm(
    func: Callable[..., Tensor],
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    x, tangent = _parts(input)
    if tangent is None or not _full_precision(x, weight, bias) or not x.numel() or x.shape[1] % num_groups:
        return None
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    x, tangent = x.contiguous(memory_format=layout), tangent.contiguous(memory_format=layout)
    rows, channels, size = len(x), x.shape[1], x.shape[2:].numel()
    value, mean, scale = torch.native_group_norm(x, weight, bias, rows, channels, size, num_groups, eps)
    back, wanted = torch.ops.aten.native_group_norm_backward, [True, False, False]
    moved: Tensor = back(tangent, x, mean, scale, None, rows, channels, size, num_groups, wanted)[0]
    return _dual(value, moved if weight is None else moved * weight.reshape(-1, *[1] * (x.ndim - 2)))


def _softmax(
    func: Callable[..., Tensor], input: Tensor, dim: int, *rest: Any, _stacklevel: int = 3, dtype: Any = None
) -> Tensor | None:
    x, tangent = _parts(input)
    if tangent is None or rest or dtype is not None:
        return None
    value = func(x, dim)
    moved: Tensor = torch.ops.aten._softmax_backward_data(tangent, value, dim, x.dtype)
    return _dual(value, moved)


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    made: Tensor = forward_ad.make_dual(value, tangent)
    return made


def _parts(value: Any) -> tuple[Any, Tensor | None]:
    """A value and its tangent, None where it has none."""
    return forward_ad.unpack_dual(value) if isinstance(value, Tensor) else (value, None)


def _moves(*values: Any) -> bool:
    return any(_parts(value)[1] is not None for value in values)


def _full_precision(x: Tensor, *weights: Tensor | None) -> bool:
    """Whether all are of one type of full precision, and the weights stand still."""
    given = [weight for weight in weights if weight is not None]
    same = all(weight.dtype == x.dtype for weight in given)
    return x.dtype in (torch.float32, torch.float64) and same and not _moves(*given)


_DIFFERENCES = (torch.sub, Tensor.sub)
_RULES: dict[Any, Callable[..., Tensor | None]] = {
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    **dict.fromkeys((F.linear, F.conv1d, F.conv2d, F.conv3d), _affine),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _affine),
    **dict.fromkeys((torch.softmax, Tensor.softmax, F.softmax), _softmax),
    **dict.fromkeys((torch.mul, Tensor.mul, torch.matmul, Tensor.matmul), _product),
    **dict.fromkeys((torch.div, Tensor.div), _quotient),
    **dict.fromkeys((torch.add, Tensor.add, *_DIFFERENCES), _sum),
}
