"""``fluvial audit scaling``: trains nets on growing subsets and of growing width, and says where copying ends."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.errors import as_options
from fluvial.cli.folders import check_writable, written_aside
from fluvial.cli.options import check_size
from fluvial.cli.render import console, json_text, renderer
from fluvial.training.sweep import SweepSettings, check_sweep_folder

if TYPE_CHECKING:
    from fluvial.audits import Finding

QUICK_SHARE = 10
"""By how much ``--quick`` divides the updates."""

_SETTINGS = tuple(field.name for field in fields(SweepSettings))


@dataclass(frozen=True)
class AuditScaling:
    """Train on growing subsets and with growing nets, and show the passage from memorising to generalising."""

    EPILOGUE: ClassVar[str] = """\
what is compared:
  Every net is trained on the first N of the training data in one random order, so that small subsets lie within
  large ones, with the same batch size; a small subset recurs more often. --steps are the updates of the widest net.
  --compute flops (the default) gives every net as many floating point operations, so that narrower nets make more
  updates and a net that does not copy has had its chance to; --compute updates gives all as many updates. On a CPU,
  where small nets compute less per second, the narrowest then take longest.

what is measured of each net:
  error      squared distance to the exact velocity of its own N data, mean over time
  copies     share of the samples nearer to the nearest of the N than a third of the way to the second nearest
  neighbour  mean distance of samples to the nearest of the N, over that of held-out data: 0 copies, 1 as fresh data
  Fréchet    distance to the held-out data, in raw values and, with labels, in features of a classifier trained on
             the whole training data; by itself it can miss a net that copies, which is what the figures show

writes, in the folder --out:
  scaling.json    every number
  report.html     verdict, table and figures on one page that needs no network
  cells/          one file for each net that is finished
The same command continues after an interrupt, Ctrl-C included, and ends with the same numbers; with more --sizes it
adds nets to those that are there.

examples:
  fluvial audit scaling --data digits --sizes 10,30,100,300,all --steps 4000 --out runs/scaling
  fluvial audit scaling --data digits --sizes 100,300 --widths 16,64,256 --steps 4000 --out runs/widths
  fluvial audit scaling --data digits --sizes 10,100,1000 --steps 4000 --quick --out runs/first-look
"""

    sizes: Annotated[str, tyro.conf.arg(help_behavior_hint="(required)", metavar="N,N,...")] = ""
    """Numbers of training data, increasing, separated by commas; the last may be all."""
    out: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(required)", metavar="FOLDER")] = None
    """Folder of the sweep: a new or empty one, or one that holds the same sweep, which is then continued."""
    data: str = "digits"
    """Data set: a name such as digits or moons, a file (x.npy, x.npz, table.csv), or folder:PATH."""
    widths: Annotated[str, tyro.conf.arg(metavar="W,W,...")] = "256"
    """Widths of the nets, increasing multiples of 8, separated by commas."""
    steps: int = 4000
    """Updates of the widest net."""
    compute: Literal["flops", "updates"] = "flops"
    """What nets of different width have in common: floating point operations, or updates."""
    depth: int = 3
    """Number of residual blocks."""
    batch_size: int = 64
    """Data per update, whatever the size."""
    lr: float = 3e-3
    """Peak learning rate of AdamW."""
    objective: Literal["cfm", "efm"] = "cfm"
    """What the nets are regressed on: cfm (conditional flow matching) or efm (empirical flow matching)."""
    bank_size: int = 256
    """Data that efm averages the velocity over, for each batch."""
    samples: int = 1000
    """Samples of each net that are measured."""
    held_out: Annotated[int | float | None, tyro.conf.arg(help_behavior_hint="(default: the data set's own split)")] = (
        None
    )
    """Data kept out of training, to compare with, as a count or a share."""
    size: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: as they are)")] = None
    """Side in pixels that images of folders are cropped and resized to."""
    seed: int = 0
    """Seed of the split, the subsets, the nets and the samples."""
    quick: bool = False
    """A first look: a tenth of the updates, at most 200 samples, fewer times. Its figures are not to be quoted."""
    json: bool = False
    """Print scaling.json on stdout instead of the table."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad settings, and a folder that holds another sweep or anything else.

        Raises:
            ValueError: As above.
        """
        if self.out is None:
            raise ValueError("--out FOLDER is required; see fluvial audit scaling --help")
        if not self.sizes:
            raise ValueError("--sizes N,N,... is required, such as --sizes 10,100,1000 or --sizes 100,all")
        if "--bank-size" in given and self.objective != "efm":
            raise ValueError(f"--bank-size needs --objective 'efm', got {self.objective!r}")
        with _settings_as_options():
            settings = self.settings()
            settings.validate()
            check_size(self.size, self.data)
            for name in ("scaling.json", "report.html"):
                check_writable(self.out / name)
            check_sweep_folder(self.out, settings)

    def settings(self) -> SweepSettings:
        """The sweep that the options describe.

        Raises:
            ValueError: If sizes or widths are no lists of numbers.
        """
        sizes = [None if word == "all" else _count("--sizes", word) for word in _words(self.sizes)]
        widths = [_count("--widths", word) for word in _words(self.widths)]
        settings = SweepSettings(
            data=self.data,
            sizes=tuple(sizes),
            widths=tuple(widths),
            steps=self.steps,
            depth=self.depth,
            batch_size=self.batch_size,
            lr=self.lr,
            objective=self.objective,
            bank_size=self.bank_size,
            compute=self.compute,
            samples=self.samples,
            seed=self.seed,
            size=self.size,
            held_out=self.held_out,
        )
        if not self.quick:
            return settings
        steps = self.steps if self.steps < 1 else max(1, self.steps // QUICK_SHARE)
        return replace(settings, steps=steps, samples=min(self.samples, 200), draws=64, times=10)

    def execute(self) -> int:
        """Trains and measures what the folder does not hold yet, writes the report, and prints the table."""
        from fluvial.audits.scalings import scaling
        from fluvial.audits.sweep import run_sweep
        from fluvial.training import Interrupted

        if self.out is None:
            raise ValueError("--out is required")
        try:
            with _settings_as_options(), renderer() as progress:
                cells = run_sweep(self.settings(), self.out, progress=progress)
        except Interrupted as stop:
            self._say_how_to_continue()
            return 128 + stop.signum
        except KeyboardInterrupt:
            self._say_how_to_continue()
            return 128 + signal.SIGINT
        finding = scaling(cells, compute=self.compute)
        finding = replace(finding, seconds=round(sum(cell.seconds for cell in cells), 2))
        text = json_text({"fluvial": __version__, "command": "audit scaling", **finding.to_dict()})
        self._write(self.out, finding, text)
        if self.json:
            print(text)
        else:
            _print_summary(finding, self.out)
        return 0

    def _say_how_to_continue(self) -> None:
        kept = f"what was done is kept in {self.out}; the same command continues"
        print(f"fluvial: interrupted: {kept}", file=sys.stderr)

    def _write(self, out: Path, finding: "Finding", text: str) -> None:
        from fluvial.audits.report import Report, Verdict, section_of, write_report

        with written_aside(out / "scaling.json") as aside:
            aside.write_text(text + "\n", encoding="utf-8")
        report = Report(
            title=f"Scaling on {self.data}: memorising or generalising?",
            lead="Nets trained on growing subsets of the training data, held against the exact velocity field of their "
            "own data and against data that none of them has seen.",
            verdicts=[Verdict("Passage", finding.verdict)],
            sections=[section_of(finding)],
            provenance=self._provenance(finding.data["cells"]),
        )
        write_report(report, out / "report.html")

    def _provenance(self, cells: "Sequence[dict[str, object]]") -> dict[str, str]:
        import platform

        import torch

        settings = self.settings()
        common = "floating point operations" if self.compute == "flops" else "updates"
        return {
            "data": self.data,
            "training": f"{settings.objective}, depth {settings.depth}, batches of {settings.batch_size}, peak "
            f"learning rate {settings.lr:g}, {settings.steps:,} updates of the widest net, equal {common}",
            "nets": f"{len(cells)}, seed {settings.seed}, averaged weights",
            "samples": f"{settings.samples:,} of each net, heun solver, 25 steps",
            "versions": f"fluvial {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
            "machine": f"{platform.system()} {platform.machine()}, torch on {torch.get_num_threads()} thread(s)",
            **({"quick": "a first look: figures are not to be quoted"} if self.quick else {}),
        }


@contextmanager
def _settings_as_options() -> Iterator[None]:
    """Turns the names of settings in errors into options, since that is how they were given."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message = as_options(str(error), _SETTINGS)
        if message == str(error):
            raise
        raise ValueError(message) from error


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _count(option: str, word: str) -> int:
    if not word.isdecimal():
        words = " or, last, all" if option == "--sizes" else ""
        raise ValueError(f"{option} must be whole numbers separated by commas{words}, got {word!r}")
    return int(word)


def _print_summary(finding: "Finding", out: Path) -> None:
    from rich.table import Table

    table = Table(title="from memorising to generalising", title_justify="left")
    for number, column in enumerate(finding.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in finding.rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    screen = console()
    screen.print(table)
    for text in (finding.verdict, *finding.notes):
        screen.print(text, highlight=False)
    print(f"report: {out / 'report.html'}")
