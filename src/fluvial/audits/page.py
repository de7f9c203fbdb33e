"""The report of an audit: the verdict and its evidence first, then each finding."""

import tempfile
from pathlib import Path

from fluvial.audits.judgement import RULES
from fluvial.audits.report import Report, Section, Table, Verdict, render_report, section_of
from fluvial.audits.runner import Audit

_KINDS = {"generalises": "good", "memorises": "bad", "underfits": "bad", "unclear": "neutral"}


def audit_report(audit: Audit, title: str = "Audit") -> Report:
    """The page of an audit.

    Args:
        audit: What was found.
        title: The heading of the page.

    Example:
        >>> x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
        >>> found = fv.audit(None, x[:30], x[30:], samples=x[:30], only=["memorization"])
        >>> audit_report(found).verdicts[0].subject
        'memorises'
    """
    judgement = audit.judgement
    verdicts = [Verdict(judgement.verdict, judgement.sentence, _KINDS[judgement.verdict], chief=True)]
    verdicts += [Verdict(piece.subject, piece.sentence, piece.kind) for piece in judgement.evidence]
    measured = [finding for finding in audit.findings if finding.rows]
    skipped = [finding for finding in audit.findings if not finding.rows]
    sections = [_overview(audit), *map(section_of, measured), _rules()]
    if skipped:
        rows = tuple((finding.name, finding.verdict) for finding in skipped)
        sections.insert(-1, Section("Not measured", table=Table(("measurement", "why"), rows, prose=True)))
    took = sum(finding.seconds for finding in audit.findings)
    lead = "Has the model learned the distribution of its training data, or the data themselves?"
    provenance = {**audit.provenance, "measuring took": f"{took:.0f} s"}
    return Report(title, lead, verdicts, sections, provenance)


def _overview(audit: Audit) -> Section:
    rows = tuple((finding.name, finding.verdict) for finding in audit.findings)
    note = "Those with a reservation, stated in their sections, do not bear on the verdict."
    reserved = any(finding.reservation for finding in audit.findings)
    table = Table(("measurement", "answer"), rows, note if reserved else "", prose=True)
    return Section("In one sentence each", table=table)


def _rules() -> Section:
    note = "The first rule that applies gives the verdict; the evidence above has the figures."
    return Section("How the verdict is reached", table=Table(("verdict", "rule"), RULES, note, prose=True))


def write_audit(audit: Audit, folder: Path, text: str, *, title: str = "Audit") -> None:
    """Writes ``audit.json`` and ``report.html``, each whole or not at all.

    Args:
        audit: What was found.
        folder: Where to; made if it is absent.
        text: The content of audit.json.
        title: The heading of the page.

    Raises:
        OSError: If the disk refuses it; nothing that was there is damaged.
    """
    page = render_report(audit_report(audit, title))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".audit-", dir=folder) as workshop:
        for name, content in {"audit.json": text + "\n", "report.html": page}.items():
            (Path(workshop) / name).write_text(content, encoding="utf-8")
        for name in ("audit.json", "report.html"):
            (Path(workshop) / name).replace(folder / name)
