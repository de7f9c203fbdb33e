"""Collapse: does the exact field of a support still average over examples while the sample is undecided?

Queries are :math:`x_1 + h z` with :math:`x_1` held-out points, so that no query has its own datum in the support.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluvial.audits.finding import Finding
from fluvial.paths import GaussianPath
from fluvial.progress import Progress, ProgressCallback
from fluvial.support.diagnosis.collapse_view import collapse_finding
from fluvial.support.diagnosis.condensation import (
    bandwidth_leaving,
    condensation_bandwidth,
    expected_size,
    undetermined,
)
from fluvial.support.diagnosis.draws import Draws
from fluvial.support.evaluation.intervals import mean_interval
from fluvial.support.kernel.weighing import weights

OPEN_SHARE = 0.25
"""Share of the data's variance that is undetermined where the effective sample size is judged."""
PAPER_TIME = 0.56
"""Time at which Matsui Smola 2026 states effective sample sizes."""
TIMES = tuple(0.02 + 0.04 * k for k in range(25))
_QUERIES = 128
_BISECTIONS = 14
_REACH = 4.0  # nats of bandwidth about the predicted one in which the measured one is sought first
_FARTHEST = 64.0  # then further, up to here: all weights are equal above, and a single one or a tie is left below


def measure_collapse(
    draws: Draws, path: GaussianPath, generator: torch.Generator, progress: ProgressCallback | None = None
) -> Finding:
    """Effective sample size and entropy against time, and the time of collapse against the dimension.

    Args:
        draws: The tasks.
        path: The path.
        generator: Of the noise.
        progress: Called after each time and dimension.

    Returns:
        A finding whose ``data`` holds, against ``t``, ``size``, ``entropy`` (nats), ``share`` (of queries with over
        half of their weight on one example) and ``predicted_size``; ``time``, at which that share passes one half, and
        ``late_time`` (90 %), each with interval, and ``predicted_time``; ``open_size``, the effective sample size where
        a quarter of the variance is undetermined; and ``nested``, the same by number of leading coordinates.
    """
    queries = draws.held_out[:, :_QUERIES]
    noise = torch.randn(queries.shape, generator=generator, dtype=torch.float64)
    dims = nested_dimensions(draws.dim, draws.m)
    report = _Steps(len(TIMES) + len(dims), progress)
    whole = _projected(draws, queries, noise, draws.dim)
    curves = [_curve_point(whole, path, t, report) for t in TIMES]
    nested = []
    for k in dims:
        nested.append(_summary(_projected(draws, queries, noise, k), path, k))
        report()
    data = {
        "m": draws.m,
        "dimension": draws.dim,
        "tasks": draws.tasks,
        "queries": queries.shape[1],
        "path": repr(path),
        "t": list(TIMES),
        **{name: [point[name] for point in curves] for name in curves[0]},
        "open_share": OPEN_SHARE,
        "paper_time": PAPER_TIME,
        "nested": nested,
        **{name: nested[-1][name] for name in nested[-1] if name != "dimension"},
    }
    return collapse_finding(data)


def nested_dimensions(dim: int, m: int) -> list[int]:
    """Numbers of leading coordinates that are looked at: powers of 2 below ``min(dim, m)``, and ``dim``.

    Example:
        >>> nested_dimensions(8, 50), nested_dimensions(20, 50), nested_dimensions(64, 10)
        ([1, 2, 4, 8], [1, 2, 4, 8, 16, 20], [1, 2, 4, 8, 64])
    """
    return [2**k for k in range(12) if 2**k < min(dim, m)] + [dim]


@dataclass(frozen=True)
class _Task:
    support: Float[Tensor, "B m d"]
    queries: Float[Tensor, "B n d"]
    noise: Float[Tensor, "B n d"]
    everything: Float[Tensor, "B N d"]

    def weights(self, bandwidth: Tensor) -> Float[Tensor, "B n m"]:
        return weights(self.queries + bandwidth.reshape(-1, 1, 1) * self.noise, self.support, bandwidth)

    @cached_property
    def eigenvalues(self) -> Float[Tensor, "B d"]:
        centred = self.everything - self.everything.mean(1, keepdim=True)
        found: Tensor = torch.linalg.eigvalsh(centred.mT @ centred / (centred.shape[1] - 1))
        return found.clamp_min(0)

    def sizes(self, bandwidth: Tensor) -> Float[Tensor, " B"]:
        sizes: Tensor = self.weights(bandwidth).square().sum(-1).reciprocal()
        return sizes.mean(1)

    def bandwidth_at(self, share: float, guess: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Bandwidth of each task at which ``share`` of the queries have over half of their weight on one example.

        It is 0 where they never have, since their nearest examples are equal.
        """
        centre, reach, steps = guess.log(), _REACH, _BISECTIONS
        low, high = centre - reach, centre + reach
        never, still = ~self._collapsed(low, share), self._collapsed(high, share)
        while bool((never | still).any()) and reach < _FARTHEST:
            reach, steps = 2 * reach, steps + 1
            low, high = torch.where(never, centre - reach, low), torch.where(still, centre + reach, high)
            never, still = ~self._collapsed(low, share), self._collapsed(high, share)
        for _ in range(steps):
            middle = (low + high) / 2
            collapsed = self._collapsed(middle, share)
            low, high = torch.where(collapsed, middle, low), torch.where(collapsed, high, middle)
        return torch.where(never, 0.0, ((low + high) / 2).exp())

    def _collapsed(self, log_bandwidth: Float[Tensor, " B"], share: float) -> Bool[Tensor, " B"]:
        return (self.weights(log_bandwidth.exp()).amax(-1) > 0.5).double().mean(1) >= share


def _projected(draws: Draws, queries: Tensor, noise: Tensor, k: int) -> _Task:
    """The tasks in the ``k`` leading principal coordinates of their supports."""
    parts = (draws.support, queries, noise, draws.everything())
    if k == draws.dim:
        return _Task(*parts)
    basis = torch.linalg.svd(draws.support - draws.support.mean(1, keepdim=True), full_matrices=False)[2][:, :k].mT
    return _Task(*(part @ basis for part in parts))


def _curve_point(task: _Task, path: GaussianPath, time: float, report: "_Steps") -> dict[str, float]:
    h = path.bandwidth(torch.tensor(time, dtype=torch.float64)).expand(len(task.support))
    w = task.weights(h)
    size = w.square().sum(-1).reciprocal().mean(1)
    interval = mean_interval(size)
    report()
    return {
        "size": interval.value,
        "size_low": interval.low,
        "size_high": interval.high,
        "entropy": float(torch.special.entr(w).sum(-1).mean()),
        "share": float((w.amax(-1) > 0.5).double().mean()),
        "predicted_size": float(expected_size(task.eigenvalues, w.shape[-1], h).mean()),
        "undetermined": float(undetermined(task.eigenvalues, h).mean()),
    }


def _summary(task: _Task, path: GaussianPath, dimension: int) -> dict[str, Any]:
    eigenvalues, m = task.eigenvalues, task.support.shape[1]
    predicted = condensation_bandwidth(eigenvalues, m)
    half, late = (task.bandwidth_at(share, predicted) for share in (0.5, 0.9))
    paper = path.bandwidth(torch.tensor(PAPER_TIME, dtype=torch.float64)).expand(len(predicted))
    left = bandwidth_leaving(eigenvalues, OPEN_SHARE)
    return {
        "dimension": dimension,
        "variance": float(eigenvalues.sum(1).mean()),
        "predicted_time": float(path.time_at_bandwidth(predicted).mean()),
        "time": mean_interval(path.time_at_bandwidth(half)).to_dict(),
        "late_time": mean_interval(path.time_at_bandwidth(late)).to_dict(),
        "bandwidth": float(half.mean()),
        "predicted_bandwidth": float(predicted.mean()),
        "undetermined_at_collapse": float(undetermined(eigenvalues, half).mean()),
        "open_time": float(path.time_at_bandwidth(left).mean()),
        "open_size": mean_interval(task.sizes(left)).to_dict(),
        "open_predicted": float(expected_size(eigenvalues, m, left).mean()),
        "paper_size": mean_interval(task.sizes(paper)).to_dict(),
    }


class _Steps:
    """Counts what is done of a measurement."""

    def __init__(self, total: int, progress: ProgressCallback | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(Progress("collapse", self._done, self._total))
