"""The diagnosis as a whole: what it takes, what it refuses, which regimes it names and what it says of them."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fluvial.progress import Progress
from fluvial.randomness import generator
from fluvial.support.diagnosis import REGIMES, diagnose
from fluvial.support.diagnosis.diagnosing import TASKS
from fluvial.support.diagnosis.pages import diagnosis_report, write_diagnosis
from fluvial.support.diagnosis.reading import read_tasks
from fluvial.support.diagnosis.recommending import recommend
from fluvial.support.diagnosis.regimes import judge
from fluvial.support.diagnosis.rows import ClassRows
from fluvial.support.diagnosis.thresholds import COLLAPSED_SIZE, GEOMETRY_NATS, SCARCE_ERROR, SCARCE_RATE
from fluvial.support.tasks import GaussianMixtures, Moons, Shells


def normal(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=generator(seed))


def around(value: float, width: float = 0.0) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def figures(size: float, whole: float, excess: float, error: float, rate: float) -> tuple[dict[str, Any], ...]:
    gain = {"Mahalanobis": around(4 * whole), "local": around(4 * excess + 0.3)}
    return (
        {"open_size": around(size)},
        {"dimension": 4, "gain": gain, "whole_excess": around(4 * whole), "excess": around(4 * excess)},
        {"error_here": error, "rate_here": around(rate)},
    )


@pytest.mark.parametrize(
    ("measured", "regimes"),
    [
        ((COLLAPSED_SIZE, GEOMETRY_NATS, 0.0, SCARCE_ERROR, 1.0), ()),
        ((COLLAPSED_SIZE - 1e-6, 0.0, 0.0, 1.0, SCARCE_RATE), ("collapsed",)),
        ((9.0, GEOMETRY_NATS + 1e-6, 0.0, 0.0, 1.0), ("geometry mismatch",)),
        ((9.0, -1.0, GEOMETRY_NATS + 1e-6, 0.0, 1.0), ("geometry mismatch",)),
        ((9.0, 0.0, 0.0, SCARCE_ERROR + 1e-6, SCARCE_RATE + 1e-6), ("scarce",)),
        ((1.0, 1.0, 0.0, 1.0, 1.0), REGIMES),
    ],
)
def test_thresholds_decide(measured: tuple[float, ...], regimes: tuple[str, ...]) -> None:
    assert judge(*figures(*measured)) == regimes


def test_a_wide_interval_is_no_mismatch() -> None:
    collapse, geometry, scarcity = figures(9.0, 2 * GEOMETRY_NATS, 0.0, 0.0, 0.0)
    geometry["whole_excess"] = around(8 * GEOMETRY_NATS, 5 * GEOMETRY_NATS)
    assert judge(collapse, geometry, scarcity) == ()


def test_the_plane_needs_nothing() -> None:
    found = diagnose(GaussianMixtures(2), 50, tasks=3)
    assert found.regimes == () and found.verdict == "none of the three"
    assert len(found.recommendations) == 1 and "no training is needed" in found.recommendations[0].action
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(values["findings"]) == ["collapse", "geometry", "scarcity"]
    assert values["findings"]["scarcity"]["data"]["sizes"] == [5, 10, 25, 50, 100, 200, 400]
    assert set(values["reasons"]) == set(REGIMES)


@pytest.mark.slow
def test_gaussians_in_many_dimensions_are_collapsed() -> None:
    found = diagnose(normal(1500, 16), 50, tasks=2)
    assert found.regimes == ("collapsed",)
    actions = " ".join(item.action for item in found.recommendations)
    assert "rank=" in actions and "before t = 0." in actions
    assert "at least 3 classes" in actions and "support train" not in actions
    assert found.notes[0].startswith("The 2 tasks are draws from one class")


@pytest.mark.slow
def test_few_examples_in_the_plane_are_scarce() -> None:
    found = diagnose(GaussianMixtures(2), 5, tasks=8)
    assert found.regimes == ("scarce",)
    assert "10 would take" in found.recommendations[0].action
    assert "fluvial support train --tasks gmm --dim 2 --m 5 --out RUN" in found.recommendations[-1].action


@pytest.mark.slow
def test_the_papers_regimes() -> None:
    """Mixtures in 16 dimensions collapse; shells in 8 have another geometry, which one metric does not mend."""
    assert diagnose(GaussianMixtures(16), 50, tasks=24).regimes == ("collapsed",)
    found = diagnose(Shells(8), 50, tasks=24)
    assert found.regimes == ("geometry mismatch",)
    assert found.recommendations[0].action.startswith("Do not whiten")
    assert "--tasks shells --dim 8 --m 50" in found.recommendations[1].action


def test_the_same_seed_gives_the_same_figures_and_progress_is_told() -> None:
    seen: list[Progress] = []
    one, two = (diagnose(Moons(), 4, tasks=2, seed=5, progress=report) for report in (seen.append, None))
    for a, b in zip(one.findings, two.findings, strict=True):
        assert a.data == b.data
    assert diagnose(Moons(), 4, tasks=2, seed=6).collapse.data != one.collapse.data
    for task in ("collapse", "geometry", "scarcity"):
        steps = [report for report in seen if report.task == task]
        assert [report.step for report in steps] == list(range(1, steps[-1].total + 1))


def test_labels_make_tasks_of_classes_and_repeats_are_left_out() -> None:
    features = torch.cat([normal(30, 2, seed) + 5 * seed for seed in range(3)])
    labels = ["a"] * 30 + ["b"] * 30 + ["c"] * 30
    rows = ClassRows(torch.cat([features, features[:20]]), [*labels, *labels[:20]], m=10)
    assert (rows.classes, rows.duplicates, rows.rows, rows.most_targets(10)) == (3, 20, 110, 20)
    drawn = rows.batch(7, 10, 20, generator(0))
    assert drawn.truth is None
    together = torch.cat([drawn.support, drawn.targets], 1)
    for points in together:
        assert len(torch.unique(points, dim=0)) == 30
        assert len({round(float(x) / 5) for x in points.mean(0)}) == 1
    found = diagnose(torch.cat([features, features[:20]]), 10, labels=[*labels, *labels[:20]], tasks=3)
    assert "20 of 110 rows repeat another of their class" in found.notes[0]


def test_a_few_members_are_enough_for_two_supports_that_are_smaller() -> None:
    found = diagnose(normal(60, 2), 50, tasks=3)
    assert max(found.scarcity.data["sizes"]) < 50
    assert any("too few data for two disjoint supports of 50" in note for note in found.scarcity.notes)
    assert not found.scarcity.data["known_truth"] and "at least" in found.scarcity.verdict


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"m": 0}, "m must be an integer of at least 2, got 0"),
        ({"tasks": 1}, "tasks must be an integer of at least 2, got 1"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"m": 95}, "data has 100 members, a diagnosis with m = 95 needs at least 103"),
        ({"labels": torch.arange(100)}, "label 0: all 1 rows are equal"),
        ({"labels": [0] * 60 + [1] * 40, "m": 50}, "label 1 has 40 members, a diagnosis with m = 50 needs at least 58"),
        ({"labels": [0]}, "labels must have shape"),
        ({"data": torch.full((100, 2), torch.nan)}, "features must be finite"),
        ({"data": torch.ones(100, 2)}, "features must differ from one another, got 100 equal rows"),
        ({"data": torch.ones(100)}, "features must have shape"),
        ({"data": Moons(), "labels": [0]}, "labels cannot be given with a family"),
    ],
)
def test_bad_input_is_one_clear_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(**{"data": normal(100, 2), **given})


def test_features_that_are_no_numbers() -> None:
    with pytest.raises(TypeError, match="features must be real numbers"):
        diagnose(np.array([["a"], ["b"]]))


def test_names_are_read(tmp_path) -> None:
    assert read_tasks("shells", 3).name == "shells"
    digits = read_tasks("digits", 4, m=20)
    assert (digits.name, digits.dim, digits.classes) == ("digits", 4, 10)
    path = tmp_path / "x.npz"
    np.savez(path, features=normal(80, 3).numpy())
    assert (read_tasks(str(path), m=20).dim, read_tasks(str(path), 2, m=20).dim) == (3, 2)
    np.savez(path, x=normal(80, 3).numpy())
    with pytest.raises(ValueError, match="must have the key 'features', and 'labels' if there are any, got 'x'"):
        read_tasks(str(path))


def test_no_projection_is_recommended_where_none_helps() -> None:
    nested = [{"dimension": k, "open_size": around(1.5), "variance": 1.0} for k in (1, 2)]
    time = {"time": around(0.5), "late_time": around(0.6), "open_share": 0.25, "open_size": around(1.5)}
    scarcity = {"error_here": 0.3, "known_truth": True, "rate_here": around(0.1), "m": 4}
    first, *_ = recommend(("collapsed",), {"nested": nested, **time}, {}, scarcity, None)
    assert first.action.startswith("Fewer dimensions do not help")


@pytest.mark.slow
def test_the_page_has_three_figures_and_needs_no_network(tmp_path) -> None:
    found = diagnose(Moons(), 4, tasks=2)
    report = diagnosis_report(found, {"command": "x"})
    assert [section.title.split(":")[0] for section in report.sections] == [
        "What to do",
        "Collapse",
        "Geometry",
        "Scarcity",
    ]
    write_diagnosis(found, tmp_path / "a", "{}")
    page = (tmp_path / "a" / "report.html").read_text()
    assert page.count("<figure") == 3 and "://" not in page and (tmp_path / "a" / "diagnosis.json").is_file()
    assert TASKS == 40


def test_a_large_error_is_never_called_good_enough() -> None:
    """No regime fires on so few tasks, and still half of the variance is missing."""
    found = diagnose(Shells(8), 10, tasks=4)
    assert found.scarcity.data["error_here"] > 0.3
    assert not any("no training is needed" in item.action for item in found.recommendations)
    assert "none of the three" not in found.verdict or "undecided" in found.verdict
