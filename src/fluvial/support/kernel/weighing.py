"""Nadaraya-Watson weights by direct distances, for measurements in float64; no gradients, no tiles."""

import torch
from jaxtyping import Float
from torch import Tensor


def weights(
    x: Float[Tensor, "B n d"], support: Float[Tensor, "B m d"], bandwidth: Float[Tensor, "#B"] | float
) -> Float[Tensor, "B n m"]:
    """Nadaraya-Watson weights of the support at de-scaled points ``x / alpha``, from direct distances.

    Example:
        >>> weights(torch.zeros(1, 1, 1), torch.tensor([[[1.0], [-1.0]]]), 0.5)
        tensor([[[0.5000, 0.5000]]])
    """
    squares = torch.cdist(x, support, compute_mode="donot_use_mm_for_euclid_dist").square_()
    h = torch.as_tensor(bandwidth, dtype=x.dtype)
    return torch.softmax(squares.mul_(-0.5 / h.square().reshape(-1, 1, 1)), -1)
