"""Trains and measures every experiment of a plan, each result kept as soon as it is there."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fluvial import __version__
from fluvial.data.json_text import read_json
from fluvial.progress import Progress, ProgressCallback
from fluvial.support.config import read_config
from fluvial.support.evaluation.evaluating import evaluate
from fluvial.support.experiments.plan import Experiment
from fluvial.support.runs import SupportRun, load_support_run
from fluvial.support.state import MetaState, build_net
from fluvial.support.tasks import Family, family_by_name, parse_family
from fluvial.support.training import MetaTrainer
from fluvial.training.config import CONFIG_FILE
from fluvial.training.logs import read_metrics
from fluvial.training.timing import compute_clock, seconds_in_turns
from fluvial.training.toml import write_text

LEAST_STEPS = 20
_TIMED = 8
_POINTS = 500
_SOLVER_STEPS = 25


def run_experiments(
    folder: Path,
    experiments: Sequence[Experiment],
    minutes: float,
    *,
    tasks: int = 100,
    progress: ProgressCallback | None = None,
) -> list[dict[str, Any]]:
    """Train and measure, going on from what is in the folder.

    The minutes are shared among all experiments by their shares, and become numbers of updates by the computing time
    that an update takes, which a busy machine changes little; measuring comes on top.

    Args:
        folder: Where each experiment has a run, ``NAME``, and its measurements, ``NAME.json``.
        experiments: What to do.
        minutes: Training time of all of them together.
        tasks: Tasks that each is measured on; half of them at each of several support sizes.
        progress: Called as the trainings and measurements go on.

    Returns:
        The results, in order, as plain values; ``seconds_training`` beside ``seconds_now``, what was asked for now.

    Raises:
        ValueError: If the folder holds something else.
        OSError: If the disk refuses a file.
    """
    _check_families(experiments)
    whole = sum(experiment.share for experiment in experiments)
    results = []
    for number, experiment in enumerate(experiments):
        part = f"{number + 1} of {len(experiments)}: {experiment.name}"
        told = None if progress is None else partial(_told, progress, part)
        file, seconds = folder / f"{experiment.name}.json", 60 * minutes * experiment.share / whole
        if not (file.exists() and is_of(_read(file), experiment, tasks)):
            _train(folder / experiment.name, experiment, seconds, told)
            run = load_support_run(folder / experiment.name)
            write_text(file, json.dumps(_measure(run, experiment, tasks, told), indent=1, allow_nan=False) + "\n")
        results.append({**_read(file), "seconds_now": seconds})
    return results


def _check_families(experiments: Sequence[Experiment]) -> None:
    """Load every real family before the first training: a small class must not be found an hour later."""
    for experiment in experiments:
        config = experiment.config
        if parse_family(config.tasks, config.dim).kind in ("data set", "file"):
            try:
                family_by_name(config.tasks, config.dim, m=max(experiment.sizes))
            except ValueError as error:
                raise ValueError(f"{config.tasks}: {error}") from error


def _told(progress: ProgressCallback, part: str, report: Progress) -> None:
    progress(dataclasses.replace(report, task=f"{part}, {report.task}"))


def _train(folder: Path, experiment: Experiment, seconds: float, progress: ProgressCallback | None) -> None:
    started = (folder / CONFIG_FILE).exists()
    if started:
        config = read_config(folder)
        if dataclasses.replace(config, steps=1) != dataclasses.replace(experiment.config, steps=1):
            raise ValueError(f"{folder} holds an experiment with other settings; give another --out")
    else:
        config = dataclasses.replace(
            experiment.config, steps=max(LEAST_STEPS, int(seconds / _update_seconds(experiment)))
        )
    MetaTrainer(config, folder, progress=progress).fit(resume=started)


def _update_seconds(experiment: Experiment) -> float:
    """Time of an update by :func:`compute_clock`: the median of some, after one that warms up."""
    config = experiment.config
    family = family_by_name(config.tasks, config.dim, m=config.m)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    update = MetaState(config, family, device).update
    times = seconds_in_turns({"update": update}, lambda: compute_clock(device), rounds=_TIMED, updates=1)
    return statistics.median(times["update"])


def _measure(run: SupportRun, experiment: Experiment, tasks: int, progress: ProgressCallback | None) -> dict[str, Any]:
    families = {split: _family(run, experiment, split) for split in ("test", "validation")}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    measure = partial(
        evaluate,
        family=families["test"],
        tasks=_tasks(experiment, tasks),
        points=_POINTS,
        path=run.path,
        steps=_SOLVER_STEPS,
        method="heun",
        tuning_family=families["validation"],
        device=device,
        progress=progress,
    )
    found = {m: measure(run.net.to(device), m=m) for m in experiment.sizes}
    untrained = None
    if experiment.untrained:
        untrained = measure(build_net(run.config, run.dim).to(device), m=run.config.m, tuning_tasks=0)
    return {
        "fluvial": __version__,
        "name": experiment.name,
        "group": experiment.group,
        "paper": experiment.paper,
        "config": dataclasses.asdict(run.config),
        "parameters": sum(value.numel() for value in run.net.parameters()),
        "checkpoint_hash": run.checkpoint.hash,
        "seconds_training": _training_seconds(run.folder),
        "evaluations": {str(m): values.to_dict() for m, values in found.items()},
        "untrained": None if untrained is None else untrained.to_dict(),
    }


def _training_seconds(folder: Path) -> float:
    """Time that the updates took, by the rates in the run's metrics."""
    rows, config = read_metrics(folder), read_config(folder)
    steps = [0, *(row["step"] for row in rows)]
    spans = zip(steps[1:], steps[:-1], rows, strict=True)
    return round(sum((end - start) * config.batch_size / row["tasks_per_second"] for end, start, row in spans), 1)


def _family(run: SupportRun, experiment: Experiment, split: Any) -> Family:
    name = experiment.family or run.config.tasks
    return family_by_name(name, run.dim, split=split, m=max(experiment.sizes))


def is_of(result: dict[str, Any], experiment: Experiment, tasks: int) -> bool:
    """Whether a result is of this training and of as many tasks."""
    config = {**result["config"], "steps": experiment.config.steps}
    then = {int(m): values["settings"]["tasks"] for m, values in result["evaluations"].items()}
    return config == dataclasses.asdict(experiment.config) and then == dict.fromkeys(
        experiment.sizes, _tasks(experiment, tasks)
    )


def _tasks(experiment: Experiment, tasks: int) -> int:
    return max(2, tasks // 2) if len(experiment.sizes) > 1 else tasks


def _read(file: Path) -> dict[str, Any]:
    try:
        values = read_json(file)
        values["name"], values["evaluations"], values["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}; remove it to measure once more") from error
    found: dict[str, Any] = values
    return found
