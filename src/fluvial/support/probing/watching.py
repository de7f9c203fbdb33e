"""Sees every attention of a running model, without changing what it computes.

A ``TorchFunctionMode`` sees the functions of torch that are called; hooks that hold for all modules keep a stack of
the modules under way. Torch's transformer layers leave their fast path while such a mode is on, or hooks of their own
are attached; so the mode is off while they run, and they are recorded by what goes in.
"""

import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils.hooks import RemovableHandle

from fluvial.support.probing.calls import AttentionCall, fused_call
from fluvial.support.probing.multihead import from_function, from_module, multihead_call, same_tokens
from fluvial.support.probing.origins import Origins
from fluvial.support.probing.written import WrittenAttention

_FUSED = inspect.signature(
    lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False: None
)
_PROJECTIONS = (nn.functional.linear, torch.conv1d, torch.conv2d, torch.conv3d)
_MATMUL = (torch.matmul, Tensor.matmul, Tensor.__matmul__)
_HEADS = ("heads", "num_heads", "n_heads", "num_attention_heads")

Seen = Callable[[str, AttentionCall, bool, str], None]
"""Called with the layer's name, the call, whether it is self-attention, and the module that made the keys."""


class Watch(TorchFunctionMode):
    """The mode and the hooks; enter and leave by :meth:`start` and :meth:`stop`.

    Args:
        names: Full name of each module by its ``id``.
        seen: What is told of each attention.
    """

    def __init__(self, names: dict[int, str], seen: Seen) -> None:
        super().__init__()
        self._names, self._seen = names, seen
        self._stack: list[nn.Module] = []
        self._paused: list[nn.Module] = []
        self._multihead_calls: list[int] = []
        self._count = 0
        self._handles: list[RemovableHandle] = []
        self._on = False
        self._thread = threading.get_ident()
        self._origins, self._written = Origins(), WrittenAttention()

    def start(self) -> None:
        """Begin to watch this thread."""
        self._handles = [
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._left, with_kwargs=True, always_call=True),
        ]
        self._switch(True)

    def stop(self) -> None:
        """Remove everything."""
        self._switch(False)
        for handle in self._handles:
            handle.remove()
        self._stack.clear()
        self._paused.clear()

    def _switch(self, on: bool) -> None:
        if on == self._on:
            return
        self._on = on
        if on:
            super().__enter__()  # type: ignore[no-untyped-call]
        else:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self._paused and threading.get_ident() == self._thread and not _transforming():
            with torch.no_grad():
                self._look(func, args, kwargs, out)
        return out

    def _look(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        module = self._current()
        if module is None:
            return
        call: AttentionCall | None
        if func is nn.functional.scaled_dot_product_attention:
            call = fused_call(dict(_FUSED.bind(*args, **kwargs).arguments), _heads(module))
            self._tell(call)
        elif func is nn.functional.multi_head_attention_forward:
            arguments = from_function(args, kwargs)
            self._tell(multihead_call(arguments), same_tokens(arguments))
        else:
            self._trace(func, args, out)
            call = self._written.see(func, args, kwargs, out, _heads(module))
            if call is not None:
                self._tell(call)

    def _trace(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        """Keep track of what tensors are made of."""
        if not (isinstance(out, Tensor) and args and isinstance(args[0], Tensor)):
            return
        projects = func in _PROJECTIONS or (func in _MATMUL and isinstance(args[1], nn.Parameter))
        if projects:
            self._origins.projected(out, args[0], self._name())
        elif out.numel() == args[0].numel():
            self._origins.inherited(out, args[0])

    def _tell(self, call: AttentionCall, same: bool | None = None) -> None:
        origin = self._origins.of(call.k)
        same = self._origins.same_source(call.q, call.k) if same is None else same
        self._seen(self._name(), call, same, "" if origin is None else origin.maker)

    def _current(self) -> nn.Module | None:
        """The innermost module under way that belongs to the model."""
        return next((module for module in reversed(self._stack) if id(module) in self._names), None)

    def _name(self) -> str:
        module = self._current()
        return "" if module is None else self._names[id(module)]

    def _entered(self, module: nn.Module, args: Any) -> None:
        if threading.get_ident() != self._thread or not self._handles:
            return
        self._stack.append(module)
        self._multihead_calls.append(self._count)
        if _has_fast_path(module):
            self._paused.append(module)
            # Another mode above this one keeps the fast path away in any case.
            if self._on and _get_current_function_mode() is self:
                self._switch(False)

    def _left(self, module: nn.Module, args: Any, *rest: Any) -> None:
        if threading.get_ident() != self._thread or module not in self._stack:
            return
        before = self._count
        while self._stack:
            left, before = self._stack.pop(), self._multihead_calls.pop()
            if left is module:
                break
        while self._paused and self._paused[-1] not in self._stack:
            self._paused.pop()
        try:
            # After an error the hook is called without the keyword arguments.
            if len(rest) == 2:
                self._recorded_by_input(module, args, rest[0], before)
        finally:
            if not self._paused:
                self._switch(True)

    def _recorded_by_input(self, module: nn.Module, args: Any, kwargs: dict[str, Any], before: int) -> None:
        """Record torch's own attention, now that it is done, from what went in."""
        if id(module) not in self._names:
            return
        inputs = [*args, *kwargs.values()]
        if any(isinstance(x, Tensor) and x.is_nested for x in inputs):
            return
        self._stack.append(module)
        try:
            if _is_multihead(module):
                self._count += 1
                arguments = from_module(module, args, kwargs)
                self._tell(multihead_call(arguments), same_tokens(arguments))
            elif type(module) is nn.TransformerEncoderLayer and self._count == before:
                self._tell(multihead_call(_of_layer(module, *args, **kwargs)), True)
        finally:
            self._stack.pop()


def _of_layer(
    layer: nn.TransformerEncoderLayer,
    src: Tensor,
    src_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool = False,
) -> dict[str, Any]:
    """Arguments of the attention of a layer that ran fused as a whole."""
    x = layer.norm1(src) if layer.norm_first else src
    masks = {"attn_mask": src_mask, "key_padding_mask": src_key_padding_mask}
    return from_module(layer.self_attn, (x, x, x), masks)


def _is_multihead(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    return isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward


def _transforming() -> bool:
    """Whether tensors are wrappers of a transform of torch.func, or stand for a graph that is being made."""
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


def _has_fast_path(module: nn.Module) -> bool:
    if type(module) is nn.TransformerEncoder:
        return all(type(layer) is nn.TransformerEncoderLayer for layer in module.layers)
    return type(module) is nn.TransformerEncoderLayer or _is_multihead(module)


def _heads(module: nn.Module) -> int | None:
    """Heads of a module, where it says."""
    found = (vars(module).get(name) for name in _HEADS)
    return next((heads for heads in found if isinstance(heads, int) and heads > 0), None)
