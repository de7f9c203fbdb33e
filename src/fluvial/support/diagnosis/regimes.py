"""From the three findings to the regimes that a support is in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluvial.audits.finding import Finding
from fluvial.support.diagnosis.geometry_view import telling_gain
from fluvial.support.diagnosis.scarcity_view import falling
from fluvial.support.diagnosis.thresholds import COLLAPSED_SIZE, GEOMETRY_NATS, SCARCE_ERROR, SCARCE_RATE

REGIMES = ("collapsed", "geometry mismatch", "scarce")
"""What a support can be, any number of them at once."""


@dataclass(frozen=True)
class Recommendation:
    """One thing to do, and what was measured that speaks for it.

    Args:
        action: What to do.
        evidence: The figures behind it.
    """

    action: str
    evidence: str


@dataclass(frozen=True)
class Diagnosis:
    """Which regimes a support is in, why, and what to do.

    Args:
        name: The data.
        m: Support size.
        dim: Dimension of the points.
        tasks: Number of tasks that were drawn.
        seed: Seed of every draw.
        regimes: Some of ``REGIMES``, in their order; empty if none applies.
        recommendations: What to do, the most telling first.
        collapse: How many examples the kernel averages over.
        geometry: What other metrics gain.
        scarcity: How the error falls with the number of examples.
        notes: What a reader of the figures needs to know of the data.
    """

    name: str
    m: int
    dim: int
    tasks: int
    seed: int
    regimes: tuple[str, ...]
    recommendations: tuple[Recommendation, ...]
    collapse: Finding
    geometry: Finding
    scarcity: Finding
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The regimes in words, or ``"none of the three"``, and what so few tasks leave open."""
        *first, last = self.regimes or ("none of the three",)
        words = f"{', '.join(first)} and {last}" if first else last
        return words + (f"; undecided: {', '.join(self.undecided)} (more tasks decide)" if self.undecided else "")

    @property
    def undecided(self) -> tuple[str, ...]:
        """Regimes that do not apply, but whose threshold is inside of the interval over tasks."""
        size, geometry = self.collapse.data["open_size"], self.geometry.data
        gain, threshold = telling_gain(geometry)[1], GEOMETRY_NATS * geometry["dimension"]
        open_ = (size["low"] < COLLAPSED_SIZE, gain["low"] < threshold < gain["high"], False)
        return tuple(n for n, found in zip(REGIMES, open_, strict=True) if found and n not in self.regimes)

    @property
    def findings(self) -> tuple[Finding, Finding, Finding]:
        """The three findings."""
        return self.collapse, self.geometry, self.scarcity

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain values for ``json.dump``."""
        return {
            "data": self.name,
            "m": self.m,
            "dim": self.dim,
            "tasks": self.tasks,
            "seed": self.seed,
            "verdict": self.verdict,
            "regimes": list(self.regimes),
            "undecided": list(self.undecided),
            "reasons": dict(zip(REGIMES, reasons(self), strict=True)),
            "recommendations": [{"action": r.action, "evidence": r.evidence} for r in self.recommendations],
            "findings": {finding.name: finding.to_dict() for finding in self.findings},
            "notes": list(self.notes),
        }


def judge(collapse: Mapping[str, Any], geometry: Mapping[str, Any], scarcity: Mapping[str, Any]) -> tuple[str, ...]:
    """The regimes that the ``data`` of the three findings speak for."""
    found = (
        is_collapsed(collapse),
        telling_gain(geometry)[1]["low"] > GEOMETRY_NATS * geometry["dimension"],
        is_scarce(scarcity),
    )
    return tuple(name for name, applies in zip(REGIMES, found, strict=True) if applies)


def is_collapsed(collapse: Mapping[str, Any]) -> bool:
    """Whether the kernel averages over too few examples while a quarter of the variance is open."""
    return float(collapse["open_size"]["value"]) < COLLAPSED_SIZE


def is_scarce(scarcity: Mapping[str, Any]) -> bool:
    """Whether the error is large and falls fast enough with more examples."""
    rate = scarcity["rate_here"]["value"]  # None where it cannot be told
    return bool(scarcity["error_here"] > SCARCE_ERROR and rate is not None and rate > SCARCE_RATE)


def reasons(diagnosis: Diagnosis) -> tuple[str, str, str]:
    """One line for each regime: what was measured, and the threshold."""
    collapse, geometry, scarcity = (finding.data for finding in diagnosis.findings)
    size, rate, dim = collapse["open_size"], scarcity["rate_here"], geometry["dimension"]
    name, gain = telling_gain(geometry)
    at_least = "" if scarcity["known_truth"] else "at least "
    return (
        f"{size['value']:.2f} ({size['low']:.2f} to {size['high']:.2f}) of {diagnosis.m} examples are averaged over "
        f"where {100 * collapse['open_share']:g} % of the variance is open; collapsed below {COLLAPSED_SIZE:g}",
        f"{gain['value'] / dim:.3f} nats per dimension ({gain['low'] / dim:.3f} to {gain['high'] / dim:.3f}) are "
        f"gained by the {name} metric beyond that on Gaussian data; a mismatch where the lower end is "
        f"above {GEOMETRY_NATS:g}",
        f"the error is {at_least}{100 * scarcity['error_here']:.1f} % of the variance and falls {falling(rate)}; "
        f"scarce above {100 * SCARCE_ERROR:g} % and m^-{SCARCE_RATE:g}",
    )
