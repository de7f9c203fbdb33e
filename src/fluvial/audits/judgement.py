"""The verdict of an audit, from stated rules, and the evidence for it.

The rules ask for what is certain at the sample sizes at hand: a share counts by the end of its interval that speaks
against the verdict. What no rule covers is unclear, and the sentence says what is missing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fluvial.audits.finding import Finding

COPIES = 0.01
"""Share of copies among the samples from which on a model memorises, at the lower end of its 95 % interval."""

NEAR = 0.8
"""Samples memorise where the mean distance to the training data is below this share of fresh data's."""

FRESH = (0.9, 1.25)
"""Mean distances to the training data, over those of fresh data, at which samples are as new as these."""

CLOSE, FAR = 2.0, 3.0
"""Fréchet distance to held-out data over that of real data in the samples' place: good up to here, bad from here."""

MISSED = 0.1
"""A model may be said to generalise only if, with 95 % confidence, it copies less than this share."""

RULES = (
    (
        "memorises",
        f"the alarm of the memorization finding rings, and either at least {COPIES:.0%} of the samples are copies "
        f"(lower end of the 95 % interval) or they are less than {NEAR:g} times as far from the training data as fresh "
        "data are (upper end)",
    ),
    (
        "underfits",
        f"samples are more than {FRESH[1]:g} times as far from the training data as fresh data are (lower end of the "
        f"95 % interval), or their Fréchet distance to held-out data is at least {FAR:g} times that of real data, "
        "and above it with 95 % confidence",
    ),
    (
        "generalises",
        f"there are held-out data; fewer than {MISSED:.0%} of the samples are copies (95 % upper bound); samples are "
        f"{FRESH[0]:g} to {FRESH[1]:g} times as far from the training data as fresh data are (some part of the 95 % "
        f"interval); and their Fréchet distance to held-out data is at most {CLOSE:g} times that of real data, or its "
        "95 % interval reaches that",
    ),
    ("unclear", "none of these"),
)
"""Each verdict with its rule, in the order in which they are tried."""


@dataclass(frozen=True)
class Evidence:
    """One answer that bears on the verdict, or helps to read it.

    Args:
        subject: The question.
        sentence: The answer.
        kind: ``"good"``, ``"bad"`` or ``"neutral"`` news.
    """

    subject: str
    sentence: str
    kind: str = "neutral"


@dataclass(frozen=True)
class Judgement:
    """What an audit amounts to.

    Args:
        verdict: ``"generalises"``, ``"memorises"``, ``"underfits"`` or ``"unclear"``.
        sentence: Why, in one sentence.
        evidence: The answers behind it.
    """

    verdict: str
    sentence: str
    evidence: tuple[Evidence, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``json.dump``."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "evidence": [asdict(piece) for piece in self.evidence],
            "rules": dict(RULES),
        }


def judge(findings: Mapping[str, Finding]) -> Judgement:
    """The verdict that findings amount to; those with a reservation are left out.

    Args:
        findings: By name, as :func:`fluvial.audit` makes them.

    Example:
        >>> judge({}).verdict
        'unclear'
    """
    sound = {name: found.data for name, found in findings.items() if not found.reservation and found.rows}
    copying, scores = sound.get("memorization"), sound.get("quality")
    quality = None if scores is None else _judged_scores(scores)
    evidence = [
        *([] if copying is None else _copying_evidence(copying)),
        *([] if quality is None else [_quality_evidence(*quality)]),
        *(Evidence(_QUESTIONS[name], findings[name].verdict) for name in _QUESTIONS if name in sound),
        *(
            Evidence(_OF_DATA[name], found.verdict)
            for name, found in findings.items()
            if name in _OF_DATA and found.rows
        ),
    ]
    verdict, sentence = _verdict(copying, None if quality is None else quality[1])
    return Judgement(verdict, sentence, tuple(evidence))


_QUESTIONS = {
    "hybrid": "From when in time on does it create?",
    "approximation": "Has it learned the exact field?",
}
_OF_DATA = {"collapse": "From when in time on could it copy?"}


def _verdict(copying: Mapping[str, Any] | None, scores: Mapping[str, Any] | None) -> tuple[str, str]:
    if copying is None:
        return "unclear", "Distances to the training data were not measured, without which nothing can be said."
    low, high = copying["ratio_interval"]
    ratio, rate = copying["ratio"], copying["copy_rate"]
    if copying["alarm"] and copying["copy_rate_interval"][0] >= COPIES:
        return "memorises", f"It copies: {copying['copies']} of {copying['samples']} samples ({rate:.1%}) are copies."
    if copying["alarm"] and high <= NEAR:
        return "memorises", f"Its samples are only {ratio:.2f} times as far from the training data as fresh data are."
    frechet = None if scores is None else scores["frechet_ratio"]
    if low >= FRESH[1]:
        return "underfits", f"Its samples are {ratio:.2f} times as far from the training data as fresh data are."
    if frechet is not None and frechet >= FAR and not _reaches_real_data(scores):
        return "underfits", f"Its Fréchet distance to held-out data is {frechet:.1f} times that of real data."
    doubts = _doubts(copying, scores, frechet)
    if doubts:
        return "unclear", "It neither copies nor misses the data plainly, but " + " and ".join(doubts) + "."
    return "generalises", (
        f"Its samples are new ({ratio:.2f} times as far from the training data as fresh data, {copying['copies']} "
        f"copies among {copying['samples']}) and good (Fréchet distance {frechet:.2f} times that of real data)."
    )


def _reaches_real_data(scores: Mapping[str, Any] | None) -> bool:
    """Whether the interval of the Fréchet distance reaches down to that of real data in the samples' place."""
    if scores is None:
        return False
    found = scores["scores"]
    return bool(found[scores["goal"]]["frechet_interval"][0] <= found["reference"]["frechet"])


def _doubts(copying: Mapping[str, Any], scores: Mapping[str, Any] | None, frechet: float | None) -> list[str]:
    """What stands between the model and the verdict that it generalises."""
    doubts = []
    if copying["held_out"] is None:
        doubts.append("there are no held-out data to compare with")
    if copying["copies"] and (copying["alarm"] or copying["copy_rate_interval"][0] >= COPIES):
        certainty = "beyond chance" if copying["alarm"] else "if not beyond chance"
        doubts.append(f"{copying['copies']} of {copying['samples']} samples look like copies, {certainty}")
    elif copying["copy_rate_upper"] >= MISSED:
        doubts.append(
            f"up to {copying['copy_rate_upper']:.0%} of its samples could be copies (95 % bound from "
            f"{copying['samples']} samples): draw more"
        )
    low, high = copying["ratio_interval"]
    if high < FRESH[0] or low > FRESH[1]:
        doubts.append(
            f"its samples are {copying['ratio']:.2f} times as far from the training data as fresh data, outside of "
            f"{FRESH[0]:g} to {FRESH[1]:g}"
        )
    if scores is None:
        doubts.append("its quality was not measured")
    elif frechet is None or scores["goal"] != "held_out":
        doubts.append("its quality could not be compared with that of held-out data")
    elif frechet > CLOSE and not _reaches_real_data(scores):
        doubts.append(f"its Fréchet distance to held-out data is {frechet:.1f} times that of real data")
    return doubts


def _copying_evidence(data: Mapping[str, Any]) -> list[Evidence]:
    low, high = data["copy_rate_interval"]
    if data["copies"]:
        most = data["most_copied"][0]
        sentence = (
            f"{data['copies']} of {data['samples']} samples are copies: {data['copy_rate']:.1%}, 95 % interval "
            f"{low:.1%} to {high:.1%}; training datum {most['train']} is copied most, {most['copies']} times."
        )
    else:
        sentence = (
            f"No copy among {data['samples']} samples: with 95 % confidence fewer than {data['copy_rate_upper']:.2%} "
            "of its samples are copies."
        )
    copied = "bad" if low >= COPIES else "neutral" if data["copies"] else "good"
    against = "held-out data" if data["held_out"] is not None else "the training data from each other"
    near, far = data["ratio_interval"]
    distance = (
        f"Samples are {data['ratio']:.2f} times as far from the training data as {against} (95 % interval "
        f"{near:.2f} to {far:.2f})."
    )
    kind = "bad" if far <= NEAR or near >= FRESH[1] else "good" if near <= FRESH[1] and far >= FRESH[0] else "neutral"
    return [
        Evidence("Which training data did it copy?", sentence, copied),
        Evidence("Are its samples new?", distance, kind),
    ]


def _judged_scores(data: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The extractor that the verdict rests on: the last that looks at more than raw values, else the raw values."""
    names = list(data["extractors"])
    deep = [name for name in names if name not in ("pixels", "raw values")]
    name = (deep or names)[-1]
    return name, data["extractors"][name]


def _quality_evidence(name: str, scores: Mapping[str, Any]) -> Evidence:
    ratio, goal = scores["frechet_ratio"], scores["scores"][scores["goal"]]
    what = "held-out data" if scores["goal"] == "held_out" else "training data"
    low, high = goal["frechet_interval"]
    times = "" if ratio is None else f", {ratio:.2f} times that of real data"
    parts = [f"Fréchet distance to {what} {goal['frechet']:.3g} (95 % interval {low:.3g} to {high:.3g}){times}"]
    if goal["precision"] is not None:
        parts.append(f"precision {goal['precision']:.2f}, recall {goal['recall']:.2f}")
    far = ratio is not None and ratio > CLOSE and not _reaches_real_data(scores)
    kind = "neutral" if ratio is None or (far and ratio < FAR) else "bad" if far else "good"
    return Evidence("How good is it?", f"In the features of {name}: {'; '.join(parts)}.", kind)
