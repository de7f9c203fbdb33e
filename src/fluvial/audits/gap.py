r"""How far a learned field is from the exact one, as a function of time.

.. math:: \mathrm{gap}(t) = E\, \|u_\theta(x_t, t) - u^*(x_t, t)\|^2, \quad x_t = \alpha_t x_1 + \sigma_t x_0,

with :math:`u^*` the exact field of the training data and :math:`x_1` drawn from the training or from the
held-out data. A field that has learned the training set itself has a small gap everywhere; one that
generalises leaves the exact field where that one begins to single out training data.

Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", figure 2.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.audits.finding import Drawing, Finding
from fluvial.fields.base import Field
from fluvial.paths import GaussianPath
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator, noise

SETS = {"train": "training", "held_out": "held-out"}


def approximation(
    field: Field,
    exact: Field,
    train: Float[Tensor, "N ..."],
    held_out: Float[Tensor, "M ..."],
    *,
    times: Sequence[float] | None = None,
    path: GaussianPath | None = None,
    draws: int = 256,
    cond: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Finding:
    """Mean squared norm of a field's difference from the exact one against t, on training and held-out data.

    The same noise meets both sets, and the same noise and data serve all times. Errors are standard errors
    over the draws, given the data. Both fields run without gradients, on ``train``'s device, in its
    precision, with ``draws`` rows at a time; squares are summed in float64.

    Args:
        field: The learned field.
        exact: The exact field of ``train``, or any other field to compare with.
        train: Training data, shape (N, *D).
        held_out: Data of the same source that were not trained on, shape (M, *D).
        times: Increasing times in [0, 1); by default 0, 0.02, ..., 0.98.
        path: Path of the interpolants; by default that of ``exact``.
        draws: Interpolants per set and time. Where a set has fewer rows, they recur with other noise.
        cond: Conditions of the rows of ``train`` and of ``held_out``, handed to both fields.
        seed: Seed of the noise and of the choice of rows.
        progress: Called after every time.

    Returns:
        A finding whose ``data`` holds ``t`` and, for each of ``train`` and ``held_out``, the curves ``gap``,
        ``standard_error`` and ``exact_square`` (the exact field's own mean squared norm) against t, and
        their means over t by the trapezoidal rule: ``mean``, ``mean_standard_error``, ``mean_exact_square``.

    Raises:
        TypeError: If the data are no floating point numbers.
        ValueError: If an argument is out of range, shapes disagree, or a field returns another shape than it
            was given or values that are not finite.

    Source:
        Bertrand et al. 2025, figure 2.

    Example:
        >>> from fluvial.audits import approximation
        >>> from fluvial.paths import CondOT
        >>> exact = lambda x, t, cond=None: -x
        >>> learned = lambda x, t, cond=None: 3 - x
        >>> found = approximation(learned, exact, torch.zeros(9, 2), torch.ones(9, 2), path=CondOT(), draws=4)
        >>> round(found.data["train"]["mean"], 3)
        18.0
    """
    grid = _grid(times)
    if path is None:
        path = getattr(exact, "path", None)
        if not isinstance(path, GaussianPath):
            raise ValueError("path must be given, because exact has none of its own")
    _check(train, held_out, draws, cond)
    x0 = noise(seed, 0, draws, tuple(train.shape[1:]), train.dtype).to(train.device)
    conds = cond or (None, None)
    sets = [
        _choose(values, condition, draws, generator(seed, 0, number))
        for number, (values, condition) in enumerate(zip((train, held_out.to(train)), conds, strict=True))
    ]
    rows = torch.empty(len(sets), 2, len(grid), draws, dtype=torch.float64)
    for step, time in enumerate(grid):
        t = torch.full((draws,), time, dtype=train.dtype, device=train.device)
        for number, (x1, condition) in enumerate(sets):
            rows[number, :, step] = _squares(field, exact, path.sample(x0, x1, t).xt, t, condition)
        if progress is not None:
            gaps = rows[:, 0, step].mean(1).tolist()
            progress(Progress("approximation", step + 1, len(grid), dict(zip(SETS, gaps, strict=True))))
    curves = {name: _curve(grid, *rows[number]) for number, name in enumerate(SETS)}
    return _finding({"t": grid, "draws": draws, "seed": seed, **curves})


def _grid(times: Sequence[float] | None) -> list[float]:
    if times is None:
        return [step / 50 for step in range(50)]
    grid = [float(time) for time in times]
    rising = all(a < b for a, b in pairwise(grid))
    if not (grid and rising and grid[0] >= 0 and grid[-1] < 1):
        raise ValueError(f"times must be increasing numbers in [0, 1), at least one, got {grid}")
    return grid


def _check(train: Tensor, held_out: Tensor, draws: int, cond: tuple[Tensor, Tensor] | None) -> None:
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}")
    if train.shape[1:] != held_out.shape[1:]:
        shapes = tuple(train.shape[1:]), tuple(held_out.shape[1:])
        raise ValueError(f"train and held_out must have rows of the same shape, got {shapes[0]} and {shapes[1]}")
    for index, (name, values) in enumerate((("train", train), ("held_out", held_out))):
        if not values.is_floating_point():
            raise TypeError(f"{name} must hold floating point numbers, got {values.dtype}")
        if len(values) == 0:
            raise ValueError(f"{name} must have at least one row, got 0")
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
        if cond is not None and len(cond[index]) != len(values):
            raise ValueError(f"cond must have {len(values)} rows for {name}, got {len(cond[index])}")


def _choose(values: Tensor, cond: Tensor | None, draws: int, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """``draws`` rows and their conditions, every row used equally often, give or take one."""
    rounds = -(-draws // len(values))
    order: Int[Tensor, " draws"] = torch.cat([torch.randperm(len(values), generator=random) for _ in range(rounds)])[
        :draws
    ]
    order = order.to(values.device)
    return values[order], None if cond is None else cond.to(values.device)[order]


def _squares(field: Field, exact: Field, x: Tensor, t: Tensor, cond: Tensor | None) -> Float[Tensor, "2 B"]:
    """Squared norms per row of the difference of the fields, and of the exact one."""
    with torch.no_grad():
        learned, truth = field(x, t, cond), exact(x, t, cond)
    for name, value in (("field", learned), ("exact", truth)):
        if value.shape != x.shape:
            raise ValueError(f"{name} must return the shape {tuple(x.shape)} it was given, got {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must return finite values, got NaN or infinity at t = {float(t[0]):g}")
    pair = torch.stack([learned.double() - truth.double(), truth.double()])
    return pair.square().reshape(2, len(x), -1).sum(2).cpu()


def _curve(grid: list[float], gaps: Float[Tensor, "T B"], squares: Float[Tensor, "T B"]) -> dict[str, Any]:
    t = torch.tensor(grid, dtype=torch.float64)
    # mean over t by the trapezoidal rule, as weights so that each draw has one and the draws give its error
    half = t.diff() / (2 * (t[-1] - t[0])) if len(grid) > 1 else t[:0]
    weights = torch.nn.functional.pad(half, (0, 1)) + torch.nn.functional.pad(half, (1, 0))
    if len(grid) == 1:
        weights = torch.ones(1, dtype=torch.float64)
    means, root = weights @ gaps, gaps.shape[1] ** 0.5
    return {
        "gap": gaps.mean(1).tolist(),
        "standard_error": (gaps.std(1) / root).tolist(),
        "exact_square": squares.mean(1).tolist(),
        "mean": float(means.mean()),
        "mean_standard_error": float(means.std() / root),
        "mean_exact_square": float((weights @ squares).mean()),
    }


def _finding(data: dict[str, Any]) -> Finding:
    train, held_out, t = data["train"], data["held_out"], data["t"]
    columns = (
        "interpolants of",
        "mean gap over t",
        "standard error",
        "exact field's mean square",
        "largest gap at t",
    )
    rows = tuple(
        (
            SETS[name],
            data[name]["mean"],
            data[name]["mean_standard_error"],
            data[name]["mean_exact_square"],
            t[max(range(len(t)), key=data[name]["gap"].__getitem__)],
        )
        for name in SETS
    )
    return Finding(
        name="approximation",
        title="Approximation: how far is the learned field from the exact one?",
        verdict=(
            f"Averaged over t from {t[0]:g} to {t[-1]:g}, the squared gap to the exact field is "
            f"{train['mean']:.3g} on training and {held_out['mean']:.3g} on held-out interpolants, where the "
            f"exact field's own square is {train['mean_exact_square']:.3g} and "
            f"{held_out['mean_exact_square']:.3g}."
        ),
        method=(
            "Mean over draws of the squared norm of the difference between the learned velocity and the exact "
            f"velocity of the training data, at {data['draws']} points between noise and data per time, "
            "with the same noise for training and held-out data; means over t by the trapezoidal rule; errors "
            "are standard errors over the draws, given the data."
        ),
        source="Bertrand et al. 2025, On the Closed-Form of Flow Matching, arXiv 2506.03719, figure 2.",
        columns=columns,
        rows=rows,
        data=data,
        drawings=(
            Drawing.on_axes(
                "Gap to the exact field",
                "Squared gap to the exact field against time on training and held-out data, 95 % intervals.",
                "Two curves of the squared gap against time.",
                partial(_draw, data),
            ),
        ),
    )


def _draw(data: Mapping[str, Any], axes: Any) -> None:
    for name, style, colour in (("train", "-", "C0"), ("held_out", "--", "C1")):
        gap, error = torch.tensor(data[name]["gap"]), torch.tensor(data[name]["standard_error"])
        axes.plot(data["t"], gap, style, color=colour, label=f"{SETS[name]} data")
        low, high = (gap - 1.96 * error).clamp_min(0), gap + 1.96 * error
        axes.fill_between(data["t"], low, high, color=colour, alpha=0.25, linewidth=0)
    if max(data["train"]["gap"] + data["held_out"]["gap"]) > 0:  # a logarithmic axis has no place for zeros alone
        axes.set_yscale("log", nonpositive="clip")
    axes.set_xlabel("t (0 noise, 1 data)")
    axes.set_ylabel(r"$E\,\|u_\theta - u^*\|^2$ (squared data units)")
    axes.legend()
