"""The report of a diagnosis: the regimes, what to do, then the three measurements."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from fluvial.audits.report import Report, Section, Table, Verdict, render_report, section_of
from fluvial.support.diagnosis.regimes import REGIMES, Diagnosis, reasons
from fluvial.support.diagnosis.thresholds import SCARCE_ERROR

FILES = ("diagnosis.json", "report.html")
"""What :func:`write_diagnosis` writes."""


def diagnosis_report(diagnosis: Diagnosis, provenance: Mapping[str, str] | None = None) -> Report:
    """The page of a diagnosis.

    Args:
        diagnosis: What was found.
        provenance: How it was made: command, versions.

    Example:
        >>> from fluvial.support.diagnosis import diagnose
        >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> diagnosis_report(diagnose(x, 50, tasks=4)).verdicts[0].subject
        'none of the three'
    """
    why = reasons(diagnosis)
    sentence = diagnosis.recommendations[0].action + "."
    fine = diagnosis.scarcity.data["error_here"] <= SCARCE_ERROR and not diagnosis.undecided
    kind = "bad" if diagnosis.regimes else "good" if fine else "neutral"
    verdicts = [Verdict(diagnosis.verdict, sentence, kind, chief=True)]
    for regime, reason in zip(REGIMES, why, strict=True):
        subject, kind = f"not {regime}", "good"
        if regime in diagnosis.regimes:
            subject, kind = regime, "bad"
        elif regime in diagnosis.undecided:
            subject, kind = f"{regime}: undecided", "neutral"
        verdicts.append(Verdict(subject, f"{reason[0].upper()}{reason[1:]}.", kind))
    actions = tuple((item.action, item.evidence) for item in diagnosis.recommendations)
    to_do = Section("What to do", table=Table(("action", "evidence"), actions, prose=True))
    notes = [Section("Of the data", diagnosis.notes)] if diagnosis.notes else []
    took = sum(finding.seconds for finding in diagnosis.findings)
    record = {
        "data": f"{diagnosis.name}, dimension {diagnosis.dim}",
        "tasks": f"{diagnosis.tasks}, of {diagnosis.m} examples each",
        "seed": str(diagnosis.seed),
        **(provenance or {}),
        "measuring took": f"{took:.0f} s",
    }
    return Report(
        f"Diagnosis of {diagnosis.name}, {diagnosis.m} examples in dimension {diagnosis.dim}",
        "Why does a generator that knows a distribution by a handful of examples fall short, and what mends it?",
        verdicts,
        [to_do, *notes, *map(section_of, diagnosis.findings)],
        record,
    )


def write_diagnosis(diagnosis: Diagnosis, folder: Path, text: str, provenance: Mapping[str, str] | None = None) -> None:
    """Writes ``diagnosis.json`` and ``report.html``, each whole or not at all.

    Args:
        diagnosis: What was found.
        folder: Where to; made if it is absent.
        text: The content of diagnosis.json.
        provenance: As for :func:`diagnosis_report`.

    Raises:
        OSError: If the disk refuses it; nothing that was there is damaged.
    """
    page = render_report(diagnosis_report(diagnosis, provenance))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".diagnosis-", dir=folder) as workshop:
        for name, content in zip(FILES, (text + "\n", page), strict=True):
            (Path(workshop) / name).write_text(content, encoding="utf-8")
        for name in FILES:
            (Path(workshop) / name).replace(folder / name)
