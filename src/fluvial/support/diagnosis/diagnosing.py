"""The diagnosis of a support: three measurements, the regimes that they speak for, and what to do."""

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fluvial.audits.draws import check_count
from fluvial.audits.finding import Finding
from fluvial.kinds import checked
from fluvial.paths import CondOT, GaussianPath
from fluvial.progress import ProgressCallback
from fluvial.randomness import generator
from fluvial.support.diagnosis.collapse import measure_collapse
from fluvial.support.diagnosis.draws import LEAST_HELD_OUT, Draws, draw_tasks
from fluvial.support.diagnosis.geometry import measure_geometry
from fluvial.support.diagnosis.recommending import recommend
from fluvial.support.diagnosis.regimes import Diagnosis, judge
from fluvial.support.diagnosis.rows import ClassRows
from fluvial.support.diagnosis.scarcity import measure_scarcity
from fluvial.support.tasks.base import Family
from fluvial.support.tasks.classes import ClassTasks
from fluvial.support.tasks.names import DEFAULT_DIM, parse_family

TASKS = 40
"""Tasks that are drawn unless asked otherwise."""
_MANY_DUPLICATES = 0.01
_FEWEST_CLASSES = 3  # one for each split of a training

Measure = Callable[[Draws, GaussianPath, torch.Generator, ProgressCallback | None], Finding]


@checked
def diagnose(
    data: Family | Tensor | Any,
    m: int = 50,
    *,
    labels: Any | None = None,
    tasks: int = TASKS,
    path: GaussianPath | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Diagnosis:
    """Say in which regimes a support of ``m`` examples is, and what to do: collapse, geometry, scarcity.

    Args:
        data: A family of tasks (``fv.support.tasks``), or features of one's own, shape ``(N, d)``, in the units in
            which they meet noise of standard deviation 1. Of ``ClassTasks`` the classes of their split are looked at,
            each equally often.
        m: Examples in a support.
        labels: Class of each row of features, shape ``(N,)``: each class is a task. None takes all rows as one.
        tasks: How many tasks are drawn, at least 2; classes are drawn again with other supports.
        path: The probability path; ``CondOT(sigma_min=0.01)`` if absent.
        seed: Seed of every draw.
        progress: Called after each part of a measurement.

    Returns:
        The regimes, what to do, and three findings with their tables and figures.

    Raises:
        ValueError: If a number is out of range, features are no finite rows, or a class has too few of them.
        TypeError: If features are no numbers.

    Source:
        Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", section on failure regimes.

    Example:
        >>> from fluvial.support.diagnosis import diagnose
        >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> diagnose(x, 50, tasks=4).verdict
        'none of the three'
    """
    check_count("m", m, 2)
    check_count("tasks", tasks, 2)
    check_count("seed", seed, 0)
    path = CondOT(sigma_min=0.01) if path is None else path
    family = _as_family(data, labels, m)
    draws = draw_tasks(family, m, tasks, _members(family, m), generator(seed, 0))
    steps: tuple[Measure, ...] = (measure_collapse, measure_geometry, measure_scarcity)
    collapse, geometry, scarcity = (
        _timed(step, draws, path, generator(seed, number), progress) for number, step in enumerate(steps, 1)
    )
    regimes = judge(collapse.data, geometry.data, scarcity.data)
    command = _training(family, m)
    return Diagnosis(
        name=family.name,
        m=m,
        dim=draws.dim,
        tasks=tasks,
        seed=seed,
        regimes=regimes,
        recommendations=recommend(regimes, collapse.data, geometry.data, scarcity.data, command),
        collapse=collapse,
        geometry=geometry,
        scarcity=scarcity,
        notes=_notes(family, draws),
    )


def _as_family(data: Any, labels: Any | None, m: int) -> Family:
    if isinstance(data, Tensor) or not isinstance(data, Family):
        return ClassRows(data, labels, m=m)
    if labels is not None:
        raise ValueError("labels cannot be given with a family of tasks, which knows its classes")
    return ClassRows.of_tasks(data, m) if isinstance(data, ClassTasks) else data


def _members(family: Family, m: int) -> int | None:
    """Rows of the smallest class of real data; None where points are unlimited."""
    most = getattr(family, "most_targets", None)
    if most is None:
        return None
    left = int(most(m))
    if left < LEAST_HELD_OUT:
        raise ValueError(
            f"m must leave at least {LEAST_HELD_OUT} held-out points in each class of {family.name!r}, got {m}, which "
            f"leaves {left}"
        )
    return m + left


def _timed(
    measure: Measure,
    draws: Draws,
    path: GaussianPath,
    random: torch.Generator,
    progress: ProgressCallback | None,
) -> Finding:
    start = time.perf_counter()
    with torch.no_grad():
        found = measure(draws, path, random, progress)
    return replace(found, seconds=time.perf_counter() - start)


def _training(family: Family, m: int) -> str | None:
    """How a model is trained over tasks like these; None where there are too few classes for that."""
    dim, rows = family.dim, isinstance(family, ClassRows)
    if isinstance(family, ClassRows):
        if family.all_classes < _FEWEST_CLASSES:
            return None
        if family.features is None:  # training takes principal components
            dim = min(dim, DEFAULT_DIM["real"])
    command = "fluvial support train --tasks {} " + f"--dim {dim} --m {m} --out RUN"
    try:
        parse_family(family.name, dim)
    except (ValueError, ImportError):  # arrays, or a family that has no name on the command line
        if rows:
            return f"{command.format('FILE.npz')}, where FILE.npz holds these features and labels"
        return "fluvial.nn.SupportNet, on batches of this family"
    return command.format(shlex.quote(family.name))


def _notes(family: Family, draws: Draws) -> tuple[str, ...]:
    notes = []
    duplicates = getattr(family, "duplicates", 0)
    rows = getattr(family, "rows", 0)
    if duplicates and duplicates > _MANY_DUPLICATES * rows:
        notes.append(
            f"{duplicates:,} of {rows:,} rows repeat another of their class bit by bit and are left out: a repeated "
            "example says nothing new."
        )
    features = getattr(family, "features", None)
    if features is not None:
        notes.append(
            f"Points are the {family.dim} leading principal components of {features:,} features, each scaled to "
            "standard deviation 1: how the data as a whole are stretched (of one class alone, all of its covariance) "
            "is out of sight."
        )
    classes = getattr(family, "classes", None)
    if isinstance(classes, int) and classes < draws.tasks:
        those = "one class" if classes == 1 else f"{classes} classes"
        notes.append(
            f"The {draws.tasks} tasks are draws from {those}, with other supports: intervals are over these draws and "
            "too narrow for other classes."
        )
    return tuple(notes)
