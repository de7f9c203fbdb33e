r"""Scarcity: how far is the kernel's estimate from the one that endless examples would give, and would more help?

Where the true field is known, the error of the posterior mean is :math:`E \|\hat m_S - m\|^2`. For real data it is
estimated from two disjoint supports ``A`` and ``B`` of the same class as :math:`\tfrac12 E \|\hat m_A - \hat m_B\|^2`:
the variance over supports without bias, and so the error but for the estimator's bias, a lower bound of it. Errors of
the velocity are those of the posterior mean times :math:`(w / \sigma)^2`, ``w`` the path's Wronskian.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.audits.finding import Finding
from fluvial.metrics.mmd import batched_median_distance, batched_mmd2
from fluvial.paths import GaussianPath
from fluvial.progress import Progress, ProgressCallback
from fluvial.support.diagnosis.draws import Draws, spread
from fluvial.support.diagnosis.rates import fitted_rate, near_rate, usable
from fluvial.support.diagnosis.scarcity_view import scarcity_finding
from fluvial.support.evaluation.intervals import mean_interval
from fluvial.support.evaluation.plug_in import plug_in_samples
from fluvial.support.kernel.weighing import weights

TIMES = tuple(0.05 + 0.1 * k for k in range(10))
_QUERIES = 128


def measure_scarcity(
    draws: Draws, path: GaussianPath, generator: torch.Generator, progress: ProgressCallback | None = None
) -> Finding:
    """Errors of posterior mean and velocity against the support size, with their rates, and the plug-in's MMD.

    Args:
        draws: The tasks.
        path: The path.
        generator: Of the noise and of the plug-in's samples.
        progress: Called after each support size.

    Returns:
        A finding whose ``data`` holds, against ``sizes``, ``error`` (of the posterior mean, averaged over t, as a share
        of the data's variance), ``velocity`` (averaged over t, squared data units), ``adapted`` (at the bandwidth
        ``spread * size^(-1/(4 + d))``) and ``mmd2`` beside ``mmd2_line``; the fitted ``rates`` of all four with
        intervals, None where undetermined; ``left_out``, the sizes that a rate leaves out since the mean there is not
        positive; and at the support's own size ``error_here`` and ``rate_here``.
    """
    queries = draws.fresh[:, :_QUERIES]
    noise = torch.randn(queries.shape, generator=generator, dtype=torch.float64)
    known = draws.truth is not None and draws.truth.has_velocity
    measure = _Measurement(draws, path, queries, noise, known)
    names = ("error", "velocity", "adapted", "held_out", "mmd2")
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    scale = batched_median_distance(draws.fresh)
    for step, size in enumerate(draws.sizes):
        for name, value in measure.over_time(size).items():
            rows[name].append(value)
        rows["adapted"].append(measure.adapted(size))
        samples = plug_in_samples(draws.pair[0, :, :size], draws.fresh.shape[1], path.last_sigma, generator)
        rows["mmd2"].append(batched_mmd2(samples, draws.fresh, scale))
        if progress is not None:
            progress(Progress("scarcity", step + 1, len(draws.sizes)))
    line = batched_kernel_gap(draws.fresh, scale)
    stacked = {name: torch.stack(values) for name, values in rows.items()}
    return scarcity_finding(_figures(draws, path, stacked, float(line.mean()), known, queries.shape[1]))


def batched_kernel_gap(points: Float[Tensor, "B n d"], bandwidth: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    r""":math:`1 - E k(x, x')` of a Gaussian kernel: the plug-in's expected squared MMD is that over ``m``.

    Example:
        >>> points = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64)
        >>> batched_kernel_gap(points, torch.tensor([2.0], dtype=torch.float64))  # 1 - exp(-1/2)
        tensor([0.3935], dtype=torch.float64)
    """
    n = points.shape[1]
    squares = torch.cdist(points, points).square()
    total = torch.exp(-squares / (2 * bandwidth.square()[:, None, None])).sum((1, 2))
    return 1 - (total - n) / (n * (n - 1))


class _Measurement:
    """Errors of the tasks' supports at one set of queries."""

    def __init__(self, draws: Draws, path: GaussianPath, queries: Tensor, noise: Tensor, known: bool) -> None:
        self._draws, self._path, self._queries, self._noise = draws, path, queries, noise
        self._truth = draws.truth if known else None
        self._variance = spread(draws.beside())
        self._means = [self._true_mean(self._bandwidth(time)) for time in TIMES]

    def over_time(self, size: int) -> dict[str, Float[Tensor, " B"]]:
        """Errors of the posterior mean, the velocity and held-out data, averaged over t."""
        rows = []
        for time, truth in zip(TIMES, self._means, strict=True):
            h = self._bandwidth(time)
            error, held_out = self._errors(size, h, truth)
            t = torch.tensor(time, dtype=torch.float64)
            factor = (self._path.wronskian(t) / self._path.sigma(t)).square()
            rows.append(torch.stack([error / self._variance, factor * error, held_out / self._variance]))
        error, velocity, held_out = torch.stack(rows).mean(0)
        return {"error": error, "velocity": velocity, "held_out": held_out}

    def adapted(self, size: int) -> Float[Tensor, " B"]:
        """Error of the posterior mean at the bandwidth that falls with the size at the minimax rate."""
        dim = self._draws.dim
        h = (self._variance / dim).sqrt() * size ** (-1 / (4 + dim))
        return self._errors(size, h, self._true_mean(h))[0] / self._variance

    def _bandwidth(self, time: float) -> Float[Tensor, " B"]:
        return self._path.bandwidth(torch.tensor(time, dtype=torch.float64)).expand(len(self._queries))

    def _errors(self, size: int, h: Float[Tensor, " B"], truth: Tensor | None) -> tuple[Tensor, Tensor]:
        """Squared errors of the posterior mean, and of it as an estimate of the held-out datum; means over queries."""
        x = self._queries + h[:, None, None] * self._noise
        first = self._estimate(x, self._draws.pair[0, :, :size], h)
        if truth is None:
            other = self._estimate(x, self._draws.pair[1, :, :size], h)
            error = 0.5 * (first - other).square()
        else:
            error = (first - truth).square()
        return error.sum(2).mean(1), (first - self._queries).square().sum(2).mean(1)

    @staticmethod
    def _estimate(x: Tensor, support: Tensor, h: Tensor) -> Float[Tensor, "B n d"]:
        return weights(x, support, h) @ support

    def _true_mean(self, h: Float[Tensor, " B"]) -> Float[Tensor, "B n d"] | None:
        """The true posterior mean at the queries, from the true velocity."""
        if self._truth is None:
            return None
        t = self._path.time_at_bandwidth(h)
        x = self._path.alpha(t)[:, None, None] * (self._queries + h[:, None, None] * self._noise)
        times = t[:, None].expand(x.shape[:2]).contiguous()
        velocity = self._truth.velocity(x, times, self._path)
        flat = self._path.convert(velocity.flatten(0, 1), x.flatten(0, 1), times.flatten(), target="denoiser")
        return flat.view(x.shape)


def _figures(
    draws: Draws, path: GaussianPath, rows: dict[str, Tensor], line: float, known: bool, queries: int
) -> dict[str, Any]:
    fitted = ("error", "velocity", "adapted", "mmd2")
    kept = {name: usable(rows[name]) for name in fitted}  # unbiased estimates of few points may be below 0
    here, error = near_rate(draws.sizes, rows["error"], draws.m)
    return {
        "m": draws.m,
        "dimension": draws.dim,
        "tasks": draws.tasks,
        "queries": queries,
        "path": repr(path),
        "known_truth": known,
        "sizes": list(draws.sizes),
        **{name: values.mean(1).tolist() for name, values in rows.items()},
        "error_interval": [mean_interval(values).to_dict() for values in rows["error"]],
        "mmd2_line": [line / size for size in draws.sizes],
        "rates": {name: fitted_rate(draws.sizes, rows[name]).to_dict() for name in fitted},
        "left_out": {name: [s for k, s in enumerate(draws.sizes) if k not in kept[name]] for name in fitted},
        "minimax_rate": 4 / (4 + draws.dim),
        "minimax_velocity_rate": 2 / (4 + draws.dim),
        "local_rate": 6 / (4 + draws.dim),
        "error_here": error,
        "rate_here": here.to_dict(),
    }
