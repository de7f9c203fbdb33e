r"""Which samples are copies of training data, and whether there are more of them than among fresh data.

The statistic is the local ratio: the distance of a sample to its nearest training datum, over that datum's distance to
its own nearest one. It has no unit and allows for the data being denser here than there. What it is for fresh data is
known from the held-out data and from the training data themselves, each left out in turn. Equal rows, and
near-duplicates that stand apart, are one datum throughout.

Source: the ratio is that of authenticity (Alaa et al. 2022); ranks among fresh data as p-values: Bates et al. 2023,
"Testing for outliers with conformal p-values"; the list of copies: Benjamini & Hochberg 1995, "Controlling the false
discovery rate"; the test: Fisher 1935, "The logic of inductive inference".
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control, hypergeom
from torch import Tensor

from fluvial.data import to_uint8
from fluvial.metrics.duplicates import Duplicates
from fluvial.metrics.matrix import TILE_BYTES, tiles
from fluvial.metrics.neighbours import k_nearest
from fluvial.progress import ProgressCallback

FALSE_DISCOVERIES = 0.1
"""Share of the listed near copies that may be fresh data, on average."""
NEAR_COPY = 0.55
"""No sample is called a near copy above this local ratio, however rare it is among fresh data. Below a half, a sample
is nearer to its datum than any other training datum can be; the rest is allowance."""
CUTS = (0.01, 0.001)
"""Quantiles of the local ratio of training data below which samples and held-out data are counted and compared; a third
cut is half the smallest of these ratios."""


@dataclass(frozen=True)
class Standing:
    """Where each row of a set stands with respect to the training data; all of shape (n,), on the CPU.

    Args:
        distance: To the nearest training datum.
        second: To the nearest training datum that is no duplicate of that one.
        ratio: The local ratio.
        datum: Number of the nearest one among the distinct training data.
    """

    distance: Float[Tensor, " n"]
    second: Float[Tensor, " n"]
    ratio: Float[Tensor, " n"]
    datum: Int[Tensor, " n"]

    @property
    def second_ratio(self) -> Float[Tensor, " n"]:
        """Nearest over second nearest distance (NNDR), in [0, 1]."""
        return self.distance / self.second


def standing(
    points: Float[Tensor, "n d"],
    rows: Float[Tensor, "u d"],
    duplicates: Duplicates,
    progress: ProgressCallback | None = None,
) -> Standing:
    """Where points stand with respect to the distinct training data ``rows``."""
    kept = duplicates.kept
    found = k_nearest(points, rows[kept.to(rows.device)], 2, progress=progress)
    distances, group = found.distances.cpu(), found.indices[:, 0].cpu()
    distance, second, datum = distances[:, 0], distances[:, 1], kept[group]
    left = torch.ones(len(rows), dtype=torch.bool)
    left[kept] = False
    others = torch.nonzero(left).flatten()
    if len(others):  # near-duplicates: one of them may be the nearest, but none is the second beside its own group
        near = k_nearest(points, rows[others.to(rows.device)], 1)
        away, row = near.distances[:, 0].cpu(), others[near.indices[:, 0].cpu()]
        nearer = away < distance
        apart = nearer & (duplicates.group[row] != group)
        second = torch.where(apart, distance, second)
        distance, datum = torch.where(nearer, away, distance), torch.where(nearer, row, datum)
    local = duplicates.neighbours.distances[:, 0][duplicates.group[datum]]
    return Standing(distance, second, distance / local, datum)


def standing_left_out(duplicates: Duplicates) -> Standing:
    """Where every training datum stands with respect to the others; duplicates count as one."""
    distances, indices = duplicates.neighbours.distances, duplicates.neighbours.indices
    own, nearest = torch.arange(len(indices)), indices[:, 0]
    # the nearest datum's own nearest one, without the datum that is left out
    local = torch.where(indices[nearest, 0] == own, distances[nearest, 1], distances[nearest, 0])
    return Standing(distances[:, 0], distances[:, 1], distances[:, 0] / local, duplicates.kept[nearest])


def exact_copies(
    points: Float[Tensor, "n d"], rows: Float[Tensor, "u d"], datum: Int[Tensor, " n"], kind: str
) -> Bool[Tensor, " n"]:
    """Which points equal their nearest training datum up to rounding: of float32, or to uint8 for images in [-1, 1]."""
    reach = max(float(part.abs().max()) for part in rows.split(4096))
    tolerance = 16 * torch.finfo(torch.float32).eps * reach
    parts = []
    for tile in tiles(len(points), points.shape[1], TILE_BYTES // 4):
        a, b = points[tile].double(), rows[datum[tile].to(rows.device)].double()
        same = (a - b).abs().amax(1) <= tolerance
        if kind == "image" and reach <= 1.001:
            same |= (to_uint8(a) == to_uint8(b)).all(1)
        parts.append(same.cpu())
    return torch.cat(parts)


def rank_p_values(values: Float[Tensor, " n"], null: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    """Probability, for each value, that a fresh one is as small: (1 + number of null values <= it) / (m + 1).

    Example:
        >>> rank_p_values(torch.tensor([0.5, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([0.2500, 1.0000], dtype=torch.float64)
    """
    below = torch.searchsorted(null.sort().values, values.contiguous(), right=True)
    return (1 + below.double()) / (len(null) + 1)


@dataclass(frozen=True)
class Copies:
    """The samples that are copies.

    Args:
        sample: Their numbers, the nearest first.
        exact: For each, whether it equals its datum up to rounding.
        threshold: Largest local ratio at which a sample is listed; None if no near copy is.
    """

    sample: Int[Tensor, " c"]
    exact: Bool[Tensor, " c"]
    threshold: float | None


def find_copies(
    samples: Standing, exact: Bool[Tensor, " n"], null: Float[Tensor, " m"], level: float = FALSE_DISCOVERIES
) -> Copies:
    """Exact copies, and among the other samples near ones at a stated false discovery rate.

    Exact copies are certain; counted among the discoveries, they would let pass more false ones.

    Args:
        samples: Where the samples stand.
        exact: Which of them equal a training datum.
        null: Local ratios of fresh data.
        level: False discovery rate of the list.
    """
    near = torch.zeros_like(exact)
    rest = torch.nonzero(~exact).flatten()
    if len(rest):
        adjusted = false_discovery_control(rank_p_values(samples.ratio[rest], null).numpy())
        near[rest] = (torch.from_numpy(np.asarray(adjusted)) <= level) & (samples.ratio[rest] <= NEAR_COPY)
    threshold = float(samples.ratio[near].max()) if bool(near.any()) else None
    found = torch.nonzero(near | exact).flatten()
    order = found[torch.argsort(samples.ratio[found], stable=True)]
    return Copies(order, exact[order], threshold)


def excess_p_values(
    samples: Float[Tensor, " n"], held_out: Float[Tensor, " m"], train: Float[Tensor, " N"]
) -> tuple[float, ...]:
    """Probability that samples have so many small local ratios among those of samples and held-out data, per cut.

    Each is Fisher's exact test, one-sided, at a cut that the training data alone decide (:data:`CUTS`): it holds at
    its level for any number of rows, if samples and held-out data are exchangeable.

    Example:
        >>> fresh = torch.linspace(0.5, 2, 100)
        >>> [p < 1e-3 for p in excess_p_values(torch.zeros(10), fresh, fresh)]
        [True, True, True]
        >>> [round(p, 2) for p in excess_p_values(fresh, fresh, fresh)]
        [0.69, 0.69, 1.0]
    """
    cuts = [float(np.quantile(train.numpy(), share, method="higher")) for share in CUTS]
    found = []
    for cut in (*cuts, float(train.min()) / 2):
        ours, theirs = int((samples <= cut).sum()), int((held_out <= cut).sum())
        found.append(float(hypergeom.sf(ours - 1, len(samples) + len(held_out), ours + theirs, len(samples))))
    return tuple(found)
