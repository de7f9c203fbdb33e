"""Points that carry integrals along their trajectory beside them, as log-densities need: one state for any solver."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.devices import to_device
from fluvial.fields.base import Field, breakpoints
from fluvial.fields.divergences import Divergence
from fluvial.randomness import draw_rows


class Carried:
    """The field on states that carry their points and the integrals of the divergence beside, flat and in float64.

    Args:
        field: The field.
        like: Points of the shape and type that the field takes, shape ``(B, *D)``.
        trace: Gives the velocity and the ``P`` rates that are integrated.

    Example:
        >>> from fluvial.fields.divergences import exact_divergence
        >>> carried = Carried(lambda x, t: 3 * x, torch.ones(1, 2), exact_divergence)
        >>> with torch.no_grad():
        ...     carried(carried.start(torch.ones(1, 2), 1), torch.zeros(1))
        tensor([[3., 3., 6.]], dtype=torch.float64)
    """

    def __init__(self, field: Field, like: Tensor, trace: Divergence) -> None:
        self._field, self._trace = field, trace
        self._shape, self._dtype = like.shape[1:], like.dtype
        self.breakpoints = breakpoints(field)

    def __call__(self, z: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        x = z[:, : math.prod(self._shape)].reshape(-1, *self._shape)
        v, trace = self._trace(self._field, x.to(self._dtype), t.to(self._dtype), cond)
        return torch.cat([v.flatten(1), trace], 1).to(z.dtype)

    @staticmethod
    def start(x: Tensor, channels: int) -> Float[Tensor, "B Z"]:
        """States of points whose ``channels`` integrals are 0, in the widest type that the device has."""
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        return torch.cat([x.flatten(1).to(wide), x.new_zeros(len(x), channels, dtype=wide)], 1)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Points ``(B, *D)`` and integrals ``(B, P)`` of states."""
        dim = math.prod(self._shape)
        points, integrals = z.split([dim, z.shape[1] - dim], 1)
        return points.reshape(-1, *self._shape), integrals


def rademacher(x: Tensor, probes: int, generator: torch.Generator | None) -> Float[Tensor, "B P *D"]:
    """Rademacher directions: of all with uncorrelated entries they have the least variance for symmetric Jacobians.

    Those of a datum are drawn together, so that the size of a batch changes none of them.
    """

    def draw(count: int, g: torch.Generator | None) -> Tensor:
        device = x.device if g is None else g.device
        return 2 * torch.randint(0, 2, (count, probes, *x.shape[1:]), generator=g, device=device) - 1

    signs = draw(len(x), None) if generator is None else draw_rows(draw, len(x), generator)
    return to_device(signs.to(x.dtype), x.device)


def log_normal(x: Tensor) -> Float[Tensor, " B"]:
    """Log-density of points under the standard normal distribution, in nats and float64."""
    flat = x.flatten(1).double()
    return -0.5 * flat.square().sum(1) - 0.5 * flat.shape[1] * math.log(2 * math.pi)
