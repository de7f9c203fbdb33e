"""The figures of a memorization finding, as plain values, from what was measured."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from torch import Tensor

from fluvial.audits.copies import FALSE_DISCOVERIES, Copies, Standing, excess_p_values, rank_p_values
from fluvial.metrics.copying_test import CTTest, rank_z_score
from fluvial.metrics.duplicates import Duplicates

_LISTED = 10_000  # copies, each with its training datum
_MOST_COPIED = 100
LEVELS = (0.0, *(10 ** (k / 10 - 4) for k in range(20)), *(k / 100 for k in range(1, 101)))
"""Levels of the quantiles that are kept of distances and local ratios; dense at the near end, where copies are."""


@dataclass(frozen=True)
class Evidence:
    """What was measured, before it is put into words.

    Args:
        samples: Where the samples stand.
        fresh: Where the held-out data stand or, without any, ``left_out``.
        left_out: Where the training data stand, each without itself.
        exact: Which samples equal their nearest training datum.
        copies: Which samples are copies.
        duplicates: Of the training data.
        test: Of the distances of samples and fresh data.
        held_out: Whether there are held-out data.
    """

    samples: Standing
    fresh: Standing
    left_out: Standing
    exact: Bool[Tensor, " n"]
    copies: Copies
    duplicates: Duplicates
    test: CTTest
    held_out: bool


def samples_shown(evidence: Evidence, show: int) -> Int[Tensor, " s"]:
    """Samples to show: the nearest copy of each of the most copied training data, else the nearest samples."""
    ratio, datum = evidence.samples.ratio, evidence.samples.datum
    copied = evidence.copies.sample
    if not len(copied):
        return torch.argsort(ratio, stable=True)[:show]
    counts = torch.bincount(datum[copied], minlength=int(datum.max()) + 1)
    seen: dict[int, int] = {}
    for sample in copied.tolist():
        seen.setdefault(int(datum[sample]), sample)
    order = sorted(seen, key=lambda d: (-int(counts[d]), float(ratio[seen[d]])))
    return torch.tensor([seen[d] for d in order[:show]], dtype=torch.int64)


def figures(e: Evidence, alpha: float) -> dict[str, Any]:
    """All figures as plain values."""
    n, found = len(e.samples.distance), len(e.copies.sample)
    excess = excess_p_values(e.samples.ratio, e.fresh.ratio, e.left_out.ratio)
    # Bonferroni: whatever their dependence, the alarm is false at most at the rate alpha
    p_value = min(1.0, (len(excess) + 1) * min(*excess, e.test.p_value))
    interval = binomtest(found, n).proportion_ci(0.95, "exact")
    upper = binomtest(found, n, alternative="less").proportion_ci(0.95, "exact").high
    first = e.duplicates.distinct.first
    threshold = e.copies.threshold
    return {
        "samples": n,
        "train": len(e.duplicates.distinct.inverse),
        "held_out": len(e.fresh.distance) if e.held_out else None,
        "alarm": p_value <= alpha,
        "p_value": p_value,
        "p_values_of_tests": {"copies": list(excess), "distance": e.test.p_value},
        **_distances(e),
        "c_t": e.test.statistic if e.held_out else None,
        "distance_z": rank_z_score(e.samples.distance.numpy(), e.fresh.distance.numpy()),
        "c_t_cells": {"all": e.test.cells, "scores": list(e.test.scores), "weights": list(e.test.weights)},
        "copies": found,
        "exact_copies": int(e.copies.exact.sum()),
        "copy_rate": found / n,
        "copy_rate_interval": [float(interval.low), float(interval.high)],
        "copy_rate_upper": float(upper),
        "copy_threshold": threshold,
        "false_discovery_rate": FALSE_DISCOVERIES,
        "held_out_copies": 0 if threshold is None else int((e.fresh.ratio <= threshold).sum()),
        "fresh_below_half": float((e.fresh.ratio <= 0.5).double().mean()),
        "copied_samples": e.copies.sample[:_LISTED].tolist(),
        "copied_train": first[e.samples.datum[e.copies.sample[:_LISTED]]].tolist(),
        "copied_ratios": e.samples.ratio[e.copies.sample[:_LISTED]].tolist(),
        "most_copied": _most_copied(e),
        "p_values": rank_p_values(e.samples.distance, e.fresh.distance).tolist(),
        "duplicates": _duplicates(e.duplicates),
        "curves": _curves(e),
    }


def _distances(e: Evidence) -> dict[str, Any]:
    ours, theirs = e.samples.distance, e.fresh.distance
    ratio = float(ours.mean() / theirs.mean())
    # of the logarithm of the ratio, by the delta method, given the training data
    error = math.sqrt(sum(float(x.var() / len(x) / x.mean().square()) for x in (ours, theirs) if float(x.mean()) > 0))
    sets = {"samples": e.samples, "fresh": e.fresh, "left_out": e.left_out}
    nearest = torch.where(e.duplicates.distinct.counts > 1, 0.0, e.duplicates.nearest)
    authentic = {
        name: float((s.distance > nearest[s.datum]).double().mean())
        for name, s in sets.items()
        if name != "left_out" and (name != "fresh" or e.held_out)
    }
    return {
        "ratio": ratio,
        "ratio_interval": [ratio * math.exp(-1.96 * error), ratio * math.exp(1.96 * error)],
        "mean_distance": {name: float(s.distance.mean()) for name, s in sets.items()},
        "dcr": {name: _spread(s.distance) for name, s in sets.items()},
        "nndr": {name: _spread(s.second_ratio) for name, s in sets.items()},
        "nndr_below_third": {name: float((s.second_ratio < 1 / 3).double().mean()) for name, s in sets.items()},
        "local_ratio": {name: _spread(s.ratio) for name, s in sets.items()},
        "authenticity": authentic,
        "authenticity_without_duplicates": {
            name: float((s.ratio > 1).double().mean()) for name, s in sets.items() if name != "fresh" or e.held_out
        },
    }


def _spread(values: Float[Tensor, " n"]) -> dict[str, float]:
    low, middle = torch.quantile(values, torch.tensor([0.05, 0.5], dtype=values.dtype)).tolist()
    return {"percentile_5": low, "median": middle, "mean": float(values.mean())}


def _most_copied(e: Evidence) -> list[dict[str, int]]:
    rows = e.duplicates.distinct.first[e.samples.datum[e.copies.sample]]
    row, count = torch.unique(rows, return_counts=True)
    order = torch.argsort(count, descending=True, stable=True)[:_MOST_COPIED]
    return [{"train": int(row[i]), "copies": int(count[i])} for i in order]


def _duplicates(found: Duplicates) -> dict[str, Any]:
    return {
        "equal_rows": found.equal_rows,
        "near_rows": found.near_rows,
        "merged_rows": found.merged_rows,
        "near_distance": found.threshold,
        "largest_groups": [group[:20] for group in found.groups(10)],
    }


def _curves(e: Evidence) -> dict[str, Any]:
    sets = {"samples": e.samples, "fresh": e.fresh, "left_out": e.left_out}
    return {
        "level": list(LEVELS),
        "distance": {name: _quantiles(s.distance) for name, s in sets.items()},
        "local_ratio": {name: _quantiles(s.ratio) for name, s in sets.items()},
    }


def _quantiles(values: Float[Tensor, " n"]) -> list[float]:
    found: list[float] = np.quantile(values.numpy(), LEVELS, method="inverted_cdf").tolist()
    return found
