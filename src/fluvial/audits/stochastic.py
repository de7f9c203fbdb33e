r"""When the regression target of flow matching stops being random.

A net is regressed on the conditional velocity :math:`u_t(x_t | x_1)`, which is random given :math:`x_t`; its mean is
the exact velocity :math:`u^*(x_t, t)`. The cosine between both, and the share of the data's variance that is still
undetermined,

.. math:: \cos(u^*, u_t) \quad\text{and}\quad
    \frac{E\,\|x_1 - m(x_t)\|^2}{E\,\|x_1 - E x_1\|^2}, \qquad m(x) = E[x_1 | x_t = x],

say when in time they have become one. In more dimensions they do earlier.

Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", figure 1.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.audits.draws import check_count, check_rows, checked_path, checked_times, choose_rows, crossing
from fluvial.audits.finding import Finding
from fluvial.audits.stochasticity_view import ALIGNED, stochasticity_finding
from fluvial.fields import ExactField
from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.paths.base import align
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator, noise

_BINS = 100
_KINDS = ("image", "points", "table")


@checked
def stochasticity(
    train: Float[Tensor, "N ..."],
    path: GaussianPath | None = None,
    *,
    labels: Int[Tensor, " N"] | None = None,
    times: Sequence[float] | None = None,
    pairs: int = 256,
    halvings: int = 3,
    shape_kind: str = "image",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Finding:
    """Cosine between the exact velocity and the conditional one against t, in all dimensions and in fewer.

    Images become smaller by averaging over areas, points and tables by keeping a random part of their coordinates.
    Each version is a data set of its own, with its own exact field and noise.

    Args:
        train: Training data, shape (N, *D).
        path: The path; :class:`~fluvial.paths.CondOT` if absent.
        labels: Classes, shape (N,), for a model that is conditioned on them: the exact velocity is then that of the
            own class.
        times: Increasing times in [0, 1); by default 0, 0.01, ..., 0.99.
        pairs: Pairs of noise and datum looked at, the same ones at all times.
        halvings: How often an image's sides, or the number of coordinates, are halved; none goes below 2.
        shape_kind: What ``train`` holds: ``"image"`` (C, H, W), ``"points"`` or ``"table"``.
        seed: Seed of the noise, of the choice of data and of the coordinates.
        progress: Called after every time.

    Returns:
        A finding whose ``data`` holds ``t``, the counts ``histogram`` of the cosines of the data as they are (one row
        per time, over ``bins`` edges), and in ``versions``, the data as they are first, for each its ``dimension``,
        and against t ``aligned`` (share of pairs above .9), ``median`` (cosine) and ``undetermined`` (share of the
        data's variance left given the point); ``passage`` is the time from which half of the pairs are above .9,
        ``half_determined`` the time from which less than half of the variance is left; None if it does not come.

    Raises:
        TypeError: If ``train`` holds no floating point numbers.
        ValueError: If an argument is out of range, not finite or of a wrong shape.

    Source:
        Bertrand et al. 2025, "On the Closed-Form of Flow Matching", figure 1.

    Example:
        >>> found = stochasticity(torch.randn(200, 64), pairs=64, halvings=1, shape_kind="points", times=[0.0, 0.9])
        >>> [version["dimension"] for version in found.data["versions"]]
        [64, 32]
    """
    path, grid = checked_path(path), checked_times(times, 100)
    _check(train, labels, pairs, halvings, shape_kind, seed)
    versions = _versions(train, shape_kind, halvings, seed)
    curves: list[dict[str, Any]] = []
    histogram: list[list[int]] = []
    for number, (name, data) in enumerate(versions):
        steps = progress and partial(_report, progress, number * len(grid), len(versions) * len(grid))
        cosines, left = _cosines(data, path, labels, grid, pairs, seed, steps)
        curves.append({"name": name, "dimension": data[0].numel(), **_summary(grid, cosines, left)})
        if number == 0:
            histogram = [torch.histc(row, _BINS, -1, 1).int().tolist() for row in cosines]
    edges = [round(-1 + 2 * k / _BINS, 2) for k in range(_BINS + 1)]
    return stochasticity_finding(
        {
            "t": grid,
            "pairs": pairs,
            "seed": seed,
            "path": repr(path),
            "threshold": ALIGNED,
            "bins": edges,
            "histogram": histogram,
            "versions": curves,
        }
    )


def _check(train: Tensor, labels: Tensor | None, pairs: int, halvings: int, shape_kind: str, seed: int) -> None:
    check_rows("train", train)
    for name, value, minimum in (("pairs", pairs, 2), ("halvings", halvings, 0), ("seed", seed, 0)):
        check_count(name, value, minimum)
    if shape_kind not in _KINDS:
        raise ValueError(f"shape_kind must be one of {', '.join(_KINDS)}, got {shape_kind!r}")
    if shape_kind == "image" and train.ndim != 4:
        raise ValueError(
            f"train must hold images of shape (N, C, H, W) for shape_kind 'image', got {tuple(train.shape)}"
        )
    if labels is not None and labels.shape != train.shape[:1]:
        raise ValueError(f"labels must have shape ({len(train)},) as train has rows, got {tuple(labels.shape)}")


def _versions(train: Tensor, shape_kind: str, halvings: int, seed: int) -> list[tuple[str, Tensor]]:
    """The data as they are, and with ever fewer dimensions, each with its name."""
    versions = [("as they are", train)]
    if shape_kind == "image":
        height, width = train.shape[-2:]
        for _ in range(halvings):
            if min(height, width) < 4:
                break
            height, width = height // 2, width // 2
            versions.append(
                (f"{width} x {height} pixels", torch.nn.functional.adaptive_avg_pool2d(train, (height, width)))
            )
        return versions
    flat = train.flatten(1)
    order = torch.randperm(flat.shape[1], generator=generator(seed, 1)).to(train.device)
    for halving in range(1, halvings + 1):
        kept = flat.shape[1] >> halving
        if kept < 2:
            break
        versions.append((f"{kept} coordinates", flat[:, order[:kept]]))
    return versions


def _report(progress: ProgressCallback, before: int, total: int, done: int, aligned: float) -> None:
    progress(Progress("stochasticity", before + done, total, {"aligned": aligned}))


def _cosines(
    data: Tensor,
    path: GaussianPath,
    labels: Tensor | None,
    grid: Sequence[float],
    pairs: int,
    seed: int,
    report: Any,
) -> tuple[Float[Tensor, "T P"], Float[Tensor, "T P"]]:
    """Cosines per time and pair, and squared distances of the datum from its posterior mean; float64, on the CPU."""
    exact = ExactField(data, path, labels=labels)
    chosen = choose_rows(len(data), pairs, generator(seed, 0)).to(data.device)
    x1, cond = data[chosen], None if labels is None else labels.to(data.device)[chosen]
    x0 = noise(seed, 0, pairs, tuple(data.shape[1:]), data.dtype).to(data.device)
    cosines = torch.empty(len(grid), pairs, dtype=torch.float64)
    left = torch.empty_like(cosines)
    for step, time in enumerate(grid):
        t = torch.full((pairs,), time, dtype=data.dtype, device=data.device)
        point = path.sample(x0, x1, t)
        target = point.ut.double().flatten(1)
        with torch.no_grad():
            mean = exact(point.xt, t, cond).double().flatten(1)
        cosine = torch.nn.functional.cosine_similarity(mean, target, dim=1)
        cosines[step] = cosine.clamp(-1, 1).cpu()  # rounding takes some beyond, where a histogram has no place
        # u_t - u* = (sigma alpha' - alpha sigma') / sigma (x1 - m): what is left of the datum, without the noise
        scale = align(path.sigma(t.double()) / path.wronskian(t.double()), target)
        left[step] = ((target - mean) * scale).square().sum(1).cpu()
        if report is not None:
            report(step + 1, float((cosines[step] > ALIGNED).double().mean()))
    centre = data[chosen].double() - data.mean(0, dtype=torch.float64)
    variance = float(centre.square().flatten(1).sum(1).mean())
    return cosines, left / variance if variance > 0 else torch.zeros_like(left)


def _summary(grid: Sequence[float], cosines: Float[Tensor, "T P"], left: Float[Tensor, "T P"]) -> dict[str, Any]:
    aligned, undetermined = (cosines > ALIGNED).double().mean(1).tolist(), left.mean(1).tolist()
    return {
        "aligned": aligned,
        "median": cosines.quantile(0.5, dim=1).tolist(),
        "undetermined": undetermined,
        "passage": crossing(grid, aligned, 0.5),
        "half_determined": crossing(grid, [1 - share for share in undetermined], 0.5),
    }
