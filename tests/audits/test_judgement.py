"""The verdict's rules, one by one, from made-up figures."""

from typing import Any

import pytest

from fluvial.audits.finding import Finding
from fluvial.audits.judgement import RULES, judge


def finding(name: str, data: dict[str, Any], reservation: str = "") -> Finding:
    return Finding(
        name=name,
        title=name,
        verdict=f"The answer of {name}.",
        method="m",
        source="s",
        columns=("a",),
        rows=((1,),),
        data=data,
        reservation=reservation,
    )


def memorization(**changes: Any) -> Finding:
    good = {
        "alarm": False,
        "copies": 0,
        "samples": 1000,
        "copy_rate": 0.0,
        "copy_rate_interval": [0.0, 0.004],
        "copy_rate_upper": 0.003,
        "ratio": 1.0,
        "ratio_interval": [0.97, 1.03],
        "held_out": 500,
        "most_copied": [],
    }
    return finding("memorization", {**good, **changes})


def quality(ratio: float | None = 1.2, goal: str = "held_out", low: float = 0.9, **others: float) -> Finding:
    """Fréchet distances of ``ratio``, with an interval from ``low`` times that on, where real data have 1."""

    def scores(ratio: float | None) -> dict[str, Any]:
        value = 2.0 if ratio is None else ratio
        interval = [low * value, (2 - low) * value]
        score = {"frechet": value, "frechet_interval": interval, "precision": 0.8, "recall": 0.7}
        return {"frechet_ratio": ratio, "goal": goal, "scores": {goal: score, "reference": {"frechet": 1.0}}}

    return finding(
        "quality", {"extractors": {**{k: scores(v) for k, v in others.items()}, "classifier": scores(ratio)}}
    )


def verdict(*findings: Finding) -> tuple[str, str]:
    judged = judge({found.name: found for found in findings})
    return judged.verdict, judged.sentence


COPIES = {"copies": 50, "copy_rate": 0.05, "copy_rate_upper": 0.063, "most_copied": [{"train": 7, "copies": 3}]}


@pytest.mark.parametrize(
    ("changes", "ratio", "expected"),
    [
        ({}, 1.2, "generalises"),
        ({**COPIES, "copy_rate_interval": [0.037, 0.065], "alarm": True}, 1.2, "memorises"),
        ({**COPIES, "copy_rate_interval": [0.009, 0.065], "alarm": True}, 1.2, "unclear"),
        ({"ratio": 0.5, "ratio_interval": [0.45, 0.55], "alarm": True}, 1.2, "memorises"),
        ({"ratio": 0.79, "ratio_interval": [0.7, 0.9], "alarm": True}, 1.2, "generalises"),
        ({"ratio": 0.85, "ratio_interval": [0.82, 0.88], "alarm": True}, 1.2, "unclear"),
        ({"ratio": 2.0, "ratio_interval": [1.9, 2.1]}, 1.2, "underfits"),
        ({"ratio": 1.3, "ratio_interval": [1.2, 1.4]}, 1.2, "generalises"),
        ({}, 3.0, "underfits"),
        ({}, 2.5, "unclear"),
        ({}, 2.0, "generalises"),
        ({}, None, "unclear"),
        ({"held_out": None}, 1.2, "unclear"),
        ({"copy_rate_upper": 0.11}, 1.2, "unclear"),
        # what is certain of copies comes before what is certain of quality
        ({"ratio": 0.1, "ratio_interval": [0.08, 0.12], "alarm": True}, 30.0, "memorises"),
    ],
)
def test_rules(changes: dict[str, Any], ratio: float | None, expected: str) -> None:
    found, sentence = verdict(memorization(**changes), quality(ratio))
    assert found == expected, sentence
    assert found in dict(RULES)


def test_it_rests_on_features_that_look_at_more_than_raw_values() -> None:
    assert verdict(memorization(), quality(1.2, pixels=30.0))[0] == "generalises"
    assert verdict(memorization(), quality(30.0, pixels=1.0))[0] == "underfits"


def test_a_distance_that_cannot_be_told_from_real_data_is_held_against_nobody() -> None:
    assert verdict(memorization(), quality(2.5, low=0.3))[0] == "generalises"
    assert verdict(memorization(), quality(3.5, low=0.2))[0] == "generalises"
    assert verdict(memorization(), quality(2.5, low=0.5))[0] == "unclear"
    assert verdict(memorization(), quality(3.5, low=0.5))[0] == "underfits"


def test_what_is_missing_is_said() -> None:
    assert verdict(memorization())[1].endswith("its quality was not measured.")
    assert verdict(quality())[0] == "unclear" and "not measured" in verdict(quality())[1]
    assert "no held-out data" in verdict(memorization(held_out=None), quality(goal="train"))[1]


def test_findings_with_a_reservation_do_not_count() -> None:
    reserved = finding("quality", quality(30.0).data, "not comparable")
    assert verdict(memorization(), reserved)[0] == "unclear"
    judged = judge({"hybrid": finding("hybrid", {}, "not comparable"), "approximation": finding("approximation", {})})
    assert [piece.sentence for piece in judged.evidence] == ["The answer of approximation."]


def test_evidence_names_what_was_copied_most() -> None:
    judged = judge({"memorization": memorization(**COPIES, copy_rate_interval=[0.037, 0.065], alarm=True)})
    assert "training datum 7 is copied most, 3 times" in judged.evidence[0].sentence
    assert judged.evidence[0].kind == "bad" and judged.to_dict()["rules"]["unclear"] == "none of these"


def test_a_few_copies_without_proof_are_no_good_news() -> None:
    few = memorization(**{**COPIES, "copies": 4}, copy_rate_interval=[0.001, 0.01])
    assert judge({"memorization": few}).evidence[0].kind == "neutral"
