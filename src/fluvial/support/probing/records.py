"""What the probe keeps of one attention call."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.support.probing.calls import AttentionCall
from fluvial.support.probing.statistics import STATISTICS, HeadStatistics, head_statistics


@dataclass(frozen=True)
class Rows:
    """Attention rows that were kept on request, in float64 on the CPU.

    Args:
        queries: Batch row and number of each query.
        attention: Attention rows.
        kernel: Nadaraya-Watson weights of the same queries.
    """

    queries: Int[Tensor, "r 2"]
    attention: Float[Tensor, "h r m"]
    kernel: Float[Tensor, "h r m"]


@dataclass(frozen=True)
class AttentionRecord:
    """Figures of one call of one layer; those of heads are tuples with a number for each, NaN where it has none.

    Args:
        layer: Full name of the module, with ``/text`` or ``/image`` where an IP-Adapter has both.
        call: Calls of this layer before it.
        time: Time it was labelled with, None for none.
        heads: Number of heads ``h``.
        tokens: Number of tokens ``m``.
        width: Length ``d_k`` of a key.
        squared_bandwidth: ``h^2`` of the kernel: the inverse of the attention's scale, ``sqrt(d_k)`` by default.
        queries: Queries that were looked at.
        statistics: Figures of the heads, as in ``HeadStatistics``.
        biased: Whether the model adds more to the product than a mask.
        rows: The rows themselves, if they were asked for.
    """

    layer: str
    call: int
    time: float | None
    heads: int
    tokens: int
    width: int
    squared_bandwidth: float
    queries: int
    statistics: dict[str, tuple[float, ...]]
    biased: bool = False
    rows: Rows | None = field(default=None, repr=False)

    @property
    def spearman(self) -> tuple[float, ...]:
        """Rank correlation of attention rows with the kernel's weights, one for each head."""
        return self.statistics["spearman"]

    @property
    def pearson(self) -> tuple[float, ...]:
        """Correlation of the same, one for each head."""
        return self.statistics["pearson"]

    def mean(self, name: str) -> float:
        """Mean of a figure over the heads that have it; NaN if none does.

        Args:
            name: Its name in ``HeadStatistics``.
        """
        found = [value for value in self.statistics[name] if not math.isnan(value)]
        return sum(found) / len(found) if found else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``json.dump``; null where a head has no figure. Kept rows are left out."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("rows", "statistics")}
        return plain | {name: [finite(value) for value in self.statistics[name]] for name in STATISTICS}


def finite(value: float) -> float | None:
    """The number, None for one that is not finite.

    Example:
        >>> finite(0.5), finite(float("nan"))
        (0.5, None)
    """
    return value if math.isfinite(value) else None


def measured(
    call: AttentionCall,
    layer: str,
    number: int,
    time: float | None,
    *,
    queries: Int[Tensor, "r 2"],
    permutations: int,
    keep: bool,
    generator: torch.Generator,
) -> AttentionRecord:
    """Record of a call.

    Args:
        call: The call.
        layer: Name of its layer.
        number: Calls of the layer before it.
        time: Its label.
        queries: Which of its queries to look at.
        permutations: Permutations of the null.
        keep: Whether to keep the rows.
        generator: Where permutations come from.
    """
    scores = call.scores(queries)
    found: HeadStatistics = head_statistics(scores, permutations, generator)
    return AttentionRecord(
        layer=layer,
        call=number,
        time=time,
        heads=call.q.shape[1],
        tokens=call.k.shape[2],
        width=call.q.shape[3],
        squared_bandwidth=1 / call.scale,
        queries=len(queries),
        statistics={name: tuple(getattr(found, name).tolist()) for name in STATISTICS},
        biased=bool((scores.bias != 0).any()),
        rows=Rows(queries, scores.attention, scores.kernel) if keep else None,
    )
