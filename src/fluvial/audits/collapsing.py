"""When the training data's posterior collapses on single data, without which the other curves cannot be read.

Source: Biroli et al. 2024, "Dynamical Regimes of Diffusion Models" (the collapse); Matsui Smola 2026,
"Support-Conditioned Flow Matching Is Kernel Smoothing" (the effective sample size). See :mod:`fluvial.fields.collapse`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.audits.draws import check_count, check_rows, checked_path
from fluvial.audits.finding import Drawing, Finding
from fluvial.fields import collapse_time
from fluvial.fields.collapse import QUANTILES
from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.progress import ProgressCallback


@checked
def collapse(
    train: Float[Tensor, "N ..."],
    path: GaussianPath | None = None,
    *,
    points: int = 512,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Finding:
    """When in time the exact field of the training data begins to single out one datum: predicted and measured.

    Args:
        train: Training data, shape (N, *D), at least two different ones.
        path: The path; :class:`~fluvial.paths.CondOT` if absent.
        points: How many points of the path are looked at, at each time.
        seed: Seed of the points.
        progress: Called after each evaluation of the posterior.

    Returns:
        A finding whose ``data`` holds ``time``, at which half of the points hold over half of their posterior weight
        on one datum, ``onset`` and ``completion`` (the same for 1 and 99 % of the points), ``predicted_time`` (where
        the information about the datum passes ln N), the ``bandwidth`` of all four, and against ``t`` the quantiles
        ``effective_sample_size`` over the points (5, 25, 50, 75, 95 %).

    Raises:
        TypeError: If ``train`` holds no floating point numbers.
        ValueError: If it has fewer than two different data, is not finite, or a number is out of range.

    Source:
        Biroli et al. 2024, arXiv 2402.18491; Bertrand et al. 2025, section 3.

    Example:
        >>> found = collapse(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)), points=128)
        >>> abs(found.data["predicted_time"] - found.data["time"]) < 0.05
        True
    """
    check_rows("train", train, minimum=2)
    check_count("points", points, 2)
    check_count("seed", seed, 0)
    path = checked_path(path)
    if bool((train == train[0]).all()):
        raise ValueError(f"train must hold at least two different data, got {len(train)} equal ones")
    found = collapse_time(train, path, points=points, seed=seed, progress=progress)
    times = {name: getattr(found, name) for name in ("onset", "time", "completion", "predicted_time")}
    bandwidth = {name: float(path.bandwidth(torch.tensor(t, dtype=torch.float64))) for name, t in times.items()}
    return _finding(
        {
            **times,
            "bandwidth": bandwidth,
            "count": len(train),
            "dimension": train[0].numel(),
            "points": points,
            "seed": seed,
            "path": repr(path),
            "t": found.t.tolist(),
            "quantiles": list(QUANTILES),
            "effective_sample_size": found.effective_sample_size.tolist(),
        }
    )


def _finding(data: dict[str, Any]) -> Finding:
    rows = (("1 % of the points", "onset"), ("half of the points", "time"), ("99 % of the points", "completion"))
    return Finding(
        name="collapse",
        title="Collapse: from when on does the exact field copy?",
        verdict=(
            f"With {data['count']:,} training data in {data['dimension']:,} dimensions, half of the points on the path "
            f"hold over half of their weight on one datum from t = {data['time']:.2f} on (1 % from "
            f"{data['onset']:.2f}, 99 % from {data['completion']:.2f}; predicted {data['predicted_time']:.2f}): from "
            "then on the exact field leads to that datum."
        ),
        method=(
            f"The posterior weights of the training data at {data['points']} points x_t = alpha x_1 + sigma x_0; equal "
            "data count as one. The prediction is the time at which a Gaussian of the data's covariance tells "
            "ln N nats about the datum. The effective sample size is one over the sum of the squared weights: how many "
            "data the exact field averages over."
        ),
        source="Biroli et al. 2024, Dynamical Regimes of Diffusion Models, arXiv 2402.18491; Bertrand et al. 2025, "
        "arXiv 2506.03719, section 3; the effective sample size after Matsui Smola 2026, arXiv 2605.13386.",
        columns=("over half of the weight on one datum", "t", "bandwidth (data units)"),
        rows=(
            *((words, data[key], data["bandwidth"][key]) for words, key in rows),
            ("predicted", data["predicted_time"], data["bandwidth"]["predicted_time"]),
        ),
        data=data,
        drawings=(
            Drawing.on_axes(
                "Effective sample size",
                "How many training data the exact field averages over: median over the points on the path, with bands "
                "from 25 to 75 % and from 5 to 95 %. It falls to 1 where the data are singled out.",
                "A falling curve of the effective sample size against time, with bands, on a logarithmic axis.",
                partial(_draw, data),
            ),
        ),
        reservation="It describes the data and the path, not a model.",
    )


def _draw(data: Mapping[str, Any], axes: Any) -> None:
    low, lower, median, upper, high = zip(*data["effective_sample_size"], strict=True)
    axes.fill_between(data["t"], low, high, color="C0", alpha=0.15, linewidth=0)
    axes.fill_between(data["t"], lower, upper, color="C0", alpha=0.3, linewidth=0)
    axes.plot(data["t"], median, color="C0", label="median")
    axes.axvspan(data["onset"], data["completion"], color="C4", alpha=0.15, linewidth=0, label="1 % to 99 % collapsed")
    axes.axvline(data["time"], color="C1", label="half collapsed")
    axes.axvline(data["predicted_time"], color="C1", linestyle=":", label="predicted")
    axes.set_yscale("log")
    axes.set(xlabel="t (0 noise, 1 data)", ylabel="effective sample size (training data)", xlim=(0, 1))
    axes.legend()
