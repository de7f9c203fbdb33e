"""The whole audit: which measurements are made of what there is, in which order, and what they amount to."""

import ctypes
import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fluvial.audits.finding import Finding
from fluvial.audits.judgement import Judgement, judge
from fluvial.audits.measurements import MEASURE
from fluvial.audits.subject import Budget, Subject
from fluvial.data import Dataset
from fluvial.fields.base import Field
from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.progress import Progress, ProgressCallback

MEASUREMENTS = tuple(MEASURE)
"""All measurements, in the order in which they are made."""

_Result = TypeVar("_Result")
_OF_SAMPLES = ("collapse", "memorization", "quality")
_NEED_FIELD = ("approximation", "hybrid")
_COST = {
    "sampling": 3,
    "collapse": 2,
    "stochasticity": 2,
    "approximation": 3,
    "hybrid": 6,
    "memorization": 2,
    "quality": 3,
}


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Args:
        judgement: The verdict, one sentence, and the evidence for it.
        findings: One per measurement, in the order in which they were made; what could not be measured says why.
        provenance: How it was made, as text by what it says.
    """

    judgement: Judgement
    findings: tuple[Finding, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """``"generalises"``, ``"memorises"``, ``"underfits"`` or ``"unclear"``."""
        return self.judgement.verdict

    def __getitem__(self, name: str) -> Finding:
        """The finding of a measurement."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no finding {name!r}; there are {', '.join(finding.name for finding in self.findings)}")

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain values for ``json.dump``."""
        return {
            **self.judgement.to_dict(),
            "provenance": dict(self.provenance),
            "findings": {finding.name: finding.to_dict() for finding in self.findings},
        }


@checked
def audit(
    field: Field | None,
    train: Dataset | Tensor,
    held_out: Dataset | Tensor | None = None,
    *,
    samples: Tensor | None = None,
    path: GaussianPath | None = None,
    exact: Field | None = None,
    conditional: bool = False,
    not_comparable: str = "",
    extractors: Sequence[str | Callable[[Tensor], Tensor]] = (),
    weights: Path | None = None,
    only: Iterable[str] = (),
    budget: Budget | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    provenance: Mapping[str, str] | None = None,
    progress: ProgressCallback | None = None,
) -> Audit:
    """Says whether a model has learned the distribution of its training data or the data themselves.

    Give a field, from which samples are then drawn, or samples alone, or both. What cannot be measured, for want of
    held-out data say, is reported as such; the rest is measured all the same.

    Args:
        field: The model: any callable ``field(x, t, cond) -> v`` from noise at t = 0 to data at t = 1; None audits
            the samples alone.
        train: The data it was trained on, all of them, shape (N, *D).
        held_out: Data of the same source that it was not trained on, shape (M, *D).
        samples: Its samples, shape (n, *D); by default ``budget.samples`` are drawn from the field.
        path: The path it was trained on; by default that of ``exact``, else :class:`~fluvial.paths.CondOT`.
        exact: The exact field of its training target; by default that of ``train`` on ``path``. Where training
            augmented the data, the exact field of the augmented data.
        conditional: Whether the field takes the labels of ``train`` as its condition.
        not_comparable: Why the exact field is not the field's target (a coupling, guidance); findings that hold the
            two against each other then stay out of the verdict.
        extractors: Features for the quality, by name or as callables; by default ``"pixels"`` and, with labels,
            ``"classifier"``.
        weights: File of the weights of an extractor that comes without (inception, dinov2).
        only: Names of the measurements to make; by default all that there is enough for.
        budget: How much to draw and to solve; ``Budget()`` by default, ``Budget.quick()`` for a first look.
        device: Where the field computes; data and noises are moved there.
        seed: Seed of every draw.
        provenance: What to record beside the figures: solver, weights, checkpoint.
        progress: Called throughout with the share of the whole that is done.

    Raises:
        TypeError: If data are neither data set nor tensor.
        ValueError: If there is neither field nor samples, a measurement is unknown, or data do not fit together.

    Example:
        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> found = fv.audit(None, x[:100], x[100:200], samples=x[:100], only=["memorization"])
        >>> found.verdict
        'memorises'
    """
    wanted = _wanted(tuple(only), field is not None)
    watch = _Watch(progress, [*(["sampling"] if samples is None else []), *wanted])
    subject = Subject.of(
        field,
        train,
        held_out,
        samples=samples,
        path=path,
        exact=exact,
        conditional=conditional,
        not_comparable=not_comparable,
        extractors=extractors,
        weights=weights,
        budget=budget or Budget(),
        device=device,
        seed=seed,
        provenance=dict(provenance or {}),
    )
    if samples is None:
        subject = watch.timed("sampling", subject.draw)
    findings: dict[str, Finding] = {}
    for name in wanted:
        started = time.monotonic()
        try:
            found = watch.timed(name, partial(MEASURE[name], subject, findings))
        except (ValueError, ImportError) as error:
            found = _not_measured(name, error)
        findings[name] = replace(found, seconds=round(time.monotonic() - started, 2))
        _return_memory()
    return Audit(judge(findings), tuple(findings.values()), subject.provenance)


def _wanted(only: tuple[str, ...], has_field: bool) -> tuple[str, ...]:
    for name in only:
        if not isinstance(name, str):
            raise TypeError(f"only must hold names of measurements, got {name!r}")
        if name not in MEASUREMENTS:
            close = difflib.get_close_matches(name, MEASUREMENTS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"only must name measurements ({', '.join(MEASUREMENTS)}), got {name!r}{hint}")
        if name in _NEED_FIELD and not has_field:
            raise ValueError(f"{name} needs a field: of samples alone {', '.join(_OF_SAMPLES)} can be measured")
    return tuple(name for name in MEASUREMENTS if name in (only or (MEASUREMENTS if has_field else _OF_SAMPLES)))


def _return_memory() -> None:
    """Gives freed memory back to the system, which glibc else keeps: half a gigabyte after 60,000 rows were sorted."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _not_measured(name: str, error: Exception) -> Finding:
    reason = " ".join(str(error).split())
    return Finding(
        name=name,
        title=f"{name.capitalize()}: not measured",
        verdict=f"This could not be measured: {reason}.",
        method="",
        source="",
        columns=(),
        rows=(),
        data={"measured": False},
        reservation="Not measured: it does not bear on the verdict.",
    )


class _Watch:
    """Turns the progress of parts into that of the whole; each part's share is what it usually costs."""

    def __init__(self, progress: ProgressCallback | None, parts: Sequence[str]) -> None:
        self._progress, self._done = progress, 0.0
        self._total = sum(_COST[part] for part in parts)

    def timed(self, part: str, work: Callable[[ProgressCallback], _Result]) -> _Result:
        """Does a part of the work, which reports to the callback it is given."""
        self._report(part, 0.0)
        result = work(lambda report: self._report(part, min(report.fraction, 1.0)))
        self._done += _COST[part]
        self._report(part, 0.0)
        return result

    def _report(self, part: str, fraction: float) -> None:
        if self._progress is not None:
            done = min(1.0, (self._done + fraction * _COST[part]) / self._total)
            self._progress(Progress("audit", round(1000 * done), 1000, part=part))
