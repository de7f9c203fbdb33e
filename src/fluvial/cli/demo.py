"""``fluvial demo``: trains three models on real digits, samples them and holds them against the exact field."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from fluvial.cli.folders import check_writable
from fluvial.cli.render import console, json_text, renderer
from fluvial.data.json_text import read_json
from fluvial.data.memory import check_fits
from fluvial.training.folders import foreign_file
from fluvial.training.interrupts import deferred_signals

if TYPE_CHECKING:
    from fluvial.cli.demo_measure import Scores


DIGIT_VALUES = 64
"""Numbers in one digit."""
RUNS = ("cfm", "efm", "meanflow")
"""Folders of the runs in a demo's folder."""
_FIRST_RUNS = ("cfm", "efm")  # those of demos that do not say which runs they have


@dataclass(frozen=True)
class Demo:
    """Train three models on real handwritten digits, check whether their samples are new, and write a report."""

    EPILOGUE: ClassVar[str] = """\
writes, in the folder --out:
  report.html     verdicts, scores and figures on one page that needs no network
  samples.png     samples of each model beside real digits
  nearest.png     each sample beside its nearest training digit
  gap.png         distance of each model to the exact field against time
  loss.png        training losses
  metrics.json    every number
  cfm/, efm/      the runs of conditional and of empirical flow matching
  meanflow/       the run of the Mean Flow, which samples in one or two steps

A second demo in the same folder replaces the first once it is complete; other files stay.

examples:
  fluvial demo
  fluvial demo --steps 4000 --seed 1 --out runs/long-demo
  fluvial sample runs/demo/cfm --n 64 --out more.png
  fluvial sample runs/demo/meanflow --solver meanflow --steps 1 --n 64 --out in-one-step.png
"""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/demo")
    """Folder to write to: a new or empty one, or that of an earlier demo."""
    steps: int = 1500
    """Updates of CFM and of EFM; the Mean Flow, which samples in one or two steps, makes half as many again."""
    seed: int = 0
    """Seed of the split, the training and the samples."""
    samples: int = 2000
    """Samples of each kind that the scores are computed on."""
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
        needed = 18 * 4 * self.samples * DIGIT_VALUES  # five sets of samples, and one with noise, in a few copies
        check_fits(needed, f"--samples {self.samples}", "ask for fewer")
        for path in (self.out, self.out / "metrics.json"):
            check_writable(path)
        self._check_replaceable()

    def _check_replaceable(self) -> None:
        if not self.out.is_dir() or not any(self.out.iterdir()):
            return
        own = _own_runs(self.out)
        if own is None:
            raise ValueError(f"--out {str(self.out)!r} holds files that are not of a demo; choose another folder")
        for name in RUNS:
            folder = self.out / name
            if name not in own and folder.exists():
                raise ValueError(f"{folder} is not of the earlier demo and a new demo would replace it; move it first")
            foreign = foreign_file(folder) if folder.is_dir() else None
            if foreign is not None:
                raise ValueError(f"{foreign} was not written by fluvial and a new demo would remove it; move it first")

    def execute(self) -> int:
        """Runs the demo and prints its table and verdicts."""
        from fluvial.cli.demo_run import OUTPUTS, DemoSettings, run_demo
        from fluvial.training import Interrupted

        out = self.out.resolve()
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as workshop:
            settings = DemoSettings(self.out, Path(workshop), self.steps, self.seed, self.samples)
            try:
                with renderer() as progress:
                    values, scores, names = run_demo(settings, progress)
            except Interrupted as stop:
                print(f"fluvial: interrupted: {self.out} is as it was; fluvial demo starts over", file=sys.stderr)
                return 128 + stop.signum
            _replace(Path(workshop), out, OUTPUTS)
        if self.json:
            print(json_text(values))
        else:
            _print_summary(scores, names, self.out)
        return 0


def _replace(workshop: Path, out: Path, names: Sequence[str]) -> None:
    """Moves what was made to ``out`` and touches nothing else there; all is moved or none. A signal waits."""
    replaced = workshop / "replaced"
    replaced.mkdir()
    out.mkdir(exist_ok=True)
    old = [(out / name, replaced / name) for name in names if (out / name).exists()]
    done: list[tuple[Path, Path]] = []
    with deferred_signals():
        try:
            for source, target in [*old, *((workshop / name, out / name) for name in names)]:
                source.rename(target)
                done.append((source, target))
        except OSError:
            for source, target in reversed(done):
                target.rename(source)
            raise


def _own_runs(folder: Path) -> Sequence[str] | None:
    """Names of the runs that an earlier demo wrote to this folder; None if none did."""
    try:
        values = read_json(folder / "metrics.json")
    except (OSError, ValueError):
        return None
    if not (isinstance(values, dict) and "fluvial" in values and values.get("command") == "demo"):
        return None
    runs = values.get("runs", _FIRST_RUNS)
    return tuple(runs) if isinstance(runs, dict) else _FIRST_RUNS


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
