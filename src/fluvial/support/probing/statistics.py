r"""How near attention rows are to the weights of a Gaussian kernel on queries and keys.

Attention weighs a key by :math:`\exp(s\, q \cdot k_i)`, with :math:`s = 1/\sqrt{d_k}` unless said otherwise. With
:math:`h^2 = 1/s` the Nadaraya-Watson weights are

.. math:: w_i \propto \exp\Big(-\frac{\|q - k_i\|^2}{2 h^2}\Big)
          \propto \exp\Big(s\, q \cdot k_i - \frac{s}{2} \|k_i\|^2\Big),

so that both differ by the key's penalty :math:`s \|k_i\|^2 / 2` alone, and agree where all keys have one norm.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FEWEST_TOKENS = 3
"""Two tokens have only two orders, and one has one: their ranks say nothing."""


@dataclass(frozen=True)
class Scores:
    """Rows of one attention call, in float64 on the CPU, for ``h`` heads, ``r`` queries and ``m`` tokens.

    Args:
        product: ``s q.k``, shape ``(h, r, m)``, in nats.
        penalty: ``s |k|^2 / 2``, in nats.
        bias: What the model adds to the product besides, such as a position's bias, in nats.
        there: Tokens that are not masked.
    """

    product: Float[Tensor, "h r m"]
    penalty: Float[Tensor, "h r m"]
    bias: Float[Tensor, "h r m"]
    there: Bool[Tensor, "h r m"]

    @property
    def attention(self) -> Float[Tensor, "h r m"]:
        """Attention rows; a row without tokens is zero."""
        return _softmax(self.product + self.bias, self.there)

    @property
    def kernel(self) -> Float[Tensor, "h r m"]:
        """Nadaraya-Watson weights; a row without tokens is zero."""
        return _softmax(self.product - self.penalty, self.there)


@dataclass(frozen=True)
class HeadStatistics:
    """Figures of each of ``h`` heads, means over its rows; NaN where no row has one.

    Args:
        spearman: Rank correlation of attention rows with kernel weights.
        pearson: Correlation of the same.
        pearson_pooled: Correlation over all rows and tokens at once.
        null: Rank correlation with the keys permuted, mean over permutations.
        null_spread: Its standard deviation over permutations.
        entropy: Of the attention rows, in nats.
        support: Tokens that a row attends to, ``1 / sum a^2``.
        norm_spread: Standard deviation of the key norms over their mean.
        penalty_spread: Standard deviation of ``s |k|^2 / 2`` over the tokens, in nats.
        product_spread: The same of ``s q.k``, in nats.
    """

    spearman: Float[Tensor, " h"]
    pearson: Float[Tensor, " h"]
    pearson_pooled: Float[Tensor, " h"]
    null: Float[Tensor, " h"]
    null_spread: Float[Tensor, " h"]
    entropy: Float[Tensor, " h"]
    support: Float[Tensor, " h"]
    norm_spread: Float[Tensor, " h"]
    penalty_spread: Float[Tensor, " h"]
    product_spread: Float[Tensor, " h"]


STATISTICS = tuple(entry.name for entry in fields(HeadStatistics))


def head_statistics(scores: Scores, permutations: int, generator: torch.Generator) -> HeadStatistics:
    """All figures of a call.

    Args:
        scores: Its rows.
        permutations: Permutations of the keys for the null, at least 2.
        generator: Where they come from; one permutation is shared by all heads and rows.

    Example:
        >>> product = torch.tensor([[[1.0, 2.0, 4.0]]], dtype=torch.float64)
        >>> flat, there = torch.ones_like(product), torch.ones_like(product, dtype=torch.bool)
        >>> scores = Scores(product, flat, 0 * flat, there)
        >>> round(float(head_statistics(scores, 4, torch.Generator()).spearman), 6)
        1.0
    """
    there = scores.there
    enough = there.sum(-1) >= FEWEST_TOKENS
    weighed, near = scores.product + scores.bias, scores.product - scores.penalty
    enough &= _varies(weighed, there) & _varies(near, there)
    rows, kernel_rows = (_standard(average_ranks(x, there), there) for x in (weighed, near))
    attention, kernel = scores.attention, scores.kernel
    pearson = (_standard(attention, there) * _standard(kernel, there)).sum(-1).clamp(-1, 1)
    null = torch.stack(
        [
            _mean((rows * permuted(kernel_rows, there, generator)).sum(-1).clamp(-1, 1), enough)
            for _ in range(permutations)
        ]
    )
    some = there.any(-1)
    return HeadStatistics(
        spearman=_mean((rows * kernel_rows).sum(-1).clamp(-1, 1), enough),
        pearson=_mean(pearson, enough),
        pearson_pooled=_pooled(attention, kernel, there & enough[..., None]),
        null=null.mean(0),
        null_spread=null.std(0),
        entropy=_mean(torch.special.entr(attention).sum(-1), some),
        support=_mean(1 / attention.square().sum(-1), some),
        norm_spread=_mean(_variation(scores.penalty.sqrt(), there), some),
        penalty_spread=_mean(_deviation(scores.penalty, there), some),
        product_spread=_mean(_deviation(scores.product, there), some),
    )


def average_ranks(x: Float[Tensor, "*B m"], there: Bool[Tensor, "*B m"]) -> Float[Tensor, "*B m"]:
    """Ranks along the last axis among the values that are there, from 1; equal ones share their average.

    Args:
        x: Values.
        there: Which of them count; ranks of others have no meaning.

    Example:
        >>> x = torch.tensor([3.0, 1.0, 3.0, 0.0])
        >>> average_ranks(x, torch.tensor([True, True, True, False]))[:3]
        tensor([2.5000, 1.0000, 2.5000])
    """
    last = x.masked_fill(~there, torch.inf)
    ordered = last.sort(-1).values
    below = torch.searchsorted(ordered, last)
    upto = torch.searchsorted(ordered, last, right=True)
    return (below + upto + 1).to(x.dtype) / 2


def permuted(
    x: Float[Tensor, "h r m"], there: Bool[Tensor, "h r m"], generator: torch.Generator
) -> Float[Tensor, "h r m"]:
    """Values with their tokens exchanged at random among those that are there, all rows alike.

    Example:
        >>> x = torch.arange(5.0).expand(1, 2, 5)
        >>> permuted(x, x > 0, torch.Generator())[..., 0]
        tensor([[0., 0.]])
    """
    draws = torch.rand(x.shape[-1], generator=generator, dtype=torch.float64)
    if bool(there.all()):
        return x[..., draws.argsort()]
    places = (~there).to(torch.uint8).argsort(dim=-1, stable=True)
    taken = torch.where(there, draws, 1 + draws).argsort(-1)
    # Those that are not there keep their values among themselves, which count for nothing.
    return torch.zeros_like(x).scatter(-1, places, x.gather(-1, taken)).masked_fill(~there, 0)


def _softmax(logits: Tensor, there: Tensor) -> Tensor:
    return logits.masked_fill(~there, -torch.inf).softmax(-1).nan_to_num(0.0)


def _standard(x: Tensor, there: Tensor) -> Tensor:
    """Centred and of length 1 over the tokens that are there, zero elsewhere."""
    x = x.masked_fill(~there, 0)
    centred = (x - x.sum(-1, keepdim=True) / there.sum(-1, keepdim=True).clamp_min(1)).masked_fill(~there, 0)
    return centred / centred.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-300)


def _varies(x: Tensor, there: Tensor) -> Tensor:
    """Rows whose values differ by more than rounding: others have no order."""
    low, high = (x.masked_fill(~there, fill) for fill in (torch.inf, -torch.inf))
    size = x.abs().masked_fill(~there, 0).amax(-1)
    varies: Tensor = high.amax(-1) - low.amin(-1) > 1e-12 * size
    return varies


def _deviation(x: Tensor, there: Tensor) -> Tensor:
    count = there.sum(-1).clamp_min(1)
    x = x.masked_fill(~there, 0)
    mean = x.sum(-1) / count
    return ((x - mean[..., None]).square().masked_fill(~there, 0).sum(-1) / count).sqrt()


def _variation(x: Tensor, there: Tensor) -> Tensor:
    mean = x.masked_fill(~there, 0).sum(-1) / there.sum(-1).clamp_min(1)
    return _deviation(x, there) / mean.clamp_min(1e-300)


def _pooled(a: Tensor, b: Tensor, there: Tensor) -> Tensor:
    """Correlation over rows and tokens at once, for each head."""
    flat = there.flatten(1)
    found = (_standard(a.flatten(1), flat) * _standard(b.flatten(1), flat)).sum(-1).clamp(-1, 1)
    return found.masked_fill(~flat.any(-1), torch.nan)


def _mean(x: Float[Tensor, "h r"], rows: Bool[Tensor, "h r"]) -> Float[Tensor, " h"]:
    """Mean over the rows that count, NaN without any."""
    return x.masked_fill(~rows, 0).sum(-1) / rows.sum(-1)
