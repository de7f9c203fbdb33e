"""``fluvial support experiments``: the first document's comparisons, with its figures beside ours."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from fluvial import __version__
from fluvial.cli.errors import did_you_mean
from fluvial.cli.folders import check_writable
from fluvial.cli.render import console, json_text, renderer
from fluvial.support.experiments import GROUPS, plan_experiments
from fluvial.support.tasks.names import parse_family
from fluvial.training.toml import write_text

if TYPE_CHECKING:
    from fluvial.support.experiments.tables import Table

RECORD, REPORT = "experiments.json", "experiments.md"
COMMAND = "support experiments"
_MORE = 1.5  # times the training that is there, from which on a larger budget is told


@dataclass(frozen=True)
class SupportExperiments:
    """Train and compare support-conditioned nets as the published experiments do; can be stopped and continued."""

    EPILOGUE: ClassVar[str] = """\
comparisons:
{groups}
Each ends in a table, with the published figures beside; all go to experiments.md and, with every figure of every task,
to NAME.json in --out. What is done is kept: the same command goes on after Ctrl-C, and does more with more of --only.

examples:
  fluvial support experiments --budget 60 --out runs/support
  fluvial support experiments --budget 15 --only shells --out runs/shells
""".format(groups="\n".join(f"  {name:<10} {meaning}" for name, meaning in GROUPS.items()))

    budget: Annotated[float, tyro.conf.arg(metavar="MINUTES")]
    """Minutes of training of all nets together; measuring comes on top, at most two minutes a net on one core."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/support")
    """Where the runs, their measurements and the tables go."""
    only: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: all)", metavar="NAMES")] = ",".join(GROUPS)
    """Comparisons, with commas between them."""
    real: Annotated[str, tyro.conf.arg(metavar="NAMES")] = "digits"
    """Real families, with commas between them: digits, fashion-mnist, fashion-mnist:efficientnet-lite0, FILE.npz."""
    tasks: int = 100
    """Tasks that each net is measured on."""
    json: bool = False
    """Print the tables as JSON."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, unknown names and a folder that cannot be written.

        Raises:
            ValueError: As above.
        """
        if not 0 < self.budget < math.inf:
            raise ValueError(f"--budget must be a positive number of minutes, got {self.budget:g}")
        if self.tasks < 2:
            raise ValueError(f"--tasks must be at least 2, got {self.tasks}")
        for name in self._groups:
            if name not in GROUPS:
                hint = did_you_mean(name, GROUPS) or f", expected some of {', '.join(GROUPS)}"
                raise ValueError(f"--only: unknown comparison {name!r}{hint}")
        if "--real" in given and "real" not in self._groups:
            raise ValueError(f"--real needs 'real' among --only, got {self.only!r}")
        if "real" in self._groups:
            for name in self._real:
                if parse_family(name, 16).kind not in ("data set", "file"):
                    raise ValueError(f"--real takes classes of data: digits, fashion-mnist or FILE.npz, got {name!r}")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"{self.out} is a file, not a folder; give another --out")
        check_writable(self.out)

    @property
    def _groups(self) -> list[str]:
        return [name.strip() for name in self.only.split(",")]

    @property
    def _real(self) -> list[str]:
        return [name.strip() for name in self.real.split(",")]

    def execute(self) -> int:
        """Trains, measures, and prints the tables."""
        import sys

        from fluvial.support.experiments.runner import run_experiments
        from fluvial.support.experiments.tables import make_tables, sizes_at_paper_time
        from fluvial.training import Interrupted

        self.out.mkdir(parents=True, exist_ok=True)
        experiments = plan_experiments(self._groups, self._real)
        try:
            with renderer() as progress:
                results = run_experiments(self.out, experiments, self.budget, tasks=self.tasks, progress=progress)
        except Interrupted as stop:
            print(f"fluvial: interrupted: saved step {stop.step}; the same command goes on", file=sys.stderr)
            return 128 + stop.signum
        sizes = sizes_at_paper_time()
        tables = make_tables(results, sizes)
        record = json_text(self._record(tables, sizes))
        write_text(self.out / RECORD, record + "\n")
        write_text(self.out / REPORT, "\n".join(table.markdown() for table in tables))
        for result in results:
            then, now = result["seconds_training"] / 60, result["seconds_now"] / 60
            if now > _MORE * then:
                again = f"remove {self.out / result['name']} and its .json to train it anew"
                print(
                    f"fluvial: {result['name']} was trained for {then:.1f} min, and {now:.1f} are asked for: {again}",
                    file=sys.stderr,
                )
        if self.json:
            print(record)
        else:
            _print(tables)
            print(f"{self.out / REPORT}: {len(tables)} tables of {len(results)} nets")
        return 0

    def _record(self, tables: "list[Table]", sizes: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "fluvial": __version__,
            "command": COMMAND,
            "budget_minutes": self.budget,
            "tasks": self.tasks,
            "effective_sizes": sizes,
            "tables": [{"title": table.title, "columns": table.columns, "rows": table.rows} for table in tables],
        }


def _print(tables: "list[Table]") -> None:
    from rich.table import Table as RichTable

    for table in tables:
        drawn = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="left" if number == 0 else "right")
        for row in table.rows:
            drawn.add_row(*row)
        console().print(drawn)
