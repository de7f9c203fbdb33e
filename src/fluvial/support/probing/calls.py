"""One attention call, whatever route it came by: queries, keys, scale and masks in one shape."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluvial.support.probing.statistics import Scores

ABSENT = -1e4
"""Masks that are added hold minus infinity or a large negative number; below this a token counts as masked."""

_MOST_VALUES = 2**22


@dataclass(frozen=True)
class AttentionCall:
    """Queries and keys of one call for ``B`` batch rows and ``h`` heads, as the model has them.

    Args:
        q: Queries, shape ``(B, h, n, c)``.
        k: Keys, shape ``(B, g, m, c)``; ``g`` divides ``h`` where several heads share keys.
        scale: Factor of ``q.k``, positive.
        mask: Which tokens are there, or what is added to the product, broadcastable to ``(B, h, n, m)``; None for all.
        causal: Whether query ``i`` sees the keys up to ``i`` alone.
    """

    q: Float[Tensor, "B h n c"]
    k: Float[Tensor, "B g m c"]
    scale: float
    mask: Tensor | None = None
    causal: bool = False

    def drawn(self, count: int, batch: slice, generator: torch.Generator) -> Int[Tensor, "r 2"]:
        """Batch row and number of at most ``count`` queries drawn at random, in order, without repetition."""
        rows = torch.arange(self.q.shape[0])[batch]
        n = self.q.shape[2]
        count = min(count, max(1, _MOST_VALUES // (self.q.shape[1] * self.k.shape[2])))
        chosen = torch.arange(len(rows) * n)
        if len(chosen) > count:
            chosen = torch.randperm(len(chosen), generator=generator)[:count].sort().values
        return torch.stack([rows[chosen // n], chosen % n], 1)

    def scores(self, queries: Int[Tensor, "r 2"]) -> Scores:
        """What :class:`Scores` says, of some queries, given as by :meth:`drawn`."""
        parts = [self._of_row(int(b), queries[queries[:, 0] == b, 1]) for b in queries[:, 0].unique()]
        return Scores(*(torch.cat([part[name] for part in parts], 1) for name in range(4)))

    def _of_row(self, b: int, numbers: Int[Tensor, " r"]) -> tuple[Tensor, Tensor, Tensor, Bool[Tensor, "h r m"]]:
        q, k = self.q[b][:, numbers.to(self.q.device)].cpu().double(), self.k[b].cpu().double()
        k = k.repeat_interleave(len(q) // len(k), 0)
        product = self.scale * (q @ k.transpose(1, 2))
        penalty = (self.scale / 2 * k.square().sum(-1))[:, None].expand_as(product)
        there, bias = torch.ones_like(product, dtype=torch.bool), torch.zeros_like(product)
        if self.mask is not None:
            shape = (*self.q.shape[:3], self.k.shape[2])
            mask = self.mask.expand(shape)[b][:, numbers.to(self.mask.device)].cpu()
            there = mask if mask.dtype == torch.bool else mask > ABSENT
            if mask.dtype != torch.bool:
                bias = mask.double().masked_fill(~there, 0)
        if self.causal:
            there = there & (torch.arange(self.k.shape[2]) <= numbers[:, None])
        return product, penalty, bias, there


def fused_call(arguments: dict[str, Any], heads: int | None) -> AttentionCall:
    """Call of ``torch.nn.functional.scaled_dot_product_attention``.

    Args:
        arguments: Its arguments by name; those left out are the function's defaults.
        heads: Heads that may be folded into the batch of a tensor of three dimensions.
    """
    q, k = arguments["query"], arguments["key"]
    scale = arguments.get("scale")
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    grouped = bool(arguments.get("enable_gqa")) and q.ndim > 2
    lead = q.shape[:-2] if grouped else torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    key_lead = (*k.shape[:-3], k.shape[-3]) if grouped else lead
    mask = arguments.get("attn_mask")
    if mask is not None:
        mask = four_dimensional(mask.expand(*lead, q.shape[-2], k.shape[-2]), heads)
    q = four_dimensional(q.expand(*lead, *q.shape[-2:]), heads)
    k = four_dimensional(k.expand(*key_lead, *k.shape[-2:]), heads)
    return AttentionCall(q, k, scale, mask, bool(arguments.get("is_causal")))


def four_dimensional(x: Tensor, heads: int | None) -> Tensor:
    """Shape ``(B, h, n, c)`` from ``(n, c)``, ``(B, n, c)``, ``(B h, n, c)`` or ``(..., h, n, c)``.

    Args:
        x: Two dimensions or more.
        heads: Heads folded into the first of three dimensions, if they divide it.

    Example:
        >>> four_dimensional(torch.zeros(6, 5, 4), heads=3).shape
        torch.Size([2, 3, 5, 4])
    """
    if x.ndim == 2:
        return x[None, None]
    if x.ndim == 3:
        return x.unflatten(0, (-1, heads)) if heads and x.shape[0] % heads == 0 else x[:, None]
    return x.flatten(0, -4) if x.ndim > 4 else x
