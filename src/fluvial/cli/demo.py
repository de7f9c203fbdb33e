"""``fluvial demo``: trains two models on real digits, samples them and holds both against the exact field."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from fluvial.cli.folders import check_writable
from fluvial.cli.render import console, renderer

if TYPE_CHECKING:
    from fluvial.cli.demo_measure import Scores


@dataclass(frozen=True)
class Demo:
    """Train two models on real handwritten digits, check whether their samples are new, and write a report."""

    EPILOGUE: ClassVar[str] = """\
writes, in the folder --out:
  report.html     verdicts, scores and figures on one page that needs no network
  samples.png     samples of each model beside real digits
  nearest.png     each sample beside its nearest training digit
  gap.png         distance of each model to the exact field against time
  loss.png        training losses
  metrics.json    every number
  cfm/, efm/      the runs: fluvial sample runs/demo/cfm --n 64 --out more.png

A second demo replaces the first in the same folder.

examples:
  fluvial demo
  fluvial demo --steps 4000 --seed 1 --out runs/long-demo
"""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/demo")
    """Folder to write to: a new or empty one, or that of an earlier demo."""
    steps: int = 1500
    """Updates per model."""
    seed: int = 0
    """Seed of the split, the training and the samples."""
    samples: int = 2000
    """Samples per model that the scores are computed on."""
    json: bool = False
    """Print metrics.json on stdout instead of the table."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, and a folder that holds anything but an earlier demo.

        Raises:
            ValueError: As above.
        """
        if self.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {self.steps}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        if self.samples < 16:
            raise ValueError(f"--samples must be at least 16, got {self.samples}")
        check_writable(self.out / "metrics.json")
        if self.out.is_dir() and any(self.out.iterdir()) and not _is_demo(self.out):
            raise ValueError(f"--out {str(self.out)!r} holds files that are not of a demo; choose another folder")

    def execute(self) -> int:
        """Runs the demo and prints its table and verdicts."""
        from fluvial.cli.demo_run import DemoSettings, run_demo
        from fluvial.training import Interrupted

        settings = DemoSettings(self.out, self.steps, self.seed, self.samples)
        try:
            with renderer() as progress:
                values, scores, names = run_demo(settings, progress)
        except Interrupted as stop:
            saved = f"step {stop.step} is saved in {stop.checkpoint}"
            print(f"fluvial: interrupted: {saved}; fluvial demo starts over", file=sys.stderr)
            return 128 + stop.signum
        if self.json:
            print(json.dumps(values, indent=2))
        else:
            _print_summary(scores, names, self.out)
        return 0


def _is_demo(folder: Path) -> bool:
    """Whether an earlier demo, complete or not, wrote this folder."""
    try:
        values = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "fluvial" in values and values.get("command") == "demo"


def _print_summary(scores: "Scores", names: list[str], out: Path) -> None:
    from rich.table import Table

    from fluvial.cli.demo_measure import judge
    from fluvial.cli.demo_report import SCORE_COLUMNS, score_rows

    table = Table(title="scores against held-out digits", title_justify="left")
    for number, column in enumerate(SCORE_COLUMNS):
        table.add_column(column, justify="right" if number else "left")
    for row in score_rows(scores):
        table.add_row(*row)
    screen = console()
    screen.print(table)
    screen.print(f"classifier accuracy on held-out digits: {scores.accuracy:.1%}", highlight=False)
    for name in names:
        screen.print(f"[bold]{name}[/bold]: {judge(scores, name)[0]}", highlight=False)
    print(f"report: {out / 'report.html'}")
