r"""How far a learned field is from the exact one, as a function of time.

.. math:: \mathrm{gap}(t) = E\, \|u_\theta(x_t, t) - u^*(x_t, t)\|^2, \quad x_t = \alpha_t x_1 + \sigma_t x_0,

with :math:`u^*` the exact field of the training data and :math:`x_1` drawn from the training or from the
held-out data, or with :math:`x_t` on the learned field's own trajectories. A field that has learned the training set
itself has a small gap everywhere; one that generalises leaves the exact field where that one begins to single out
training data.

Beside the gap stand the losses that a net is trained on, :math:`L(t) = E \|u_\theta - u_t(x_t | x_1)\|^2`, and the
part of them that no net can avoid, :math:`V(t) = E \|u^* - u_t(x_t | x_1)\|^2`. On training interpolants
:math:`L = \mathrm{gap} + V`. A model without memory of its training data has the same loss on them as on held-out
data, so that its gap would be :math:`L_\mathrm{held-out} - V`; the **departure**

.. math:: \frac{\int \mathrm{gap}_\mathrm{train}\, dt}{\int (L_\mathrm{held-out} - V_\mathrm{train})\, dt}

is how much of that is seen: 0 for the exact field, 1 for a model that knows no more of its training data than of
others. It is near 1 for an untrained net as well: it tells memory, not quality.

Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", figure 2 (the gap). The departure is fluvial's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.audits.draws import (
    check_count,
    check_rows,
    check_same_path,
    check_same_rows,
    checked_times,
    choose_rows,
)
from fluvial.audits.finding import Finding
from fluvial.audits.gap_view import gap_finding
from fluvial.checks import require_tensor
from fluvial.fields.base import Field
from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator, noise
from fluvial.solvers import solve

DEPARTED = 0.5
"""Share of the held-out loss from which on the gap on training data counts as a departure."""

Conditions = tuple[Tensor | None, Tensor | None]


@checked
def approximation(
    field: Field,
    exact: Field,
    train: Float[Tensor, "N ..."],
    held_out: Float[Tensor, "M ..."] | None = None,
    *,
    times: Sequence[float] | None = None,
    path: GaussianPath | None = None,
    draws: int = 256,
    steps: int = 100,
    cond: Conditions | None = None,
    reservation: str = "",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Finding:
    """Mean squared norm of a field's difference from the exact one, on interpolants and on the field's own way.

    The same noise meets all sets, and the same noise and data serve all times. Errors are standard errors
    over the draws, given the data. Both fields run without gradients, on ``train``'s device, in its
    precision, with ``draws`` rows at a time; squares are summed in float64.

    Args:
        field: The learned field.
        exact: The exact field that it was trained towards, or any other field to compare with.
        train: Training data, shape (N, *D).
        held_out: Data of the same source that were not trained on, shape (M, *D); None if there are none.
        times: Increasing times in [0, 1); by default 0, 0.02, ..., 0.98.
        path: Path of the interpolants; by default that of ``exact``.
        draws: Interpolants per set and time, and trajectories. Where a set has fewer rows, they recur with other
            noise.
        steps: Euler steps from t = 0 to 1 of the field's own trajectories; 0 leaves them out.
        cond: Conditions of the rows of ``train`` and of ``held_out``, handed to both fields; trajectories have those of
            ``train``.
        reservation: Why the finding does not bear on the verdict, such as an optimal-transport coupling, whose target
            is not the exact field; empty if it does.
        seed: Seed of the noise and of the choice of rows.
        progress: Called after every time.

    Returns:
        A finding whose ``data`` holds ``t`` and, for each of ``train``, ``held_out`` and ``trajectory``, the curves
        ``gap``, ``standard_error`` and ``exact_square`` (the exact field's own mean squared norm) against t, and their
        means over t by the trapezoidal rule: ``mean``, ``mean_standard_error``, ``mean_interval`` (95 %),
        ``mean_exact_square``. Sets of data also have the curves ``loss`` and ``unexplained`` (the irreducible part of
        the loss, on training data) and their means. ``departure``, with ``departure_interval`` (95 %), is defined in
        the module's docstring; ``relative_gap`` is the training gap over the held-out loss against t, and
        ``departure_time`` the first t where that reaches one half. All four are None without held-out data.

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
    grid = checked_times(times, 50)
    path = _checked_path(path, exact)
    conds = cond or (None, None)
    _check(train, held_out, draws, steps, conds, seed)
    x0 = noise(seed, 0, draws, tuple(train.shape[1:]), train.dtype).to(train.device)
    given = {"train": (train, conds[0])} | ({} if held_out is None else {"held_out": (held_out.to(train), conds[1])})
    sets = {name: _choose(*given[name], draws, generator(seed, 0, number)) for number, name in enumerate(given)}
    names = (*sets, *(("trajectory",) if steps else ()))
    rows = {name: torch.zeros(4, len(grid), draws, dtype=torch.float64) for name in names}
    state, before = x0, 0.0
    for step, time in enumerate(grid):
        t = torch.full((draws,), time, dtype=train.dtype, device=train.device)
        for name, (x1, condition) in sets.items():
            point = path.sample(x0, x1, t)
            rows[name][:, step] = _squares(field, exact, point.xt, t, condition, point.ut)
        if steps:
            state, before = _walk(field, state, before, time, steps, sets["train"][1]), time
            rows["trajectory"][:, step] = _squares(field, exact, state, t, sets["train"][1], None)
        if progress is not None:
            gaps = {name: float(values[0, step].mean()) for name, values in rows.items()}
            progress(Progress("approximation", step + 1, len(grid), gaps))
    curves = {name: _curve(grid, values, losses=name in sets) for name, values in rows.items()}
    memory = _departure(grid, rows["train"], rows.get("held_out"))
    return gap_finding({"t": grid, "draws": draws, "steps": steps, "seed": seed, **curves, **memory}, reservation)


def _checked_path(path: GaussianPath | None, exact: Field) -> GaussianPath:
    if path is None:
        path = getattr(exact, "path", None)
        if not isinstance(path, GaussianPath):
            raise ValueError("path must be given, because exact has none of its own")
    check_same_path("exact", exact, path)
    return path


def _check(train: Tensor, held_out: Tensor | None, draws: int, steps: int, conds: Conditions, seed: int) -> None:
    for name, number, minimum in (("draws", draws, 2), ("steps", steps, 0), ("seed", seed, 0)):
        check_count(name, number, minimum)
    check_rows("train", train)
    if held_out is not None:
        check_rows("held_out", held_out)
        check_same_rows(train, held_out)
    for name, values, cond in (("train", train, conds[0]), ("held_out", held_out, conds[1])):
        if values is not None and cond is not None and len(cond) != len(values):
            raise ValueError(f"cond must have {len(values)} rows for {name}, got {len(cond)}")


def _choose(values: Tensor, cond: Tensor | None, draws: int, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """``draws`` rows and their conditions, every row used equally often, give or take one."""
    order = choose_rows(len(values), draws, random).to(values.device)
    return values[order], None if cond is None else cond.to(values.device)[order]


def _walk(field: Field, state: Tensor, start: float, stop: float, steps: int, cond: Tensor | None) -> Tensor:
    """The states at ``stop`` of the field's own trajectories, by Euler steps of about ``1 / steps``."""
    if stop == start:
        return state
    with torch.no_grad():
        count = max(1, round((stop - start) * steps))
        return solve(field, state, t0=start, t1=stop, steps=count, method="euler", cond=cond).x


def _squares(
    field: Field, exact: Field, x: Tensor, t: Tensor, cond: Tensor | None, target: Tensor | None
) -> Float[Tensor, "4 B"]:
    """Squared norms per row of the fields' difference, of the exact one, and of both fields' errors to the target."""
    with torch.no_grad():
        learned, truth = field(x, t, cond), exact(x, t, cond)
    for name, value in (("field", learned), ("exact", truth)):
        require_tensor(f"what {name} returns", value)
        if value.shape != x.shape:
            raise ValueError(f"{name} must return the shape {tuple(x.shape)} it was given, got {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must return finite values, got NaN or infinity at t = {float(t[0]):g}")
    learned, truth = learned.double(), truth.double()
    goal = truth if target is None else target.double()
    parts = torch.stack([learned - truth, truth, learned - goal, truth - goal])
    return parts.square().reshape(4, len(x), -1).sum(2).cpu()


def _weights(grid: Sequence[float]) -> Float[Tensor, " T"]:
    """Weights of the times whose sum is the mean over t by the trapezoidal rule."""
    t = torch.tensor(grid, dtype=torch.float64)
    if len(grid) == 1:
        return torch.ones_like(t)
    half = t.diff() / (2 * (t[-1] - t[0]))
    return torch.nn.functional.pad(half, (0, 1)) + torch.nn.functional.pad(half, (1, 0))


def _curve(grid: Sequence[float], rows: Float[Tensor, "4 T B"], *, losses: bool) -> dict[str, Any]:
    gaps, squares, loss, unexplained = rows
    weights, root = _weights(grid), gaps.shape[1] ** 0.5
    # the draws serve all times, so each has a mean over t, and these give the mean's error
    means = weights @ gaps
    mean, error = float(means.mean()), float(means.std() / root)
    curve = {
        "gap": gaps.mean(1).tolist(),
        "standard_error": (gaps.std(1) / root).tolist(),
        "exact_square": squares.mean(1).tolist(),
        "mean": mean,
        "mean_standard_error": error,
        "mean_interval": [max(0.0, mean - 1.96 * error), mean + 1.96 * error],
        "mean_exact_square": float((weights @ squares).mean()),
    }
    if losses:
        for name, values in (("loss", loss), ("unexplained", unexplained)):
            curve |= {name: values.mean(1).tolist(), f"mean_{name}": float((weights @ values).mean())}
    return curve


def _departure(
    grid: Sequence[float], train: Float[Tensor, "4 T B"], held_out: Float[Tensor, "4 T B"] | None
) -> dict[str, Any]:
    nothing = dict.fromkeys(("departure", "departure_interval", "departure_time", "relative_gap"))
    if held_out is None or bool((held_out[2].mean(1) == 0).any()):
        return nothing
    relative = (train[0].mean(1) / held_out[2].mean(1)).tolist()
    reached = [t for t, share in zip(grid, relative, strict=True) if share >= DEPARTED]
    found = {**nothing, "relative_gap": relative, "departure_time": reached[0] if reached else None}
    weights = _weights(grid)
    gaps, room = weights @ train[0], weights @ (held_out[2] - train[3])
    if float(room.mean()) <= 0:
        return found
    ratio = float(gaps.mean() / room.mean())
    # error of a ratio of means to first order; the draws of both sets share their noise and are pairs
    error = float((gaps - ratio * room).std() / (len(gaps) ** 0.5 * room.mean()))
    return {**found, "departure": ratio, "departure_interval": [max(0.0, ratio - 1.96 * error), ratio + 1.96 * error]}
