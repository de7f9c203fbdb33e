r"""Precision, recall, density and coverage: whether samples lie where data do, and reach everywhere data are.

A ball around each point reaches to its k-th nearest neighbour within its own set. With real points :math:`x_i` of
radius :math:`r_i` and samples :math:`y_j` of radius :math:`q_j`,

.. math::
    \begin{aligned}
    \text{precision} &= \tfrac1n \#\{j : |x_i - y_j| < r_i \text{ for some } i\}, &
    \text{density} &= \tfrac{1}{k n} \#\{(i, j) : |x_i - y_j| < r_i\}, \\
    \text{recall} &= \tfrac1m \#\{i : |x_i - y_j| < q_j \text{ for some } j\}, &
    \text{coverage} &= \tfrac1m \#\{i : |x_i - y_j| < r_i \text{ for some } j\}.
    \end{aligned}

Pairs are compared by tiles in float32, with a bound on its rounding; those that it leaves open are compared in float64.

Source: Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models"; Naeem et al.
2020, "Reliable Fidelity and Diversity Metrics for Generative Models", whose balls are open as here.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import TILE_BYTES, Samples, as_matrix, as_pair, tiles
from fluvial.metrics.neighbours import k_nearest
from fluvial.progress import Progress, ProgressCallback
from fluvial.smoothing.products import inner

FEATURES_IN_FLOAT32 = 16384
"""Above this many features the bound on float32's rounding leaves too many pairs open."""


@dataclass(frozen=True)
class PRDC:
    """Precision, recall, density and coverage of samples against real data.

    Args:
        precision: Share of the samples inside of a ball of the real data, in [0, 1].
        recall: Share of the real data inside of a ball of the samples, in [0, 1].
        density: Balls of the real data that a sample lies in, over k: about 1 for samples of the same distribution.
        coverage: Share of the balls of the real data that hold a sample, in [0, 1].

    Example:
        >>> PRDC(1.0, 0.9, 1.02, 0.95).recall
        0.9
    """

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Manifold:
    """A set of points with a ball around each, the estimate of where its distribution lives.

    Args:
        points: Shape (n, d).
        square_radii: Squared distance of each point to its k-th nearest neighbour in the set, shape (n,), float64.
        k: Which neighbour.

    Example:
        >>> Manifold.of(torch.tensor([[0.0], [1.0], [3.0]]), k=1).square_radii
        tensor([1., 1., 4.], dtype=torch.float64)
    """

    points: Float[Tensor, "n d"]
    square_radii: Float[Tensor, " n"]
    k: int

    @classmethod
    def of(cls, x: Samples, k: int = 5, *, name: str = "x", progress: ProgressCallback | None = None) -> "Manifold":
        """Balls of the rows of ``x``, shape (n, ...), n > k; rows are flattened.

        Raises:
            ValueError: If k is below 1, there are k rows or fewer, or ``x`` is not finite; ``name`` names it.

        Example:
            >>> len(Manifold.of(torch.zeros(9, 1, 4, 4)).points)
            9
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        points = as_matrix(x, name)
        if len(points) <= k:
            raise ValueError(f"{name} must have more than k = {k} rows, got {len(points)}")
        nearest = k_nearest(points, points, k, exclude_self=True, progress=progress).indices[:, -1]
        return cls(points, _squares(points, points, torch.arange(len(points), device=points.device), nearest), k)


@checked
def prdc(samples: Samples, reference: Samples, *, k: int = 5, progress: ProgressCallback | None = None) -> PRDC:
    """Precision, recall, density and coverage of samples against real data; no whole distance matrix is formed.

    They depend on the numbers of rows, recall and coverage above all: compare values at equal numbers only.

    Args:
        samples: Generated samples or their features, shape (n, ...), n > k; rows are flattened.
        reference: Real data or their features, shape (m, ...), m > k.
        k: Neighbour that the balls reach to.
        progress: Called after every tile.

    Raises:
        ValueError: If a set has k rows or fewer or is not finite, k is below 1, or the numbers of features differ.

    Source:
        Kynkäänniemi et al. 2019; Naeem et al. 2020.

    Example:
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> prdc(x[:100], x[:100] + 9).precision
        0.0
    """
    fakes, reals = as_pair(samples, reference, ("samples", "reference"))
    own = Manifold.of(fakes, k, name="samples", progress=progress)
    return compare_manifolds(own, Manifold.of(reals, k, name="reference", progress=progress), progress=progress)


def compare_manifolds(samples: Manifold, reference: Manifold, *, progress: ProgressCallback | None = None) -> PRDC:
    """The four figures of :func:`prdc` from balls that were found before.

    Raises:
        ValueError: If the numbers of features or the neighbours k differ.

    Example:
        >>> balls = Manifold.of(torch.tensor([[0.0], [1.0], [3.0], [3.5]]), k=1)
        >>> compare_manifolds(balls, balls)
        PRDC(precision=1.0, recall=1.0, density=1.0, coverage=1.0)
    """
    if samples.k != reference.k:
        raise ValueError(f"samples and reference must have balls of the same k, got {samples.k} and {reference.k}")
    fakes, reals = as_pair(samples.points, reference.points, ("samples", "reference"))
    screen = _Screen(fakes, reals)
    inside = torch.zeros(len(fakes), dtype=torch.bool, device=fakes.device)
    reached, covered = torch.zeros(2, len(reals), dtype=torch.bool, device=fakes.device)
    pairs = 0
    for tile in tiles(len(fakes), len(reals), TILE_BYTES // 2):
        in_reals = screen.below(tile, reference.square_radii[None, :])
        inside[tile] = in_reals.any(1)
        covered |= in_reals.any(0)
        pairs += int(in_reals.sum())
        reached |= screen.below(tile, samples.square_radii[tile, None]).any(0)
        if progress is not None:
            progress(Progress("precision and recall", tile.stop, len(fakes)))
    return PRDC(
        precision=float(inside.double().mean()),
        recall=float(reached.double().mean()),
        density=pairs / (reference.k * len(fakes)),
        coverage=float(covered.double().mean()),
    )


class _Screen:
    """Says which pairs of two sets are nearer than given distances, mostly in float32 and always right.

    Both sets are moved to the mean of ``b`` and scaled into the unit ball. There the product form of a squared
    distance errs by at most twice the bound of an inner product, d u / (1 - d u), plus a few roundings u of its parts.
    """

    def __init__(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> None:
        self._a, self._b = a, b
        mean = b.mean(0, dtype=torch.float64)
        exact = a.shape[1] > FEATURES_IN_FLOAT32 or torch.get_float32_matmul_precision() != "highest"
        dtype = torch.float64 if exact else torch.float32
        self._square_scale = max(1e-300, *(float(_largest(x, mean)) for x in (a, b)))
        self._near = [_scaled(x, mean, self._square_scale**0.5, dtype) for x in (a, b)]
        self._squares = [x.double().square().sum(1).to(dtype) for x in self._near]
        unit = torch.finfo(dtype).eps / 2
        self._tolerance = 2 * a.shape[1] * unit / (1 - a.shape[1] * unit) + 40 * unit

    def below(self, tile: slice, square: Float[Tensor, "..."]) -> Bool[Tensor, "q m"]:
        """Whether the squared distances of ``a[tile]`` to ``b`` are below ``square``, which is broadcast."""
        left, right = self._near[0][tile], self._near[1]
        gap = inner(left, right).mul_(-2).add_(self._squares[0][tile, None]).add_(self._squares[1])
        gap.sub_((square / self._square_scale).to(gap.dtype))
        positive = square > 0  # no distance is below 0, so that is settled however many points coincide
        found = (gap < 0) & positive
        row, column = ((gap.abs_() <= self._tolerance) & positive).nonzero(as_tuple=True)
        if len(row):
            limits = square.expand(found.shape)[row, column]
            found[row, column] = _squares(self._a, self._b, row + tile.start, column) < limits
        return found


def _largest(x: Float[Tensor, "n d"], mean: Float[Tensor, " d"]) -> Float[Tensor, ""]:
    """Largest squared distance of a row to the mean."""
    parts = [(x[tile].double() - mean).square().sum(1).amax() for tile in tiles(len(x), x.shape[1], TILE_BYTES // 4)]
    return torch.stack(parts).amax()


def _scaled(
    x: Float[Tensor, "n d"], mean: Float[Tensor, " d"], scale: float, dtype: torch.dtype
) -> Float[Tensor, "n d"]:
    rows = torch.empty(x.shape, dtype=dtype, device=x.device)
    for tile in tiles(len(x), x.shape[1], TILE_BYTES // 4):
        rows[tile] = ((x[tile].double() - mean) / scale).to(dtype)
    return rows


def _squares(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], row: Int[Tensor, " p"], column: Int[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """Squared distances of the pairs ``a[row]``, ``b[column]`` by their differences, in float64."""
    squares = torch.empty(len(row), dtype=torch.float64, device=a.device)
    for tile in tiles(len(row), a.shape[1], TILE_BYTES // 4):
        squares[tile] = (a[row[tile]].double() - b[column[tile]].double()).square_().sum(1)
    return squares
