"""Calls of ``torch.nn.MultiheadAttention``, whose projections happen out of sight."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from fluvial.support.probing.calls import AttentionCall

_MODULE = inspect.signature(nn.MultiheadAttention.forward)
_FUNCTION = inspect.signature(nn.functional.multi_head_attention_forward)


def from_module(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``multi_head_attention_forward`` that matter here, of a module's call.

    Args:
        module: The module.
        args: Its positional arguments.
        kwargs: Its other arguments.
    """
    given = _MODULE.bind(module, *args, **kwargs).arguments
    found = {name: given[name] for name in ("query", "key", "value")}
    if module.batch_first and given["query"].ndim == 3:
        found = {name: value.transpose(0, 1) for name, value in found.items()}
    found |= {name: given.get(name) for name in ("attn_mask", "key_padding_mask")}
    found |= {"num_heads": module.num_heads, "add_zero_attn": module.add_zero_attn, "bias_k": module.bias_k}
    names = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight")
    return found | {name: getattr(module, name) for name in names}


def from_function(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The same of a call of the function itself."""
    return dict(_FUNCTION.bind(*args, **kwargs).arguments)


def multihead_call(arguments: dict[str, Any]) -> AttentionCall:
    """Queries and keys of all heads, projected as the module does.

    Args:
        arguments: Arguments of ``multi_head_attention_forward`` by name; query and key have shape ``(n, B, F)``, or
            ``(n, F)`` without a batch.
    """
    query, key, heads = arguments["query"], arguments["key"], arguments["num_heads"]
    batched = query.ndim == 3
    if not batched:
        query, key = query[:, None], key[:, None]
    width = query.shape[-1]
    packed, bias = arguments["in_proj_weight"], arguments["in_proj_bias"]
    q_weight, k_weight = (arguments.get(f"{name}_proj_weight") for name in "qk")
    if q_weight is None or k_weight is None:
        q_weight, k_weight = packed[:width], packed[width : 2 * width]
    q_bias, k_bias = (None, None) if bias is None else (bias[:width], bias[width : 2 * width])
    q = nn.functional.linear(query, q_weight, q_bias)
    k = nn.functional.linear(key, k_weight, k_bias)
    more = arguments.get("bias_k")
    if more is not None:
        k = torch.cat([k, more.to(k.dtype).expand(1, *k.shape[1:])])
    if arguments.get("static_k") is None:
        q, k = (x.unflatten(2, (heads, -1)).permute(1, 2, 0, 3) for x in (q, k))
    else:
        q = q.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
        k = arguments["static_k"].unflatten(0, (-1, heads))
    added = int(more is not None)
    if arguments.get("add_zero_attn"):
        k, added = nn.functional.pad(k, (0, 0, 0, 1)), added + 1
    return AttentionCall(q, k, q.shape[-1] ** -0.5, _merged_mask(arguments, q, k, added))


def same_tokens(arguments: dict[str, Any]) -> bool:
    """Whether queries and keys are projections of one tensor."""
    query, key = arguments["query"], arguments["key"]
    return query is key or (query.shape == key.shape and query.data_ptr() == key.data_ptr())


def _merged_mask(arguments: dict[str, Any], q: Tensor, k: Tensor, added: int) -> Tensor | None:
    """One mask that is added, ``(B, h, n, m)``; tokens added by the module are always there."""
    mask, padding = arguments.get("attn_mask"), arguments.get("key_padding_mask")
    parts: list[Tensor] = []
    if mask is not None:
        mask = mask.unflatten(0, (-1, q.shape[1])) if mask.ndim == 3 else mask[None, None]
        parts.append(_as_added(mask, q.dtype))
    if padding is not None:
        padding = padding[None] if padding.ndim == 1 else padding
        parts.append(_as_added(padding[:, None, None, :], q.dtype))
    if not parts:
        return None
    merged = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return nn.functional.pad(merged, (0, added)).expand(*q.shape[:3], k.shape[2])


def _as_added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Minus infinity where a module's mask says that a token is to be left out."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)
