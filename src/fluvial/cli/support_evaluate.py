"""``fluvial support evaluate``: how a net of fluvial support train does on tasks that it has never seen."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from fluvial.cli.folders import check_output, written_aside
from fluvial.cli.render import console, format_value, json_text, renderer
from fluvial.support.config import read_config
from fluvial.support.tasks.names import SYNTHETIC, parse_family

if TYPE_CHECKING:
    from fluvial.support.evaluation.outcome import Evaluation
    from fluvial.support.tasks.classes import Split


_FEW_TASKS = 20
_MOST_POINTS = 100_000


@dataclass(frozen=True)
class SupportEvaluate:
    """Compare a net's samples with those of the exact field of the support, on fresh tasks."""

    EPILOGUE: ClassVar[str] = """\
what is compared, for each task (support, samples, and targets that are never among the support):
  learned        samples of the net
  plug-in        the exact flow of the support, which copies it up to noise of sigma_min
  tuned plug-in  the same with the noise that fits validation tasks best
  floor          fresh targets: what a perfect model scores
Columns: near-copies are samples nearer to an example than a third of the median distance of fresh targets from it;
nearest example is the mean distance to it; velocity error is the mean squared distance from the true velocity at
uniform times (from the conditional one, noise included, where the truth is not known): late times dominate, when the
plug-in's velocity grows as 1 / sigma.
MMD^2 is unbiased, so that it may be slightly negative, under a Gaussian kernel whose width is the median distance of
other targets of the task. plug-in / this is a ratio of means over tasks: above 1, the row does better.

examples:
  fluvial support evaluate runs/shells
  fluvial support evaluate runs/shells --tasks 200 --classifiers 10
  fluvial support evaluate runs/plane --family spirals           tasks of a family that it was not trained on
  fluvial support evaluate runs/shells --exact --json            the exact field in the place of the net
"""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    family: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: that of the run)", metavar="NAME")] = None
    """Family of the tasks."""
    m: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: that of the run)")] = None
    """Examples in a support."""
    tasks: int = 100
    """Number of tasks."""
    points: int = 500
    """Samples and targets of each task."""
    solver: Literal["euler", "midpoint", "heun", "rk4"] = "heun"
    """How the field is integrated."""
    steps: int = 50
    """Number of solver steps from noise to data."""
    classifiers: int = 0
    """Tasks on which classifiers try to tell samples from targets (linear, nearest neighbours, MLP); seconds each."""
    split: Literal["validation", "test"] = "test"
    """Which classes of real data."""
    exact: bool = False
    """Evaluate the exact field of the support instead of the net."""
    seed: int = 0
    """Seed of tasks and noise."""
    out: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: none)", metavar="FILE.json")] = None
    """Also write all figures, task by task, to this file."""
    overwrite: bool = False
    """Replace a file that exists."""
    json: bool = False
    """Print all figures as JSON instead of the table."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values and a folder that holds no run.

        Raises:
            ValueError: As above.
        """
        for name in ("tasks", "points"):
            if getattr(self, name) < 2:
                raise ValueError(f"--{name} must be at least 2, got {getattr(self, name)}")
        if self.points > _MOST_POINTS:
            raise ValueError(f"--points must be at most {_MOST_POINTS}, got {self.points}")
        if self.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {self.steps}")
        if self.m is not None and self.m < 1:
            raise ValueError(f"--m must be at least 1, got {self.m}")
        for name in ("classifiers", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must not be negative, got {getattr(self, name)}")
        config = read_config(self.run)
        if self.family is not None:
            parse_family(self.family, config.dim)
        tasks = self.family or config.tasks
        if "--split" in given and not _has_classes(tasks):
            raise ValueError(f"--split chooses classes of real data, and the tasks are {tasks!r}")
        if self.out is not None:
            if self.out.suffix.lower() != ".json":
                raise ValueError(f"--out must end in .json, got {str(self.out)!r}")
            check_output(self.out, self.overwrite)

    def execute(self) -> int:
        """Evaluates, prints the table, and writes the figures where asked to."""
        found = self._evaluate()
        text = json_text({"run": str(self.run), "field": "exact" if self.exact else "net", **found.to_dict()})
        if self.out is not None:
            with written_aside(self.out) as aside:
                aside.write_text(text + "\n", encoding="utf-8")
        if self.json:
            print(text)
        else:
            _print(found, self.run, "exact field" if self.exact else "learned")
        return 0

    def _evaluate(self) -> "Evaluation":
        import torch

        from fluvial.support.evaluation.evaluating import evaluate
        from fluvial.support.kernel.attention import KernelAttention
        from fluvial.support.runs import load_support_run
        from fluvial.support.tasks import family_by_name

        run = load_support_run(self.run)
        m = self.m or run.config.m
        tuning: Split = "train" if self.split == "validation" else "validation"
        splits: tuple[Split, ...] = (self.split, tuning)
        families = {
            split: run.family(split) if self.family is None else family_by_name(self.family, run.dim, split=split, m=m)
            for split in splits
        }
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = KernelAttention(run.path) if self.exact else run.net
        with renderer() as progress:
            return evaluate(
                model.to(device),
                families[self.split],
                m=m,
                tasks=self.tasks,
                points=self.points,
                path=run.path,
                steps=self.steps,
                method=self.solver,
                classified=self.classifiers,
                tuning_family=families[tuning],
                device=device,
                seed=self.seed,
                progress=progress,
            )


def _has_classes(tasks: str) -> bool:
    """Whether tasks are classes of data, which may lie elsewhere by now."""
    return all(name.strip() not in (*SYNTHETIC, "mixed") for name in tasks.split("+"))


def _print(found: "Evaluation", run: Path, name: str) -> None:
    from rich.table import Table

    from fluvial.support.evaluation.outcome import COLUMNS
    from fluvial.support.evaluation.plug_in import expected_copy_distance

    settings = found.settings
    # The interval of the ratio says what that of the MMD^2 would, in a table that has no room for both.
    rows = [(name if row[0] == "learned" else row[0], str(row[1]).partition(" [")[0], *row[2:]) for row in found.rows()]
    title = f"{run} on {settings['tasks']} tasks of {settings['family']}, d = {settings['dim']}, m = {settings['m']}"
    table = Table(title=title, title_justify="left")
    shown = [column for column in range(len(COLUMNS)) if any(row[column] != "" for row in rows)]
    for column in shown:
        table.add_column(COLUMNS[column], justify="left" if column == 0 else "right")
    for row in rows:
        table.add_row(
            *(value if isinstance(value, str) else format_value(value) for value in map(row.__getitem__, shown))
        )
    console().print(table)
    ratio = found.ratio()
    print(f"plug-in / {name}: {ratio.text()} (MMD^2, ratio of means with 95 % interval over tasks)")
    near, copies = found.mean("nearest", "plug_in"), expected_copy_distance(found.bandwidth, settings["dim"])
    print(
        f"the plug-in copies its support: nearest example at {near.value:.3g}, and {copies:.3g} for copies with noise"
    )
    if settings["tasks"] < _FEW_TASKS:
        print(f"note: intervals over {settings['tasks']} tasks are rough; --tasks {_FEW_TASKS} or more make them sound")
    for note in found.notes:
        print(f"note: {note}")
