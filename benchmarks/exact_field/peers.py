r"""Other ways of computing the exact field of a support, each as a user of torch or KeOps would write it.

On the straight path ``x_t = t x_1 + (1 - t) x_0`` the exponents are, up to a constant of the row,

.. math:: \ell_i = \frac{t}{(1-t)^2} \langle x, s_i \rangle - \frac{t^2}{2 (1-t)^2} \|s_i\|^2
                 = -\frac{t^2}{2 (1-t)^2} \|x / t - s_i\|^2,

and the velocity is :math:`(\sum_i w_i s_i - x) / (1 - t)`. What depends on the support alone, its norms and the lifted
keys, is computed once, outside of the timings.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Velocity = Callable[[Tensor, float], Tensor]


def two_products(support: Tensor) -> Velocity:
    """One product for the exponents, with the norms as bias, softmax, one product for the mean."""
    half_norms = support.square().sum(1) / 2

    def velocity(x: Tensor, t: float) -> Tensor:
        gain = t / (1 - t) ** 2
        logits = torch.addmm(half_norms, x, support.T, beta=-gain * t, alpha=gain)
        return (torch.softmax(logits, 1) @ support - x) / (1 - t)

    return velocity


def distances(support: Tensor, mode: str = "use_mm_for_euclid_dist_if_necessary") -> Velocity:
    """``torch.cdist``, softmax, one product for the mean."""

    def velocity(x: Tensor, t: float) -> Tensor:
        squares = torch.cdist(x / t, support, compute_mode=mode).square_()
        weights = torch.softmax(squares.mul_(-(t**2) / (2 * (1 - t) ** 2)), 1)
        return (weights @ support - x) / (1 - t)

    return velocity


def subtracted_distances(support: Tensor) -> Velocity:
    """The same with distances that are subtracted before they are squared, never taken from a product."""
    return distances(support, "donot_use_mm_for_euclid_dist")


def attention(support: Tensor) -> Velocity:
    """``scaled_dot_product_attention`` with keys lifted by one coordinate, which carries the norms.

    The keys serve as values too, since the fused kernel wants both in the same dimension; the extra one is cut off.
    """
    lifted = torch.cat([support, -support.square().sum(1, keepdim=True) / 2], 1)[None, None]

    def velocity(x: Tensor, t: float) -> Tensor:
        gain = t / (1 - t) ** 2
        queries = torch.cat([x * gain, x.new_full((len(x), 1), gain * t)], 1)[None, None]
        mean = scaled_dot_product_attention(queries, lifted, lifted, scale=1.0)[0, 0, :, :-1]
        return (mean - x) / (1 - t)

    return velocity


def keops(support: Tensor) -> Velocity:
    """pykeops: a symbolic Gaussian kernel of subtracted distances, reduced by its softmax-weighted sum."""
    import pykeops
    from pykeops.torch import LazyTensor

    pykeops.set_verbose(False)
    data = LazyTensor(support[None])

    def velocity(x: Tensor, t: float) -> Tensor:
        gain = LazyTensor(x.new_tensor([-(t**2) / (2 * (1 - t) ** 2)]))
        logits = ((LazyTensor((x / t)[:, None]) - data) ** 2).sum(-1) * gain
        return (logits.sumsoftmaxweight(data, axis=1) - x) / (1 - t)

    return velocity


PEERS: dict[str, Callable[[Tensor], Velocity]] = {
    "two products": two_products,
    "cdist": distances,
    "cdist, subtracted": subtracted_distances,
    "SDPA": attention,
    "KeOps": keops,
}

DENSE = frozenset({"two products", "cdist", "cdist, subtracted"})
"""Peers that hold the whole matrix of weights, twice."""
