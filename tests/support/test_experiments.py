"""The plan of the experiments, and the tables made of their results."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from fluvial.support.experiments import GROUPS, plan_experiments
from fluvial.support.experiments.runner import is_of
from fluvial.support.experiments.tables import make_tables, scaling_exponent, sizes_at_paper_time


def evaluation(learned: list[float], plug_in: list[float], family: str = "shells", dim: int = 8) -> dict[str, Any]:
    tuned = [2 * value for value in plug_in]
    scores = {"learned": learned, "plug_in": plug_in, "tuned": tuned, "floor": [0.0] * len(learned)}
    return {
        "settings": {"family": family, "dim": dim},
        "tasks": {name: {"mmd2": values} for name, values in scores.items()},
        "notes": [],
    }


def result(name: str, group: str, evaluations: dict[str, Any], **config: Any) -> dict[str, Any]:
    values = {"tasks": "shells", "dim": 8, "steps": 1000, "heads": 4, **config}
    return {
        "name": name, "group": group, "paper": 11.2, "config": values, "seconds_training": 90.0,
        "evaluations": evaluations, "untrained": None,
    }  # fmt: skip


def test_every_comparison_of_the_document_is_planned() -> None:
    plan = plan_experiments(real=("digits", "fashion-mnist:efficientnet-lite0"))
    names = [experiment.name for experiment in plan]
    assert len(set(names)) == len(names)
    assert {experiment.group for experiment in plan} == set(GROUPS)
    for experiment in plan:
        experiment.config.check_values()
    assert [e.config.dim for e in plan if e.group == "mixtures" and not e.config.exact_head] == [2, 4, 8, 16]
    assert [e.config.heads for e in plan if e.group == "heads"] == [1, 2, 4, 8, 16]
    for experiment in plan:
        if experiment.group == "held-out":
            assert experiment.family not in experiment.config.tasks.split("+")
            assert len(experiment.config.tasks.split("+")) == 3


def test_unknown_comparisons_are_named() -> None:
    with pytest.raises(
        ValueError, match="comparisons must be some of shells, mixtures, real, heads, held-out, got 'x'"
    ):
        plan_experiments(["x"])


def test_effective_sizes_are_near_those_of_the_paper() -> None:
    found = {(row["family"], row["dim"]): row for row in sizes_at_paper_time(tasks=300)}
    assert found["gmm", 16]["value"] == pytest.approx(1.0, abs=0.1)
    assert found["shells", 8]["value"] == pytest.approx(6.5, rel=0.15)
    assert found["shells", 32]["value"] == pytest.approx(8.0, rel=0.15)
    assert found["gmm", 2]["value"] > found["gmm", 4]["value"] > found["gmm", 8]["value"] > 1


def test_ratios_stand_beside_those_of_the_paper() -> None:
    found = evaluation([0.001, 0.003], [0.01, 0.03])
    found["notes"] = ["few targets"]
    (table,) = make_tables([result("shells-8", "shells", {"50": found})], [])
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    # Every task has the same ratio, so that resampling changes nothing.
    assert cells["plug-in / learned"] == "10 [10, 10]" and cells["tuned / learned"] == "20 [20, 20]"
    assert cells["paper"] == "11.2"
    assert "plug-in / untrained" not in table.columns  # nothing to show
    assert table.markdown().splitlines()[4].startswith("| shells | 8 | 1,000 |")
    assert table.note.endswith("Note: few targets.")


def test_ratios_without_bounds_are_told() -> None:
    """Unbiased squared MMDs may have a mean that is not positive; the tables must come out all the same."""
    for learned, text in (([-1e-4, 1e-4, -5e-5], "inf ["), ([-1e-4, 3e-4, 1e-5], ", inf]")):
        found = evaluation(learned, [0.008, 0.007, 0.009])
        rows = [
            result("shells-8", "shells", {"50": found}),
            result("without-rings", "held-out", {"50": found}, tasks="gmm+moons"),
            result("gmm-2", "mixtures", {"50": found}, dim=2),
            result("gmm-2-exact", "mixtures", {"50": found}, dim=2),
        ]
        tables = make_tables(rows, [])
        assert len(tables) == 3 and any(text in cell for cell in tables[0].rows[0])


def test_benefit_of_the_exact_head_is_paired_by_task() -> None:
    off, on = [0.02, 0.04, 0.06], [0.01, 0.02, 0.03]
    rows = [
        result("gmm-2", "mixtures", {"50": evaluation(off, off, "gmm", 2)}, dim=2),
        result("gmm-2-exact", "mixtures", {"50": evaluation(on, off, "gmm", 2)}, dim=2),
    ]
    (table,) = make_tables(rows, [])
    # Every task gains the same half, so that resampling changes nothing.
    assert dict(zip(table.columns, table.rows[0], strict=True))["benefit of the head"] == "50 % [50, 50]"


def test_held_out_families_have_the_inverse_ratio() -> None:
    found = evaluation([0.04, 0.08], [0.01, 0.02], "rings", 2)
    (table,) = make_tables([result("without-rings", "held-out", {"50": found}, tasks="gmm+moons+spirals")], [])
    assert table.rows[0][-2:] == ("4", "4 to 4")


def test_scaling_exponents_are_those_of_power_laws() -> None:
    sizes = [5, 20, 80]
    tasks = np.random.default_rng(0).uniform(0.5, 1.5, size=40)
    for exponent in (0.3, 0.5):
        per_task = np.array([[task * m ** (-2 * exponent) for task in tasks] for m in sizes])
        found = scaling_exponent(sizes, per_task)
        assert (found.value, found.low, found.high) == pytest.approx((exponent,) * 3, abs=1e-9)
    noisy = np.array([0.1 / m + 0.01 / m * np.random.default_rng(m).normal(size=60) for m in sizes])
    found = scaling_exponent(sizes, noisy)
    assert found.low < 0.5 < found.high and abs(found.value - 0.5) < 0.05


def test_means_that_are_not_positive_leave_the_exponent_open() -> None:
    """Leaving such sizes out would flatter the fit: the reference's defect."""
    found = scaling_exponent([5, 50], np.array([[0.1, 0.1], [-0.1, -0.1]]))
    assert math.isnan(found.value) and (found.low, found.high) == (-math.inf, math.inf)


def test_results_of_other_settings_are_not_reused() -> None:
    experiment = plan_experiments(["shells"])[0]
    config = {**dataclasses.asdict(experiment.config), "steps": 7}
    done = {"config": config, "evaluations": {"50": {"settings": {"tasks": 10}}}}
    assert is_of(done, experiment, tasks=10)
    assert not is_of(done, experiment, tasks=20)
    assert not is_of({**done, "config": {**config, "width": 16}}, experiment, tasks=10)


def test_real_families_from_files_have_folders_of_their_own() -> None:
    plan = plan_experiments(["real"], ["/data/a/features.npz", "../b/features.npz", "fashion-mnist:dinov2"])
    assert [experiment.name for experiment in plan] == ["features-0", "features-1", "fashion-mnist-dinov2"]


def test_heads_are_compared_at_every_size() -> None:
    sizes = {str(m): evaluation([0.1 / m] * 3, [0.2 / m] * 3) for m in (10, 100)}
    rows = [result(f"heads-{n}", "heads", copy.deepcopy(sizes), heads=n) for n in (1, 2)]
    (table,) = make_tables(rows, [])
    assert [row[0] for row in table.rows] == ["1", "2", "plug-in"]
    assert table.rows[0][-1] == "0.5 [0.5, 0.5]" and table.rows[2][2] == "0.0200"
