r"""Which noise meets which datum.

A coupling looks at a batch of noise ``x0`` and data ``x1`` and returns an order: ``x1`` keeps its order and
``x0[order]`` meets it. The regression target is right for any coupling with the right marginals. Pairing by
optimal transport makes paths cross less, so the velocity varies less and fewer solver steps suffice.

For a permutation :math:`\pi`

.. math:: \sum_i |x^1_i - x^0_{\pi(i)}|^2 = \sum_i |x^1_i|^2 + \sum_i |x^0_i|^2
          - 2 \sum_i \langle x^1_i, x^0_{\pi(i)} \rangle

and the norms do not depend on :math:`\pi`, so one matrix product is the whole cost.
"""

import difflib
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fluvial.checks import require_dense, require_generator, require_tensor
from fluvial.kinds import checked

METHODS = ("exact", "sinkhorn")
SINKHORN_ITERATIONS = 10_000
SINKHORN_ERROR = 1e-3  # Euclidean norm of the error of the noise marginal, relative; the other is exact

__all__ = ["Coupling", "Independent", "OptimalTransport"]


@runtime_checkable
class Coupling(Protocol):
    """Anything that pairs noise with data: ``coupling(x0, x1, labels, generator=...) -> order``."""

    def __call__(
        self, x0: Tensor, x1: Tensor, labels: Tensor | None = None, *, generator: torch.Generator
    ) -> Tensor: ...


@dataclass(frozen=True)
class Independent:
    """Noise meets data as drawn: row ``i`` meets row ``i``.

    Example:
        >>> x = torch.zeros(3, 2)
        >>> Independent()(x, x, generator=torch.Generator())
        tensor([0, 1, 2])
    """

    def __call__(
        self,
        x0: Float[Tensor, "B *D"],
        x1: Float[Tensor, "B *D"],
        labels: Int[Tensor, " B"] | None = None,
        *,
        generator: torch.Generator,
    ) -> Int[Tensor, " B"]:
        """Return ``0 .. B - 1``; ``labels`` and ``generator`` play no part.

        Raises:
            ValueError: If ``x0`` and ``x1`` differ in shape.
        """
        _check_shapes(x0, x1)
        return torch.arange(len(x1), device=x0.device)


@checked
@dataclass(frozen=True)
class OptimalTransport:
    r"""Noise meets data at the least total squared distance within the batch.

    Pairing across a whole batch makes the noise that a label meets depend on the label, while sampling draws
    it
    independently: a conditional model learned that way is biased. ``within_labels=True`` avoids it: a noise's
    row decides, before its value is looked at, which label it goes to, and pairs are exchanged only among the
    rows of one label (-1, the null label, is a label of its own). Noise then stays independent of the label.

    Source: Tong et al. 2024, "Improving and generalizing flow-based generative models with minibatch optimal
    transport"; Pooladian et al. 2023, "Multisample flow matching". The bias: Cheng and Schwing 2025, "The
    curse of conditions" (arXiv 2503.10636).

    Args:
        method: ``"exact"`` solves the assignment and returns a permutation. ``"sinkhorn"`` (needs
            ``fluvial[ot]``) draws one noise for each datum from the entropic plan, so that a noise may be
            used twice or not at all.
        within_labels: Pair only among rows of equal label.
        regularization: Weight of the plan's entropy relative to the mean squared distance of the batch (so it
            does not depend on the data's units); ``"sinkhorn"`` only.
        across_ranks: Where several processes have the rows of a batch, pair all of them, as one process would; False
            pairs the rows of each process, which exchanges nothing.

    Raises:
        ValueError: If ``method`` is unknown or ``regularization`` is not positive and finite.

    Example:
        >>> x0, x1 = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.1], [0.1], [0.9]])
        >>> order = OptimalTransport()(x0, x1, generator=torch.Generator())
        >>> order, x0[order].flatten()
        (tensor([2, 0, 1]), tensor([2., 0., 1.]))
    """

    method: str = "exact"
    within_labels: bool = False
    regularization: float = 0.05
    across_ranks: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            near = difflib.get_close_matches(str(self.method), METHODS, 1, 0.0)[0]
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}; did you mean {near!r}?")
        if not (self.regularization > 0 and math.isfinite(self.regularization)):
            raise ValueError(f"regularization must be positive and finite, got {self.regularization}")

    def __call__(
        self,
        x0: Float[Tensor, "B *D"],
        x1: Float[Tensor, "B *D"],
        labels: Int[Tensor, " B"] | None = None,
        *,
        generator: torch.Generator,
    ) -> Int[Tensor, " B"]:
        """Return the order in which the rows of ``x0`` meet the rows of ``x1``.

        Args:
            x0: Noise, shape ``(B, *D)``.
            x1: Data, shape ``(B, *D)``.
            labels: Label of each datum, shape ``(B,)``; used with ``within_labels`` only.
            generator: Draws from the plan; the exact method draws nothing.

        Returns:
            Indices into ``x0``, shape ``(B,)``, on the device of ``x0``.

        Raises:
            ValueError: If shapes differ, values are not finite, labels are needed and missing, or the
                Sinkhorn iteration does not converge.
            ImportError: If ``"sinkhorn"`` is asked for and POT is not installed.
        """
        _check_shapes(x0, x1)
        require_generator(generator)
        noise, data = (x.detach().reshape(len(x), math.prod(x.shape[1:])) for x in (x0, x1))
        if not self.within_labels:
            return self._pair(noise, data, generator).to(x0.device)
        order = torch.arange(len(data))
        for rows in _groups(labels, len(data)):
            order[rows] = rows[self._pair(noise[rows.to(x0.device)], data[rows.to(x1.device)], generator)]
        return order.to(x0.device)

    def _pair(self, x0: Tensor, x1: Tensor, generator: torch.Generator) -> Tensor:
        if self.method == "exact" or len(x1) == 0:
            return torch.from_numpy(_assign(_products(x0, x1)))
        return _draw(_plan(x0, x1, self.regularization), generator)


def _groups(labels: Tensor | None, count: int) -> list[Tensor]:
    """Rows of each label."""
    if labels is None:
        raise ValueError("labels must be given when within_labels=True, got None")
    require_tensor("labels", labels)
    if labels.shape != (count,) or labels.is_floating_point() or labels.is_complex() or labels.is_meta:
        raise ValueError(f"labels must be integers of shape ({count},), got {labels.dtype} {tuple(labels.shape)}")
    on_host = labels.cpu()
    return [torch.nonzero(on_host == label).flatten() for label in torch.unique(on_host)]


def _check_shapes(x0: Tensor, x1: Tensor) -> None:
    for name, x in (("x0", x0), ("x1", x1)):
        require_tensor(name, x)
        require_dense(name, x)
        if not x.is_floating_point() or x.ndim < 1:
            raise ValueError(f"{name} must be floating with shape (B, *D), got {x.dtype} {tuple(x.shape)}")
    if x0.shape != x1.shape:
        raise ValueError(f"x0 and x1 must have the same shape, got x0 {tuple(x0.shape)} and x1 {tuple(x1.shape)}")


def _products(x0: Tensor, x1: Tensor) -> NDArray[np.float64]:
    """Inner products ``<x1_i, x0_j>``, shape ``(B, B)``, in at least single precision."""
    dtype = torch.float64 if x1.dtype == torch.float64 else torch.float32
    products = (x1.to(dtype) @ x0.to(x1.device, dtype).T).double().cpu().numpy()
    if not np.isfinite(products).all():
        raise ValueError("x0 and x1 must be finite, got NaN or infinite values (or an overflow in their product)")
    return products


def _assign(products: NDArray[np.float64]) -> NDArray[np.int64]:
    """Column of each row that maximises the sum of products."""
    from scipy.optimize import linear_sum_assignment

    # What a whole row or column loses changes no comparison of permutations, and zeros spare the search work.
    cost = products.max(axis=1, keepdims=True, initial=-np.inf) - products
    cost -= cost.min(axis=0, initial=np.inf)
    columns: NDArray[np.int64] = linear_sum_assignment(cost)[1].astype(np.int64)
    return columns


def _plan(x0: Tensor, x1: Tensor, regularization: float) -> NDArray[np.float64]:
    """Entropic plan between data (rows) and noise (columns), shape ``(B, B)``."""
    try:
        import ot
    except ModuleNotFoundError as error:
        raise ImportError('method="sinkhorn" needs POT: pip install fluvial[ot]') from error
    squares0, squares1 = (x.double().square().sum(1).cpu().numpy() for x in (x0, x1))
    distances = np.maximum(squares1[:, None] + squares0 - 2 * _products(x0, x1), 0.0)
    weights = np.full(len(x1), 1 / len(x1))
    scale = distances.mean() or 1.0  # all points equal: any plan is optimal
    threshold = SINKHORN_ERROR / math.sqrt(len(x1))
    plan: NDArray[np.float64] = ot.sinkhorn(
        weights,
        weights,
        distances / scale,
        regularization,
        method="sinkhorn_log",
        numItermax=SINKHORN_ITERATIONS,
        stopThr=threshold,
        warn=False,
    )
    if not np.isfinite(plan).all():
        raise ValueError(f"the Sinkhorn plan is not finite: raise regularization, got {regularization}")
    if np.linalg.norm(plan.sum(0) - weights) > 1.01 * threshold:
        worst = float(np.abs(plan.sum(0) * len(x1) - 1).max())
        raise ValueError(
            f"Sinkhorn did not converge in {SINKHORN_ITERATIONS} iterations (the weight of a noise is off by "
            f"{worst:.1%}): raise regularization, got {regularization}"
        )
    return plan


def _draw(plan: NDArray[np.float64], generator: torch.Generator) -> Tensor:
    """One column for each row, with the row's probabilities."""
    weights = torch.from_numpy(plan).to(generator.device)
    return torch.multinomial(weights, 1, generator=generator).flatten().cpu()
