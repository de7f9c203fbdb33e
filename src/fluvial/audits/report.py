"""A self-contained HTML report: verdicts first, then tables, then figures with what each one shows.

The file needs no network, no scripts and no other file: styles are inline and pictures are embedded. It reads
on a phone and on a desk, in light and in dark. Everything that is passed in as text is escaped.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fluvial.audits.drawing import draw_figure
from fluvial.audits.finding import Finding
from fluvial.audits.style import STYLE

VERDICT_KINDS = ("good", "bad", "neutral")


@dataclass(frozen=True)
class Verdict:
    """One sentence of judgement.

    Args:
        subject: What is judged, such as ``"CFM"``.
        sentence: The judgement.
        kind: ``"good"``, ``"bad"`` or ``"neutral"``: the colour beside it.
        chief: Whether it is the judgement that the others lead to, and shown larger.

    Raises:
        ValueError: If ``kind`` is none of these.
    """

    subject: str
    sentence: str
    kind: str = "neutral"
    chief: bool = False

    def __post_init__(self) -> None:
        if self.kind not in VERDICT_KINDS:
            raise ValueError(f"kind must be one of {', '.join(VERDICT_KINDS)}, got {self.kind!r}")


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        columns: Headings, with units where there are any.
        rows: Cells, as many per row as there are headings; fractions are shown with four digits, text as it is.
        note: What the columns mean.
        prose: Whether cells hold sentences, which are wrapped and aligned to the left.

    Raises:
        ValueError: If a row has another number of cells than there are headings.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]
    note: str = ""
    prose: bool = False

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"rows[{number}] must have {len(self.columns)} cells, got {len(row)}")


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows.

    Args:
        title: A few words.
        caption: What to see in it, in a sentence or two.
        alt: What it looks like, for those who do not see it.
        png: The picture.
        dark_png: The same picture drawn for a dark page; None shows ``png`` there as well.
        narrow: Whether it is shown at half width.
    """

    title: str
    caption: str
    alt: str
    png: bytes
    dark_png: bytes | None = None
    narrow: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, a table and figures, in this order.

    Args:
        title: The heading.
        paragraphs: What was measured and how.
        table: The figures.
        figures: The pictures.
    """

    title: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Report:
    """Everything one page says.

    Args:
        title: The heading of the page.
        lead: One or two sentences under it.
        verdicts: The judgements, shown first.
        sections: The evidence.
        provenance: How it was made: command, seed, versions, time.
    """

    title: str
    lead: str
    verdicts: Sequence[Verdict]
    sections: Sequence[Section]
    provenance: Mapping[str, str] = field(default_factory=dict)


def section_of(finding: Finding) -> Section:
    """The section of a report that shows one finding: verdict, reservation, notes, method, table and drawings.

    Example:
        >>> from fluvial.audits import Finding
        >>> found = Finding(
        ...     name="count", title="Count", verdict="There are 3.", method="Counting.", source="Euclid.",
        ...     columns=("n",), rows=((3,),), data={"n": 3}, seconds=2.0,
        ... )
        >>> section_of(found).paragraphs
        ('There are 3.', 'Counting. Source: Euclid. Took 2.0 s.')
    """
    figures = tuple(
        Figure(
            drawing.title,
            drawing.caption,
            drawing.alt,
            draw_figure(drawing.fill, size=drawing.size),
            draw_figure(drawing.fill, size=drawing.size, dark=True),
            drawing.narrow,
        )
        for drawing in finding.drawings
    )
    took = f" Took {finding.seconds:.1f} s." if finding.seconds else ""
    method = f"{finding.method} Source: {finding.source}{took}"
    notes = [text for text in (finding.reservation, *finding.notes) if text]
    table = Table(finding.columns, finding.rows) if finding.rows else None
    return Section(finding.title, (finding.verdict, *notes, method), table, figures)


def render_report(report: Report) -> str:
    """The page as HTML.

    Example:
        >>> page = render_report(Report("A & B", "Two models.", [Verdict("A", "It copies.", "bad")], []))
        >>> "<h1>A &amp; B</h1>" in page, "http" in page
        (True, False)
    """
    title = html.escape(report.title)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        f'<head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head>",
        f'<body><main><h1>{title}</h1><p class="lead">{html.escape(report.lead)}</p>',
        _verdicts(report.verdicts),
        *map(_section, report.sections),
        _provenance(report.provenance),
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def write_report(report: Report, path: Path) -> None:
    """Writes the page to ``path``, replacing it in one step."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(render_report(report), encoding="utf-8")
    aside.replace(path)


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    return f'<ul class="verdicts">{"".join(map(_verdict, verdicts))}</ul>' if verdicts else ""


def _verdict(verdict: Verdict) -> str:
    kind = f"{verdict.kind} chief" if verdict.chief else verdict.kind
    return f'<li class="{kind}"><b>{html.escape(verdict.subject)}</b>{html.escape(verdict.sentence)}</li>'


def _section(section: Section) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
    parts += [] if section.table is None else [_table(section.table)]
    parts += map(_figure, section.figures)
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.columns)
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(_cell(row[0]))}</th>'
        + "".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    style = ' class="prose"' if table.prose else ""
    # tabindex lets the keyboard scroll a table that is wider than the screen.
    return (
        f'<div class="scroll" tabindex="0"><table{style}><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>{note}"
    )


def _cell(value: str | int | float) -> str:
    return f"{value:#.4g}".rstrip(".") if isinstance(value, float) else str(value)


def _figure(figure: Figure) -> str:
    dark = ""
    if figure.dark_png is not None:
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_data_uri(figure.dark_png)}">'
    image = f'<img alt="{html.escape(figure.alt)}" src="{_data_uri(figure.png)}">'
    return (
        f'<figure class="{"narrow" if figure.narrow else "wide"}"><picture>{dark}{image}</picture>'
        f"<figcaption><b>{html.escape(figure.title)}.</b> {html.escape(figure.caption)}</figcaption></figure>"
    )


def _provenance(provenance: Mapping[str, str]) -> str:
    if not provenance:
        return ""
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in provenance.items())
    return f"<section><h2>How this was made</h2><dl>{rows}</dl></section>"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
