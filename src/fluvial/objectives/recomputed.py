"""A function whose graph is not kept but made once more for the gradient, derivatives inside it included.

``torch.utils.checkpoint`` does the same for functions that take no derivatives themselves: where one does, as a
divergence must, it recomputes already on the way forward, or (its older form) hides the weights from what waits for
their gradients, such as data-parallel wrappers. Here the weights are found in the graph and become inputs of one
``autograd.Function``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

Function = Callable[[Tensor], Tensor]


def recomputed(function: Function, z: Tensor) -> Tensor:
    """``function(z)``, of which only ``z`` is kept; the gradient evaluates it once more, with the same random draws.

    Gradients reach ``z`` and every leaf, such as a weight, that the value depends on.

    Args:
        function: From a tensor to a tensor of the same shape.
        z: Where it is evaluated.

    Example:
        >>> w = torch.tensor(3.0, requires_grad=True)
        >>> recomputed(lambda z: w * z.square(), torch.tensor([2.0])).sum().backward()
        >>> w.grad
        tensor(4.)
    """
    draws = _Draws(z.device)
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        end = function(at)
    weights = [leaf for leaf in leaves(end) if leaf is not at]
    found: Tensor = _Recomputed.apply(function, end.detach(), draws, z, *weights)  # type: ignore[no-untyped-call]
    return found


def leaves(value: Tensor) -> list[Tensor]:
    """The tensors at the ends of the graph that made a value, such as the weights of a net.

    Example:
        >>> a, b = torch.ones(2, requires_grad=True), torch.ones(2)
        >>> [leaf is a for leaf in leaves(a * b)]
        [True]
    """
    found, seen, ahead = list[Tensor](), set[Any](), [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        ahead += [parent for parent, _ in node.next_functions]
    return found


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, end: Tensor, draws: "_Draws", z: Tensor, *leaves: Tensor) -> Tensor:
        ctx.function, ctx.draws = function, draws
        ctx.save_for_backward(z, *leaves)
        return end.view_as(end)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        z, *leaves = ctx.saved_tensors
        # Fused attention has no second derivative.
        with torch.enable_grad(), ctx.draws.again(), sdpa_kernel(SDPBackend.MATH):
            at = z.detach().requires_grad_()
            end = ctx.function(at)
            # The graph of a condition made outside belongs to other steps as well.
            found = torch.autograd.grad(end, [at, *leaves], slope, retain_graph=True, allow_unused=True)
        return None, None, None, *found


class _Draws:
    """Where torch's global generators stand, such as for dropout, so that the same can be drawn again."""

    def __init__(self, device: torch.device) -> None:
        self._device = [device] if device.type == "cuda" else []
        self._host = torch.get_rng_state()
        self._there = [torch.cuda.get_rng_state(each) for each in self._device]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Inside, the draws are repeated; afterwards the generators stand where they did."""
        with torch.random.fork_rng(devices=self._device):
            torch.set_rng_state(self._host)
            for device, state in zip(self._device, self._there, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
