"""What a data set says about the datum behind a point."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Posterior:
    """Distribution of ``x1`` given a point ``xt``, over the data of an exact field.

    Args:
        mean: ``E[x1 | xt]``, shape ``(B, *D)``.
        log_density: Log-density of ``xt`` under the path's marginal, shape ``(B,)``, in nats; at t = 1 of a path that
            ends in the data, infinite on them and minus infinity elsewhere.
        effective_sample_size: ``1 / sum w_i^2``, shape ``(B,)``, between 1 and N.
        entropy: ``-sum w_i log w_i``, shape ``(B,)``, in nats.
        top_weight: Largest weight, shape ``(B,)``.
        top_index: Its datum, shape ``(B,)``.
        error: Bound on the norm of the error of ``mean``, from rounding and from what screening left out, shape
            ``(B,)``, float64, in data units. It always holds and is usually far above the error.
    """

    mean: Tensor
    log_density: Tensor
    effective_sample_size: Tensor
    entropy: Tensor
    top_weight: Tensor
    top_index: Tensor
    error: Tensor
