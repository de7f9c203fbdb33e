"""The points that a field smooths over, with what every evaluation needs of them computed once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Centring costs a copy of the points; it pays only where the offset dwarfs the spread.
_OFFSET_WORTH_REMOVING = 4.0
# Bytes of float64 that the preparation may use at once.
_BLOCK_BYTES = 32 * 2**20


class Support:
    """A finite set of points with optional labels and prior weights.

    Exponents are computed from ``values``, the points less ``shift``; means are taken over ``points`` themselves, so
    that a row that rests on one point returns that point to the bit.

    Args:
        points: Shape ``(N, d)``, floating.
        labels: Class of each point, shape ``(N,)``; optional.
        log_prior: Unnormalised log-weights, shape ``(N,)``; optional, uniform if absent.

    Example:
        >>> Support(torch.tensor([[0.0], [2.0]])).radius
        2.0
    """

    def __init__(
        self,
        points: Float[Tensor, "N d"],
        labels: Int[Tensor, "N"] | None = None,
        log_prior: Float[Tensor, "N"] | None = None,
    ) -> None:
        self.points = points
        self.labels = labels
        self.log_prior = log_prior
        blocks = points.split(max(1, _BLOCK_BYTES // (8 * points.shape[1])))
        centre = torch.stack([block.sum(0, dtype=torch.float64) for block in blocks]).sum(0) / len(points)
        largest = max(float((block.double() - centre).norm(dim=1).max()) for block in blocks)
        far = float(centre.norm()) > _OFFSET_WORTH_REMOVING * largest
        self.shift: Tensor | None = centre if far else None
        self.values = torch.cat([(block.double() - centre).to(points.dtype) for block in blocks]) if far else points
        norms = (block.double().square().sum(1) for block in self.values.split(len(blocks[0])))
        self.squared_norms = torch.cat(list(norms))
        self.radius = float(self.squared_norms.max()) ** 0.5

    def __len__(self) -> int:
        return self.points.shape[0]

    @property
    def dim(self) -> int:
        """Number of coordinates of a point."""
        return self.points.shape[1]

    def to(self, device: torch.device | str) -> "Support":
        """The same support on another device."""
        labels = None if self.labels is None else self.labels.to(device)
        log_prior = None if self.log_prior is None else self.log_prior.to(device)
        return Support(self.points.to(device), labels, log_prior)
