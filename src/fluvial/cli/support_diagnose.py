"""``fluvial support diagnose``: in which regimes a support is, and what to do."""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from fluvial import __version__
from fluvial.cli.audit_subject import machine_provenance
from fluvial.cli.folders import check_writable
from fluvial.cli.render import console, json_text, renderer
from fluvial.support.tasks.names import parse_family

if TYPE_CHECKING:
    from fluvial.support.diagnosis import Diagnosis

OUTPUTS = ("diagnosis.json", "report.html")


@dataclass(frozen=True)
class SupportDiagnose:
    """Say why a handful of examples falls short, and what mends it: collapse, geometry or scarcity."""

    EPILOGUE: ClassVar[str] = """\
what DATA is:
  shells, gmm, rings, moons, spirals, fourier, mixed   tasks whose truth is known
  digits, fashion-mnist                                classes, in standardised principal components (--dim)
  FILE.npz                                             features (N, D) as they are, or in principal components
                                                       with --dim; and labels (N,) if there are any

what is found:
  collapsed          the kernel averages over fewer than two examples while a quarter of the variance is open
  geometry mismatch  another metric says more about held-out points
  scarce             more examples would help, and fast

--out FOLDER gets diagnosis.json and report.html (one file, no network).

examples:
  fluvial support diagnose shells --dim 8 --m 50
  fluvial support diagnose digits --dim 16 --out diagnosis
  fluvial support diagnose dinov2.npz --dim 16 --m 25 --json
"""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A family of tasks, a labelled data set, or an .npz file with features."""
    m: int = 50
    """Examples in a support."""
    dim: Annotated[
        int | None,
        tyro.conf.arg(help_behavior_hint="(default: the family's; 16 of a data set; a file's features as they are)"),
    ] = None
    """Dimension of the points; of data, standardised principal components."""
    tasks: int = 40
    """Tasks that are drawn, over which intervals are."""
    out: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: none)", metavar="FOLDER")] = None
    """Folder for diagnosis.json and report.html."""
    overwrite: bool = False
    """Replace an earlier diagnosis."""
    seed: int = 0
    """Seed of every draw."""
    json: bool = False
    """Print diagnosis.json on stdout instead of the summary."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, unknown data, and a diagnosis that exists.

        Raises:
            ValueError: As above.
        """
        for name, least in (("m", 2), ("tasks", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if self.dim is not None and self.dim < 1:
            raise ValueError(f"--dim must be at least 1, got {self.dim}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        parse_family(self.data, self.dim)
        if self.out is not None:
            for name in OUTPUTS:
                check_writable(self.out / name)
                if (self.out / name).exists() and not self.overwrite:
                    raise ValueError(f"{str(self.out / name)!r} already exists: give --overwrite or another --out")

    def execute(self) -> int:
        """Measures, writes the files where asked to, and prints the verdict, the table and what to do."""
        from fluvial.support.diagnosis import diagnose
        from fluvial.support.diagnosis.pages import write_diagnosis
        from fluvial.support.diagnosis.reading import read_tasks

        with renderer() as progress:
            family = read_tasks(self.data, self.dim, m=self.m, progress=progress)
            found = diagnose(family, self.m, tasks=self.tasks, seed=self.seed, progress=progress)
        record = {"command": shlex.join(["fluvial", "support", "diagnose", *self._typed()]), **machine_provenance()}
        head = {"fluvial": __version__, "command": "support diagnose"}
        text = json_text({**head, **found.to_dict(), "provenance": record})
        if self.out is not None:
            write_diagnosis(found, self.out, text, record)
        if self.json:
            print(text)
        else:
            _print(found)
            if self.out is not None:
                print(f"report: {self.out / 'report.html'}")
        return 0

    def _typed(self) -> list[str]:
        """The options that differ from their defaults, as they are typed."""
        words = [self.data]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "data" or value == field.default:
                continue
            words += ["--" + field.name, *([] if value is True else [str(value)])]
        return words


def _print(found: "Diagnosis") -> None:
    from rich.table import Table

    from fluvial.support.diagnosis.regimes import REGIMES, reasons

    screen = console()
    screen.print(f"[bold]{found.verdict}[/bold]: {found.name}, {found.m} examples in dimension {found.dim}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("regime", "", "measured"):
        table.add_column(heading)
    for regime, reason in zip(REGIMES, reasons(found), strict=True):
        answer = "undecided" if regime in found.undecided else "no"
        table.add_row(regime, "[bold]yes[/bold]" if regime in found.regimes else answer, reason)
    screen.print(table)
    for finding in found.findings:
        screen.print(f"[bold]{finding.name}[/bold]: {finding.verdict}", highlight=False)
    screen.print("[bold]what to do[/bold]")
    for item in found.recommendations:
        screen.print(f"- {item.action}", highlight=False, markup=False)
        screen.print(f"  ({item.evidence})", highlight=False, markup=False, style="dim")
    for note in found.notes:
        screen.print(note, highlight=False, markup=False, style="dim")
