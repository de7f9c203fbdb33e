"""The demo from the first update to the last figure."""

import platform
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluvial import __version__
from fluvial.cli.demo_measure import NOISE, Scores, measure
from fluvial.cli.render import format_seconds, json_text
from fluvial.progress import Progress, ProgressCallback
from fluvial.solvers.sampling import Solver, draw_samples

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.audits import Finding
    from fluvial.fields.base import Field
    from fluvial.training import Run

MODELS = {"CFM": "cfm", "EFM": "efm"}
EXACT = "exact field"
SOLVER = Solver("heun", 25)
OUTPUTS = ("metrics.json", "report.html", "samples.png", "loss.png", "nearest.png", "gap.png", *MODELS.values())
"""What a demo owns in its folder."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo can be told: where to write, updates per model, seed, samples per model.

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
    runs = {name: _train(settings, short, progress) for name, short in MODELS.items()}
    watch.lap("training both models")
    data = runs["CFM"].dataset()
    exact = ExactField(data.train.x, runs["CFM"].path)
    fields: dict[str, Field] = {**{name: run.net for name, run in runs.items()}, EXACT: exact}
    samples = {name: _sample(settings, field, name, progress) for name, field in fields.items()}
    watch.lap("sampling")
    noisy = {f"CFM + noise {NOISE:g}": _noisy(samples["CFM"], settings.seed)}
    scores = measure(data.train, data.held_out, {**samples, **noisy}, progress=progress)
    gaps = {name: _gap(settings, runs[name], name, exact, progress) for name in runs}
    watch.lap("measuring")
    values = {"complete": True, **scores.to_dict(), "gap": {name: gap.to_dict() for name, gap in gaps.items()}}
    values |= {"data_hash": data.train.content_hash, "seconds": watch.seconds}
    _write_report(settings, runs, samples, scores, gaps, watch)
    return _write_metrics(settings, values), scores, list(fields)


def _train(settings: DemoSettings, objective: str, progress: ProgressCallback) -> "Run":
    from fluvial.training import TrainConfig, Trainer, load_run

    folder = settings.workshop / objective
    config = TrainConfig(data="digits", objective=objective, steps=settings.steps, seed=settings.seed)
    Trainer(config, folder, progress=progress).fit()
    return load_run(folder)


def _sample(settings: DemoSettings, field: "Field", name: str, progress: ProgressCallback) -> "Tensor":
    x, _ = draw_samples(
        field,
        settings.samples,
        (1, 8, 8),
        seed=settings.seed,
        solver=SOLVER,
        task=f"sample {name}",
        progress=progress,
    )
    return x


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
    content = {**head, "seed": settings.seed, "samples": settings.samples, **values}
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
    versions = f"fluvial {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return {
        "command": shlex.join(map(str, [*command, "--out", settings.out])),
        "training": f"{settings.steps:,} updates per model, seed {settings.seed}",
        "samples": f"{settings.samples:,} per model, {SOLVER.method} solver, {SOLVER.steps} steps, averaged weights",
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
