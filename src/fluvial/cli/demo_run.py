"""The demo from the first update to the last figure."""

import platform
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluvial import __version__
from fluvial.cli.demo import RUNS
from fluvial.cli.demo_measure import NOISE, Scores, measure
from fluvial.cli.render import format_seconds, json_text
from fluvial.progress import Progress, ProgressCallback
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.audits import Finding
    from fluvial.fields.base import Field
    from fluvial.training import Run


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: objective, peak learning rate, and updates in halves of those that are asked for.

    Updates are counted, not timed, so that a busy machine makes the same model. The Mean Flow's default takes about 75
    seconds on two cores; each of its updates costs about as much as two of CFM.
    """

    objective: str
    lr: float = TrainConfig.lr
    halves: int = 2

    def steps(self, asked: int) -> int:
        """Updates of this model where ``asked`` are asked for."""
        return max(1, asked * self.halves // 2)


MODELS = {"CFM": Recipe("cfm"), "EFM": Recipe("efm"), "Mean Flow": Recipe("meanflow", lr=2e-3, halves=3)}
EXACT = "exact field"
HEUN = Solver("heun", 25)
DRAWS = {
    "CFM": ("CFM", HEUN),
    "EFM": ("EFM", HEUN),
    "Mean Flow, 1 step": ("Mean Flow", Solver("meanflow", 1)),
    "Mean Flow, 2 steps": ("Mean Flow", Solver("meanflow", 2)),
    EXACT: (EXACT, HEUN),
}
"""Sets of samples by name: of which field, and how they are drawn."""
OUTPUTS = ("metrics.json", "report.html", "samples.png", "loss.png", "nearest.png", "gap.png", *RUNS)
"""What a demo owns in its folder."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo can be told: where to write, updates of CFM and EFM, seed, samples per set.

    ``workshop`` is the folder where everything is made; its content then replaces that of an earlier demo in ``out``.
    """

    out: Path
    workshop: Path
    steps: int
    seed: int
    samples: int


def run_demo(settings: DemoSettings, progress: ProgressCallback) -> tuple[dict[str, Any], Scores, list[str]]:
    """Trains, samples, measures and writes everything to the workshop.

    Returns:
        The content of metrics.json, the scores, and the names of the models that are judged.

    Raises:
        Interrupted: If a signal arrived during training.
    """
    from fluvial.fields import ExactField

    watch = _Stopwatch()
    runs: dict[str, Run] = {}
    for name, recipe in MODELS.items():
        runs[name] = _train(settings, recipe, progress)
        watch.lap(f"training {name}")
    data = runs["CFM"].dataset()
    exact = ExactField(data.train.x, runs["CFM"].path)
    fields: dict[str, Field] = {**{name: run.net for name, run in runs.items()}, EXACT: exact}
    drawn = {name: _sample(settings, fields[model], solver, name, progress) for name, (model, solver) in DRAWS.items()}
    samples = {name: x for name, (x, _) in drawn.items()}
    watch.lap("sampling")
    noisy = f"CFM + noise {NOISE:g}"
    every = {**samples, noisy: _noisy(samples["CFM"], settings.seed)}
    spent = {name: count for name, (_, count) in drawn.items()}
    scores = measure(data.train, data.held_out, every, {**spent, noisy: spent["CFM"]}, progress=progress)
    gaps = {name: _gap(settings, runs[name], name, exact, progress) for name in runs}
    watch.lap("measuring")
    values = {"complete": True, **scores.to_dict(), "gap": {name: gap.to_dict() for name, gap in gaps.items()}}
    values |= {"data_hash": data.train.content_hash, "seconds": watch.seconds}
    _write_report(settings, runs, samples, scores, gaps, watch)
    return _write_metrics(settings, values), scores, list(samples)


def _train(settings: DemoSettings, recipe: Recipe, progress: ProgressCallback) -> "Run":
    from fluvial.training import Trainer, load_run

    folder, steps = settings.workshop / recipe.objective, recipe.steps(settings.steps)
    config = TrainConfig(data="digits", objective=recipe.objective, lr=recipe.lr, steps=steps, seed=settings.seed)
    Trainer(config, folder, progress=progress).fit()
    return load_run(folder)


def _sample(
    settings: DemoSettings, field: "Field", solver: Solver, name: str, progress: ProgressCallback
) -> tuple["Tensor", int]:
    return draw_samples(
        field,
        settings.samples,
        (1, 8, 8),
        seed=settings.seed,
        solver=solver,
        task=f"sample {name}",
        progress=progress,
    )


def _noisy(x: "Tensor", seed: int) -> "Tensor":
    from fluvial.randomness import noise

    # Another seed than the samples' own, which began as this noise.
    return x + NOISE * noise(seed + 1, 0, len(x), tuple(x.shape[1:]))


def _gap(settings: DemoSettings, run: "Run", name: str, exact: "Field", progress: ProgressCallback) -> "Finding":
    from fluvial.audits import approximation

    def report(step: Progress) -> None:
        progress(Progress(f"gap {name}", step.step, step.total))

    data = run.dataset()
    sets = data.train.x, data.held_out.x
    return approximation(run.net, exact, *sets, steps=0, seed=settings.seed, progress=report)


def _write_metrics(settings: DemoSettings, values: Mapping[str, Any]) -> dict[str, Any]:
    """Writes metrics.json, which also marks the folder as a demo's; returns its content."""
    head = {"fluvial": __version__, "command": "demo", "steps": settings.steps}
    runs = {recipe.objective: recipe.steps(settings.steps) for recipe in MODELS.values()}
    content = {**head, "seed": settings.seed, "samples": settings.samples, "runs": runs, **values}
    (settings.workshop / "metrics.json").write_text(json_text(content) + "\n", encoding="utf-8")
    return content


def _write_report(
    settings: DemoSettings,
    runs: "Mapping[str, Run]",
    samples: "Mapping[str, Tensor]",
    scores: Scores,
    gaps: "Mapping[str, Finding]",
    watch: "_Stopwatch",
) -> None:
    from fluvial.audits.report import write_report
    from fluvial.cli.demo_report import demo_report, draw_all
    from fluvial.training.logs import read_metrics

    data = runs["CFM"].dataset()
    losses = {name: read_metrics(run.folder) for name, run in runs.items()}
    figures = draw_all(settings.workshop, samples, data.train.x, data.held_out.x, losses, gaps)
    provenance = {**_provenance(settings, data.train.content_hash), **watch.rows()}
    write_report(demo_report(scores, list(samples), gaps, figures, provenance), settings.workshop / "report.html")


def _provenance(settings: DemoSettings, data_hash: str) -> dict[str, str]:
    import torch

    command = ["fluvial", "demo", "--steps", settings.steps, "--seed", settings.seed, "--samples", settings.samples]
    updates = [f"{name} {recipe.steps(settings.steps):,} updates" for name, recipe in MODELS.items()]
    versions = f"fluvial {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return {
        "command": shlex.join(map(str, [*command, "--out", settings.out])),
        "training": f"{', '.join(updates)}, seed {settings.seed}",
        "samples": f"{settings.samples:,} of each kind: {HEUN.method} solver, {HEUN.steps} steps; of the Mean Flow, "
        "1 and 2 steps; averaged weights",
        "data": f"scikit-learn digits, training split {data_hash[:16]}",
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, torch on {torch.get_num_threads()} thread(s)",
    }


class _Stopwatch:
    """Seconds spent on each part, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self._last, 2)
        self._last = now

    def rows(self) -> dict[str, str]:
        parts = {f"time, {part}": format_seconds(seconds) for part, seconds in self.seconds.items()}
        return {**parts, "time, in all": format_seconds(sum(self.seconds.values()))}
