"""Reports: escaped, self-contained, verdicts first."""

import re

import pytest

from fluvial.audits.drawing import draw_png
from fluvial.audits.finding import Drawing, Finding
from fluvial.audits.report import Figure, Report, Section, Table, Verdict, render_report, section_of, write_report

NASTY = "<b>&\"'</b>"


def _report(**changes):
    figure = Figure(NASTY, NASTY, NASTY, b"\x89PNG light", b"\x89PNG dark")
    table = Table((NASTY, "value"), ((NASTY, 0.123456),), NASTY)
    parts = {
        "title": NASTY,
        "lead": NASTY,
        "verdicts": [Verdict(NASTY, NASTY, "good")],
        "sections": [Section(NASTY, (NASTY,), table, (figure,))],
        "provenance": {NASTY: NASTY},
    }
    return render_report(Report(**{**parts, **changes}))


def test_everything_is_escaped():
    page = _report()
    assert NASTY not in page
    escaped = "&lt;b&gt;&amp;&quot;&#x27;&lt;/b&gt;"
    assert page.count(escaped) >= 12


def test_numbers_have_four_digits():
    assert "<td>0.1235</td>" in _report()


def test_tags_are_balanced():
    page = _report()
    for tag in ("html", "body", "main", "section", "table", "tr", "figure", "picture", "ul", "dl"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_verdicts_come_first_and_figures_follow_the_theme():
    page = _report()
    assert page.index("verdicts") < page.index("<table") < page.index("<figure")
    assert 'media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,' in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_no_external_resource():
    assert "://" not in _report() and "<script" not in _report()


def test_rows_must_fit():
    with pytest.raises(ValueError, match="rows\\[1\\] must have 2 cells, got 1"):
        Table(("a", "b"), ((1, 2), (3,)))


def test_unknown_kind_of_verdict():
    with pytest.raises(ValueError, match="'great'"):
        Verdict("a", "b", "great")


def test_written_in_one_step(tmp_path):
    write_report(Report("title", "lead", [], []), tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_finding_is_shown_whole():
    drawing = Drawing.on_axes("Points", "A caption.", "Looks like this.", lambda axes: axes.plot([3]))
    found = Finding(
        name="count",
        title="Count",
        verdict="There are 3.",
        method="Counting.",
        source="Euclid.",
        columns=("what", "n"),
        rows=(("points", 3),),
        data={},
        drawings=(drawing, drawing),
        notes=("Few points.",),
        reservation="Not comparable: guided.",
        seconds=1.25,
    )
    page = render_report(Report("title", "lead", [], [section_of(found)]))
    for words in ("There are 3.", "Few points.", "Not comparable: guided.", "Counting. Source: Euclid. Took 1.2 s."):
        assert words in page
    assert page.count("<figure") == 2 and 'alt="Looks like this."' in page and "<td>3</td>" in page


def test_drawing_leaves_the_global_state_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    light, dark = (draw_png(lambda axes: axes.plot([1, 2]), size=(2, 1), dark=dark) for dark in (False, True))
    assert light != dark and dict(matplotlib.rcParams) == before
