r"""A prior over a data set from similarities of embeddings: what turns the exact field into retrieval.

With embeddings :math:`e_i` of the data and :math:`q` of a query, the prior weight of datum i is a softmax of cosines,

.. math:: \pi_i \propto \exp(\cos(q, e_i) / T).

The exact field whose posterior weights carry this prior transports noise to datum i with probability
:math:`\pi_i`: at temperature T it draws from the data by their similarity, as T goes to 0 it finds the most similar.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.kinds import checked

TIE = 1e-12
"""Cosines in float64 that differ by less are equal: their rounding errors, and how rows are blocked, reach 1e-13."""


@checked
def similarity_prior(query_embeddings: Tensor, support_embeddings: Tensor, temperature: float) -> Float[Tensor, "B N"]:
    r"""Log-prior :math:`\log \mathrm{softmax}_i(\cos(q, e_i) / T)` over a support, for each query.

    It is what ``ExactField`` takes as a floating ``cond``, or one row of it as ``log_prior``. The order of the support
    embeddings is that of the support. Temperatures are in units of the cosine: differences well below T hardly count.

    Args:
        query_embeddings: Shape ``(B, e)``, or ``(e,)`` for one query; floating.
        support_embeddings: Shape ``(N, e)``, one for each datum; floating. Norms play no part.
        temperature: T, not negative and finite. At 0 the most similar datum has the whole weight, ties share it.

    Returns:
        Normalised log-weights, shape ``(B, N)``; float64 if either input is, else float32. Computed in float64.

    Raises:
        ValueError: If shapes, devices or types do not fit, an embedding is zero, NaN or infinite, or T is negative.
        TypeError: If embeddings are no tensors.

    Example:
        >>> query, support = torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> fv.similarity_prior(query, support, temperature=1.0).exp()
        tensor([[0.7311, 0.2689]])
        >>> fv.similarity_prior(query, support, temperature=0.0)
        tensor([[0., -inf]])
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be finite and not negative, got {temperature}")
    _check_embeddings(query_embeddings, support_embeddings)
    cosine = _directions(query_embeddings) @ _directions(support_embeddings).T
    below = cosine - cosine.max(1, keepdim=True).values
    below = below.masked_fill(below > -TIE, 0.0)
    # The largest cosine is subtracted before the division: it stays 0 at any temperature, where others may overflow.
    logits = below / temperature if temperature > 0 else below.masked_fill(below < 0, -torch.inf)
    exact = torch.float64 in (query_embeddings.dtype, support_embeddings.dtype)
    return logits.log_softmax(1).to(torch.float64 if exact else torch.float32)


def _directions(embeddings: Tensor) -> Tensor:
    """Rows of length 1, float64; scaled by their largest entry first, so that no square over- or underflows."""
    rows = embeddings.double().reshape(-1, embeddings.shape[-1])
    rows = rows / rows.abs().max(1, keepdim=True).values
    return torch.nn.functional.normalize(rows, dim=1)


def _check_embeddings(query: Tensor, support: Tensor) -> None:
    for name, value in (("query_embeddings", query), ("support_embeddings", support)):
        require_tensor(name, value)
        if not value.is_floating_point():
            raise ValueError(f"{name} must be floating, got {value.dtype}")
    if support.ndim != 2 or support.numel() == 0:
        raise ValueError(f"support_embeddings must have shape (N, e), neither of them 0, got {tuple(support.shape)}")
    if query.ndim not in (1, 2) or query.shape[-1] != support.shape[1]:
        expected = f"(B, {support.shape[1]}) or ({support.shape[1]},) to match support_embeddings"
        raise ValueError(f"query_embeddings must have shape {expected}, got {tuple(query.shape)}")
    if query.device != support.device:
        raise ValueError(
            f"embeddings must be on one device, got queries on {query.device}, support on {support.device}"
        )
    for name, value in (("query_embeddings", query), ("support_embeddings", support)):
        _check_rows(name, value.detach().reshape(-1, value.shape[-1]))


def _check_rows(name: str, rows: Tensor) -> None:
    for bad, what in ((~rows.isfinite().all(1), "NaN or infinite values"), ((rows == 0).all(1), "zeros alone")):
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"{name} must be finite and not zero: {int(bad.sum())} of {len(rows)} rows hold {what}, "
                f"the first is row {first}"
            )
