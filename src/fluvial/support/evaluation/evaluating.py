"""A support-conditioned model on fresh tasks: against the plug-in, its best bandwidth, and what equality looks like.

For each task the model moves noise to as many points as there are targets. The MMD's bandwidth is the median distance
of further targets of the task, the same for all that is compared. Beside the model stand

* the plug-in, which the support's exact flow makes: the support plus noise of the path's last standard deviation;
* the tuned plug-in, with the bandwidth that was best on validation tasks;
* the floor, other targets in the samples' place: what a perfect model would score.

Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing" (the protocol; the kernel's bandwidth
is fixed here, and the mean is of the unbiased squared MMD, negative values included).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fluvial.kinds import checked
from fluvial.paths import CondOT, GaussianPath
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.solvers import solve
from fluvial.support.evaluation.modes import evaluation_mode
from fluvial.support.evaluation.outcome import Evaluation
from fluvial.support.evaluation.plug_in import plug_in_samples
from fluvial.support.evaluation.scores import Scores, joined_scores, score
from fluvial.support.evaluation.targets import Drawn, plan_targets
from fluvial.support.evaluation.tuning import TunedBandwidth, tuned_bandwidth
from fluvial.support.evaluation.velocities import ErrorBlock, joined_errors, velocity_errors
from fluvial.support.tasks.base import Family, require_counts

Model = Callable[..., Tensor]
"""A field for a batch of tasks: ``model(x (B, n, d), t, support (B, m, d)) -> velocity (B, n, d)``."""

_BLOCK = 10  # tasks drawn and moved at once
_MANY_CLASSES = 20
_TASKS, _NOISE, _PLUG_IN, _TUNED, _VELOCITY, _TUNING = range(6)  # what a stream of random numbers is for
_EVALUATION = 4  # fourth counter, which no stream of training has


@checked
def evaluate(
    model: Model,
    family: Family,
    *,
    m: int = 50,
    tasks: int = 100,
    points: int = 500,
    path: GaussianPath | None = None,
    steps: int | None = 100,
    method: str = "euler",
    classified: int = 0,
    tuning_tasks: int = 40,
    tuning_family: Family | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Samples of a model on fresh tasks, scored beside those of the plug-in, of its best bandwidth and of the truth.

    Args:
        model: A field for a batch of tasks, ``model(x (B, n, d), t, support (B, m, d))`` with ``t`` of shape ``(B,)``
            or ``(B, n)``. A module is put into evaluation mode meanwhile.
        family: The tasks; for real classes, those that the model has not been trained on.
        m: Support points of each task.
        tasks: How many tasks, at least 2.
        points: Samples and targets of each task; fewer where a task has not so many targets, which ``notes`` say.
        path: The path that the model was trained on; ``CondOT(sigma_min=0.01)`` if absent. Its last standard deviation
            is the plug-in's bandwidth.
        steps: Steps of the solver; None for ``"dopri5"``.
        method: Method of the solver, see ``fv.solve``.
        classified: For how many tasks to run the classifier two-sample tests: a few seconds each.
        tuning_tasks: Validation tasks from which the plug-in's best bandwidth is chosen; 0 to leave it out.
        tuning_family: Where these come from; if absent other tasks of ``family``, of real data those of another split.
        device: Where the model computes.
        seed: Seed of tasks, noise and all else: one seed gives every model the same tasks.
        progress: Called after every ten tasks.

    Returns:
        Figures of each task, with intervals over tasks.

    Raises:
        ValueError: If a number is out of range, the model is for points of another dimension, a task has too few
            targets, or the solver fails.

    Source:
        Matsui Smola 2026, section 6.

    Example:
        >>> from fluvial.support.evaluation.evaluating import evaluate
        >>> from fluvial.support.tasks.shells import Shells
        >>> still = lambda x, t, support: torch.zeros_like(x)
        >>> found = evaluate(still, Shells(2), m=20, tasks=4, points=50, steps=5, tuning_tasks=4)
        >>> bool(found.ratio().high < 1)
        True
    """
    require_counts(m=m, points=points)
    _check(model, family, tasks, classified, tuning_tasks)
    path = CondOT(sigma_min=0.01) if path is None else path
    plan = plan_targets(family, m, points)
    tuned = None
    if tuning_tasks:
        source = _tuning_family(family) if tuning_family is None else tuning_family
        tuned = tuned_bandwidth(
            source, m, tuning_tasks, generator(seed, _TUNING, 0, _EVALUATION), points=points, progress=progress
        )
    move = partial(_moved, model, steps=steps, method=method, device=device)
    parts: dict[str, list[Scores]] = {}
    errors: list[ErrorBlock] = []
    with torch.no_grad(), evaluation_mode(model):
        for start in range(0, tasks, _BLOCK):
            streams = [generator(seed, use, start, _EVALUATION) for use in range(_TUNING)]
            drawn = plan.draw(family, min(_BLOCK, tasks - start), streams[_TASKS])
            samples = _samples(move, drawn, path, tuned, streams)
            for name, scores in _scored(samples, drawn, max(0, classified - start), seed).items():
                parts.setdefault(name, []).append(scores)
            errors.append(velocity_errors(partial(_velocity, model, device), drawn, path, streams[_VELOCITY]))
            if progress is not None:
                progress(_report(parts, min(start + _BLOCK, tasks), tasks))
    notes = tuple(note for note in (plan.note, _note_on_classes(family)) if note)
    settings = {
        "family": family.name, "dim": family.dim, "m": m, "tasks": tasks, "points": plan.compared,
        "references": plan.references or plan.compared, "path": repr(path), "steps": steps, "method": method,
        "classified": min(classified, tasks), "seed": seed,
    }  # fmt: skip
    joined = {name: joined_scores(found) for name, found in parts.items()}
    return Evaluation(settings, joined, joined_errors(errors), tuned, path.last_sigma, notes)


def _check(model: Model, family: Family, tasks: int, classified: int, tuning_tasks: int) -> None:
    if tasks < 2:
        raise ValueError(f"tasks must be at least 2, for an interval over them, got {tasks}")
    for name, value in (("classified", classified), ("tuning_tasks", tuning_tasks)):
        if value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    dim = getattr(model, "dim", None)
    if dim is not None and dim != family.dim:
        raise ValueError(
            f"model must be for points of the family's dimension, {family.dim} for {family.name!r}, got one for {dim}"
        )


def _tuning_family(family: Family) -> Family:
    """Validation tasks for a family: real classes must not be those that are measured."""
    if not hasattr(family, "of_split"):
        return family
    other: Family = family.of_split("train" if getattr(family, "split", "test") == "validation" else "validation")
    return other


def _note_on_classes(family: Family) -> str:
    """Intervals are over tasks; a few classes of real data, drawn again and again, say little of other ones."""
    classes = getattr(family, "classes", None)
    if classes is None or len(classes) >= _MANY_CLASSES:
        return ""
    number = "one class" if len(classes) == 1 else f"{len(classes)} classes"
    return f"all tasks come from {number}: the intervals are over draws from them, not over other classes"


def _moved(
    model: Model, x0: Tensor, support: Tensor, *, steps: int | None, method: str, device: torch.device | str
) -> Tensor:
    """Where the model takes the noise; it is the solver's field itself, so that the solver sees what it declares."""
    return solve(model, x0.to(device), steps=steps, method=method, cond=support.to(device)).x.to(x0)


def _velocity(model: Model, device: torch.device | str, x: Tensor, t: Tensor, support: Tensor) -> Tensor:
    found = model(x.to(device), t.to(device), support.to(device))
    if not isinstance(found, Tensor) or found.shape != x.shape:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"model must return a tensor of the shape of x, {tuple(x.shape)}, got {given}")
    return found.to(x)


def _samples(
    move: Callable[[Tensor, Tensor], Tensor],
    drawn: Drawn,
    path: GaussianPath,
    tuned: TunedBandwidth | None,
    streams: list[torch.Generator],
) -> dict[str, Tensor]:
    support, n = drawn.support, drawn.targets.shape[1]
    x0 = torch.randn(drawn.targets.shape, generator=streams[_NOISE], dtype=drawn.targets.dtype)
    found = {
        "learned": move(x0, support),
        "plug_in": plug_in_samples(support, n, path.last_sigma, streams[_PLUG_IN]),
    }
    if tuned is not None:
        found["tuned"] = plug_in_samples(support, n, tuned.bandwidth, streams[_TUNED])
    return found


def _scored(samples: dict[str, Tensor], drawn: Drawn, classified: int, seed: int) -> dict[str, Scores]:
    rate = partial(score, support=drawn.support, bandwidth=drawn.bandwidth, classified=classified, seed=seed)
    scores = {name: rate(x, drawn.targets) for name, x in samples.items()}
    return {**scores, "floor": rate(*drawn.floor)}


def _report(parts: dict[str, list[Scores]], done: int, total: int) -> Progress:
    means = {name: float(torch.cat([part.mmd2 for part in found]).mean()) for name, found in parts.items()}
    return Progress("evaluate", done, total, {"mmd2": means["learned"], "plug-in": means["plug_in"]})
