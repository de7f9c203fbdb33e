"""Geometry: is there a metric in which the same examples say more about held-out points?

Kernels are chosen (shrinkage, neighbours, bandwidth) on one half of each task's held-out points and measured on the
other, so that what is tried in addition cannot count as a gain by itself.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.audits.finding import Finding
from fluvial.paths import GaussianPath
from fluvial.progress import Progress, ProgressCallback
from fluvial.support.diagnosis.draws import Draws, spread
from fluvial.support.diagnosis.geometry_view import geometry_finding
from fluvial.support.diagnosis.kernels import (
    Kernel,
    isotropic,
    local_kernels,
    log_kernels,
    mahalanobis_kernels,
    posterior_mean,
)
from fluvial.support.evaluation.intervals import mean_interval

BANDWIDTHS = tuple(0.02 * 1.12**k for k in range(47))
"""Bandwidths that are tried, in units of the support's spread in one coordinate: .02 to 3.7."""
TIMES = tuple(0.05 + 0.1 * k for k in range(10))
KERNELS = ("isotropic", "Mahalanobis", "local")


def measure_geometry(
    draws: Draws, path: GaussianPath, generator: torch.Generator, progress: ProgressCallback | None = None
) -> Finding:
    """Held-out log-density and denoising error of isotropic, Mahalanobis and local kernels.

    Args:
        draws: The tasks.
        path: The path.
        generator: Of the noise, the halves and the Gaussian doubles of the tasks.
        progress: Called after each task.

    Returns:
        A finding whose ``data`` holds ``log_density`` (nats per held-out point) of each kernel, ``gain`` of the other
        two over the isotropic one with interval over tasks, ``whole_excess`` (the Mahalanobis gain beyond that on round
        Gaussians), ``excess`` (the local one's beyond that on Gaussian data of the same covariance),
        ``true_log_density`` where it is known, and against ``t`` the ``denoising`` errors, shares of the data's
        variance, with their ``denoising_gain``.
    """
    order = torch.randperm(draws.held_out.shape[1], generator=generator)  # the order of real data is no accident
    held_out = draws.held_out[:, order]
    middle = held_out.shape[1] // 2
    noise = torch.randn(held_out[:, middle:].shape, generator=generator, dtype=torch.float64)
    everything = draws.everything()
    scale = spread(everything)
    rows = _Rows(draws.tasks)
    for b, support in enumerate(draws.support):
        tune, test = held_out[b, :middle], held_out[b, middle:]
        chosen = _chosen(tune, support)
        rows.add(b, chosen, test, support)
        rows.errors[b] = _denoising(chosen, support, test, noise[b], path) / scale[b]
        double = _gaussian_double(everything[b], len(support) + held_out.shape[1], generator)
        rows.null[b] = _gain(local_kernels, *double.split([len(support), middle, len(test)]))
        if progress is not None:
            progress(Progress("geometry", b + 1, draws.tasks))
    for b in range(draws.tasks):
        double = torch.randn(draws.m + held_out.shape[1], draws.dim, generator=generator, dtype=torch.float64)
        rows.round[b] = _gain(mahalanobis_kernels, *double.split([draws.m, middle, noise.shape[1]]))
    truth, test = draws.truth, held_out[:, middle:]
    known = truth.log_density(test).double().mean(1) if truth is not None and truth.has_density else None
    return geometry_finding({**_figures(draws, rows, known), "path": repr(path)})


class _Rows:
    """What is measured of each task."""

    def __init__(self, tasks: int) -> None:
        self.density = torch.zeros(tasks, len(KERNELS), dtype=torch.float64)
        self.errors = torch.zeros(tasks, len(KERNELS) + 1, len(TIMES), dtype=torch.float64)
        self.null, self.round = torch.zeros(2, tasks, dtype=torch.float64)
        self.bandwidths = torch.zeros(tasks, len(KERNELS), dtype=torch.float64)
        self.labels: list[list[str]] = []

    def add(self, task: int, chosen: list[tuple[Kernel, float]], test: Tensor, support: Tensor) -> None:
        found = [log_density(kernel, test, support, (h,))[0].mean() for kernel, h in chosen]
        self.density[task] = torch.stack(found)
        self.bandwidths[task] = torch.tensor([h for _, h in chosen], dtype=torch.float64)
        self.labels.append([kernel.label for kernel, _ in chosen])


def _chosen(tune: Float[Tensor, "n d"], support: Float[Tensor, "m d"]) -> list[tuple[Kernel, float]]:
    """The best kernel of each kind with its bandwidth."""
    options = ([isotropic(support)], mahalanobis_kernels(support), local_kernels(support))
    return [best_kernel(some, tune, support) for some in options]


def _gaussian_double(points: Float[Tensor, "N d"], count: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Gaussian points with the mean and covariance of these."""
    centred = points - points.mean(0)
    mixing = torch.randn(count, len(points), generator=generator, dtype=points.dtype)
    return points.mean(0) + mixing @ centred / math.sqrt(len(points) - 1)


def _gain(kind: Callable[[Tensor], list[Kernel]], support: Tensor, tune: Tensor, test: Tensor) -> float:
    """Gain of the best of some kernels over the isotropic one in held-out log-density."""
    (plain, h), (near, b) = (best_kernel(some, tune, support) for some in ([isotropic(support)], kind(support)))
    return float((log_density(near, test, support, (b,)) - log_density(plain, test, support, (h,))).mean())


def best_kernel(
    kernels: list[Kernel], points: Float[Tensor, "n d"], support: Float[Tensor, "m d"]
) -> tuple[Kernel, float]:
    """The kernel and its bandwidth with the highest mean log-density at ``points``; the first of equal ones.

    Example:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> kernel, bandwidth = best_kernel([isotropic(x[:100])], x[100:], x[:100])
        >>> kernel.label, 0.2 < bandwidth < 0.6
        ('isotropic', True)
    """
    found = []
    for kernel in kernels:
        means = log_density(kernel, points, support, BANDWIDTHS).mean(1)
        found.append((float(means.max()), BANDWIDTHS[int(means.argmax())], kernel))
    _, bandwidth, kernel = max(found, key=lambda item: item[0])
    return kernel, bandwidth


def log_density(
    kernel: Kernel, x: Float[Tensor, "n d"], support: Float[Tensor, "m d"], bandwidths: tuple[float, ...]
) -> Float[Tensor, "H n"]:
    r"""Log-density, in nats, of :math:`\frac1m \sum_i N(s_i, b^2 C_i)` at each bandwidth ``b``.

    Example:
        >>> at = torch.zeros(1, 1, dtype=torch.float64)
        >>> kernel = Kernel("standard", torch.ones(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
        >>> round(float(log_density(kernel, at, at, (1.0,))), 4)  # minus half the logarithm of 2 pi
        -0.9189
    """
    squares, half = log_kernels(kernel, x, support)
    m, d = support.shape
    constant = 0.5 * d * math.log(2 * math.pi) + math.log(m)
    rows = [torch.logsumexp(-squares / (2 * b * b) - half, 1) - d * math.log(b) - constant for b in bandwidths]
    return torch.stack(rows)


def _denoising(
    chosen: list[tuple[Kernel, float]],
    support: Float[Tensor, "m d"],
    x1: Float[Tensor, "n d"],
    noise: Float[Tensor, "n d"],
    path: GaussianPath,
) -> Float[Tensor, "kernels T"]:
    """Mean squared error of the posterior mean of each kernel density estimate; last the plug-in, of bandwidth 0."""
    cases = [*chosen, (chosen[0][0], 0.0)]
    rows = torch.zeros(len(cases), len(TIMES), dtype=torch.float64)
    for column, time in enumerate(TIMES):
        h = float(path.bandwidth(torch.tensor(time, dtype=torch.float64)))
        for row, (kernel, bandwidth) in enumerate(cases):
            mean = posterior_mean(kernel, x1 + h * noise, support, bandwidth, h)
            rows[row, column] = (x1 - mean).square().sum(1).mean()
    return rows


def _figures(draws: Draws, rows: _Rows, known: Tensor | None) -> dict[str, Any]:
    others = list(enumerate(KERNELS))[1:]
    density, mean = rows.density, rows.errors.mean(2)
    gain = {name: density[:, k] - density[:, 0] for k, name in others}
    return {
        "m": draws.m,
        "dimension": draws.dim,
        "tasks": draws.tasks,
        "held_out": draws.held_out.shape[1],
        "log_density": {name: float(density[:, k].mean()) for k, name in enumerate(KERNELS)},
        "gain": {name: mean_interval(values).to_dict() for name, values in gain.items()},
        "null": mean_interval(rows.null).to_dict(),
        "excess": mean_interval(gain["local"] - rows.null).to_dict(),
        "round_null": mean_interval(rows.round).to_dict(),
        "whole_excess": mean_interval(gain["Mahalanobis"] - rows.round).to_dict(),
        "true_log_density": None if known is None else float(known.mean()),
        "room": None if known is None else mean_interval(known - density[:, 0]).to_dict(),
        "t": list(TIMES),
        "denoising": {name: rows.errors[:, k].mean(0).tolist() for k, name in enumerate((*KERNELS, "plug-in"))},
        "denoising_gain": {name: mean_interval(mean[:, 0] - mean[:, k]).to_dict() for k, name in others},
        "bandwidth": {name: float(rows.bandwidths[:, k].median()) for k, name in enumerate(KERNELS)},
        "chosen": {name: _most_common([row[k] for row in rows.labels]) for k, name in enumerate(KERNELS)},
    }


def _most_common(labels: list[str]) -> dict[str, int]:
    return {label: labels.count(label) for label in sorted(set(labels), key=labels.count, reverse=True)}
