"""The points that a field smooths over, with what every evaluation needs of them computed once."""

import hashlib
import math
from collections.abc import Iterator
from copy import copy
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fluvial.kinds import checked
from fluvial.smoothing.points import PIXEL_ORIGIN, PIXEL_UNIT, FilePoints, Points, TensorPoints, as_values
from fluvial.smoothing.probing import Probe

# Centring costs a pass over every tile; it pays only where the offset dwarfs the spread.
_OFFSET_WORTH_REMOVING = 4.0
# Bytes of float64 that the preparation uses at once: they stay in the cache.
_BLOCK_BYTES = 2 * 2**20
# A tile of values is made in a buffer of about this size: it stays in the cache between its two products.
TILE_BYTES = 12 * 2**20
# One of int8, with the sums that are made of it digit by digit.
DIGITS_BYTES = 6 * 2**20
LEAST_TILE = 64


def equal_points(support: "Support") -> Tensor | None:
    """For every point the first one that equals it and has its label, ``(N,)``; None if all differ."""
    norms = support.squared_norms.cpu()
    ordered, order = torch.sort(norms, stable=True)
    same = torch.zeros(len(norms), dtype=torch.bool)
    same[1:] = ordered[1:] == ordered[:-1]
    same[:-1] |= same[1:].clone()
    suspects = torch.sort(order[same]).values
    if not len(suspects):
        return None
    first: dict[tuple[bytes, int], int] = {}
    twins = torch.arange(len(norms))
    for part in suspects.split(1024):
        rows = support.points.gather(part.to(support.device)).cpu().numpy()
        labels = [-1] * len(part) if support.labels is None else support.labels[part.to(support.device)].tolist()
        for index, row, label in zip(part.tolist(), rows, labels, strict=True):
            digest = hashlib.blake2b(row.tobytes(), digest_size=32).digest()
            twins[index] = first.setdefault((digest, label), index)
    return twins.to(support.device) if bool((twins != torch.arange(len(norms))).any()) else None


@checked
class Support:
    """A finite set of points with optional labels and prior weights.

    Exponents are computed from *values*: the points in units of ``unit``, less ``shift``. Floats are their own values;
    those of pixels are integers.

    Args:
        points: Shape ``(N, d)``: floating or uint8 tensor, or a memory map of either, of shape ``(N, *D)``.
        labels: Class of each point, shape ``(N,)``; optional.
        log_prior: Unnormalised log-weights, shape ``(N,)``; optional, uniform if absent.

    Attributes:
        shift: A point is ``unit * (value + shift)``; float64, shape ``(d,)`` or ``()``, or None for zero.
        pixels: Whether the values are integers from -128 to 127.
        squared_norms: Of the values, float64, shape ``(N,)``.
        centre: Mean of the values before they were shifted, shape ``(d,)``, float64.
        radius: Largest norm of a value.
        reach: Largest distance of a value from the mean of all.
        extent: Bound on the norms of values plus shift.
        prior_level: Largest log-prior, which exponents are taken relative to.
        prior_range: Largest distance of a finite log-prior from it.

    Raises:
        ValueError: If a point is not finite.

    Example:
        >>> Support(torch.tensor([[0.0], [2.0]])).radius
        2.0
    """

    def __init__(
        self, points: Tensor | np.memmap, labels: Tensor | None = None, log_prior: Tensor | None = None
    ) -> None:
        shaped = points.ndim == 2 if isinstance(points, Tensor) else points.ndim >= 2
        if not shaped or 0 in points.shape:
            raise ValueError(f"points must have shape (N, d), neither of them 0, got {tuple(points.shape)}")
        for name, value in (("labels", labels), ("log_prior", log_prior)):
            if value is not None and (tuple(value.shape) != (len(points),) or value.is_complex()):
                raise ValueError(f"{name} must have shape ({len(points)},), got {value.dtype} of {tuple(value.shape)}")
        self.points: Points = TensorPoints(points) if isinstance(points, Tensor) else FilePoints(points)
        self.labels = labels
        self.log_prior = log_prior
        self.pixels = self.points.dtype == torch.uint8
        self.unit, self.origin = (PIXEL_UNIT, PIXEL_ORIGIN) if self.pixels else (1.0, 0.0)
        self.dtype = torch.float64 if self.points.dtype == torch.float64 else torch.float32
        self.device = points.device if isinstance(points, Tensor) else torch.device("cpu")
        self._centre: Tensor | None = None
        self._lifted: Tensor | None = None
        self._measure()
        origin = torch.full((), self.origin, dtype=torch.float64, device=self.device) if self.pixels else None
        self.shift: Tensor | None = origin if self._centre is None else self._centre + self.origin
        moved = 0.0 if self.shift is None else float(self.shift.expand(self.dim).norm())
        self.extent = self.radius + moved
        finite = log_prior if log_prior is None else log_prior[log_prior > -torch.inf].double()
        self.prior_level = 0.0 if finite is None else float(finite.max())
        self.prior_range = 0.0 if finite is None else self.prior_level - float(finite.min())

    def __len__(self) -> int:
        return self.points.shape[0]

    @property
    def dim(self) -> int:
        """Number of coordinates of a point."""
        return self.points.shape[1]

    @property
    def in_memory(self) -> bool:
        """Whether the points are a tensor rather than a file."""
        return isinstance(self.points, TensorPoints)

    def to(self, device: torch.device | str) -> "Support":
        """The same support on another device; one in a file stays there."""
        if not isinstance(self.points, TensorPoints):
            raise ValueError("support is in a file: its tiles are computed with on the CPU")
        labels = None if self.labels is None else self.labels.to(device)
        log_prior = None if self.log_prior is None else self.log_prior.to(device)
        return Support(self.points.tensor.to(device), labels, log_prior)

    def tiles(
        self, start: int, stop: int, dtype: torch.dtype, size: int = TILE_BYTES
    ) -> Iterator[tuple[slice, Tensor]]:
        """Values of the points from ``start`` to ``stop``, tile by tile; each is valid until the next one."""
        step = min(max(LEAST_TILE, size // (self.dim * dtype.itemsize)), stop - start)

        def room(kind: torch.dtype, needed: bool) -> Tensor | None:
            return torch.empty(step, self.dim, dtype=kind, device=self.device) if needed else None

        integers = room(torch.int8, self.pixels)
        buffer = room(dtype, self._centre is None and dtype not in (self.points.dtype, torch.int8))
        stored = self.points.buffer(step)
        for low in range(start, stop, step):
            part = slice(low, min(low + step, stop))
            yield part, self._values(self.points.read(part.start, part.stop, stored), dtype, buffer, integers)

    def values(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Values of some points, shape ``(len(index), d)``."""
        return self._values(self.points.gather(index), dtype)

    def data(self, index: Tensor | slice, dtype: torch.dtype, columns: slice = slice(None)) -> Tensor:
        """Some of the data themselves, in data units, or some of their columns."""
        if isinstance(index, slice):
            index = torch.arange(len(self), device=self.device)[index]
        stored = self.points
        rows = stored.tensor[:, columns].index_select(0, index) if isinstance(stored, TensorPoints) else None
        rows = stored.gather(index)[:, columns] if rows is None else rows
        values = as_values(rows, dtype)
        return values if self.unit == 1 else values.add_(self.origin).mul_(self.unit)

    def subset(self, index: Tensor) -> "Support":
        """Some of the points as a support of its own, with the bounds of the whole; in memory."""
        part = copy(self)
        part.points = TensorPoints(self.points.gather(index))
        part.labels = None if self.labels is None else self.labels[index]
        part.log_prior = None if self.log_prior is None else self.log_prior[index]
        part.squared_norms = self.squared_norms[index]
        part._lifted = None
        part.__dict__.pop("probe", None)
        part.__dict__.pop("merged", None)
        return part

    @cached_property
    def merged(self) -> "Support":
        """The same points with equal ones of one label as one, whose prior is the sum of theirs."""
        twins = equal_points(self)
        if twins is None:
            return self
        prior = torch.zeros(len(self), dtype=torch.float64, device=self.device)
        prior = prior if self.log_prior is None else self.log_prior.double()
        largest = prior.max()
        sums = torch.zeros_like(prior).index_add(0, twins, torch.exp(prior - largest))
        part = copy(self)
        part.log_prior = torch.log(sums) + largest
        return part

    @cached_property
    def probe(self) -> Probe:
        """Estimates of how many points matter at a bandwidth."""
        return Probe(self)

    def lifted(self) -> Tensor:
        """Values with their squared norms as a further column, float32 ``(N, max(d + 1, 16))``; made once.

        Products of narrower matrices take longer than those of 16 columns, of which the last are then 0.
        """
        if self._lifted is None:
            lifted = torch.zeros(len(self), max(self.dim + 1, 16), device=self.device)
            for part, values in self.tiles(0, len(self), torch.float32):
                lifted[part, : self.dim] = values
            lifted[:, self.dim] = self.squared_norms
            self._lifted = lifted
        return self._lifted

    def _values(
        self, block: Tensor, dtype: torch.dtype, out: Tensor | None = None, integers: Tensor | None = None
    ) -> Tensor:
        if self._centre is None:
            return as_values(block, dtype, out, integers)
        # In float64 first: the centre is as large as the points and their spread is not.
        return (as_values(block, torch.float64) - self._centre).to(dtype)

    def _measure(self) -> None:
        """Norms, radius, reach and, where the points lie far from the origin, the shift."""
        step = max(1, _BLOCK_BYTES // (8 * self.dim))
        blocks = [(low, min(low + step, len(self))) for low in range(0, len(self), step)]
        norms, total, bad = [], torch.zeros(self.dim, dtype=torch.float64, device=self.device), 0
        for low, high in blocks:
            values = as_values(self.points.read(low, high), torch.float64)
            norms.append(values.square().sum(1))
            total += values.sum(0)
            bad += int((~torch.isfinite(norms[-1])).sum())
        if bad:
            raise ValueError(f"support must be finite, got NaN or infinity in {bad} of {len(self)} points")
        centre, self.squared_norms = total / len(self), torch.cat(norms)
        self.centre = centre
        self.radius = float(self.squared_norms.max()) ** 0.5
        self.reach = self._farthest(centre, blocks)
        if float(centre.norm()) > _OFFSET_WORTH_REMOVING * self.reach:
            self._centre, self.pixels = centre, False
            moved = (as_values(self.points.read(*block), torch.float64) - centre for block in blocks)
            self.squared_norms = torch.cat([part.square().sum(1) for part in moved])
            self.radius = float(self.squared_norms.max()) ** 0.5

    def _farthest(self, centre: Tensor, blocks: list[tuple[int, int]]) -> float:
        squares = []
        for low, high in blocks:
            values = as_values(self.points.read(low, high), torch.float64)
            squares.append((values - centre).square().sum(1).max())
        return math.sqrt(float(torch.stack(squares).max()))
