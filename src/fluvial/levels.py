"""Grey levels and bits: what a density of dequantised data says of the discrete data."""

import math

from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.kinds import checked


@checked
def bits_per_dim(log_prob: Float[Tensor, " B"], dim: int, levels: int | None = None) -> Float[Tensor, " B"]:
    r"""Negative log-density in bits per number of a datum, :math:`-\log_2 p / d`, and with ``levels`` per grey level.

    Data with L grey levels in [-1, 1] are 2 / (L - 1) apart. With uniform noise of that width added,
    :math:`-\log_2 p / d + \log_2 ((L - 1) / 2)` bounds the bits of the discrete data from above:
    6.994 bits are added for 256 levels.

    Source: Theis et al. 2016, "A note on the evaluation of generative models", section 3.1.

    Args:
        log_prob: In nats; NaN and infinity pass through.
        dim: Numbers in a datum.
        levels: Grey levels; None for data that have none.

    Example:
        >>> bits_per_dim(torch.zeros(1), 10, 256)
        tensor([6.9944])
    """
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    _check_levels(levels)
    bits = -log_prob / (dim * math.log(2))
    return bits if levels is None else bits + math.log2((levels - 1) / 2)


def spread_levels(x: Float[Tensor, "B *D"], uniform: Float[Tensor, "B *D"], levels: int) -> Float[Tensor, "B *D"]:
    """Grey levels in [-1, 1] spread over their bins, half a level to each side, by draws from [0, 1).

    NaN and infinity pass through it.

    Raises:
        TypeError: If ``x`` or ``uniform`` is no tensor of floating point numbers, or ``levels`` no whole number.
        ValueError: If the shapes differ, or there are fewer than two levels.

    Example:
        >>> spread_levels(torch.zeros(1, 2), torch.tensor([[0.0, 0.75]]), 3)
        tensor([[-0.5000,  0.2500]])
    """
    # Called at every step of a training.
    for name, value in (("x", x), ("uniform", uniform)):
        require_tensor(name, value)
        if not value.is_floating_point() or value.is_meta:
            raise TypeError(f"{name} must hold floating point numbers, got {value.dtype} on {value.device}")
    if x.shape != uniform.shape:
        raise ValueError(f"uniform must have the shape of x, {tuple(x.shape)}, got {tuple(uniform.shape)}")
    if levels is None:
        raise TypeError("levels must be a whole number, got None")
    _check_levels(levels)
    return x + (uniform - 0.5) * (2 / (levels - 1))


def _check_levels(levels: int | None) -> None:
    if levels is None:
        return
    if not isinstance(levels, int) or isinstance(levels, bool):
        raise TypeError(f"levels must be a whole number, got {levels!r}")
    if levels >= 2**63:
        raise ValueError(f"levels must be below 2^63, got a number of {levels.bit_length()} bits")
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
