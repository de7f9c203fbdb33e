"""The demo at full length over three seeds: what its scores must say. Four minutes of one core each."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SEEDS = (0, 1, 2)
NOISY = "CFM + noise 0.1"
JUMPS = ("Mean Flow, 1 step", "Mean Flow, 2 steps")


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found = []
    for seed in SEEDS:
        out: Path = tmp_path_factory.mktemp("demo") / "demo"
        command = [sys.executable, "-m", "fluvial", "demo", "--seed", str(seed), "--out", str(out)]
        # One thread: with more, each waits for the others as long as other tests run beside it.
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found.append(json.loads((out / "metrics.json").read_text()))
    return found


def scores(demos: list[dict[str, Any]], name: str, space: str, score: str) -> list[float]:
    return [demo["scores"][name][space][score] for demo in demos]


@pytest.mark.slow
def test_models_generalise_and_the_exact_field_copies(demos: list[dict[str, Any]]) -> None:
    assert all(demo["classifier_accuracy"] >= 0.96 for demo in demos)
    reference = scores(demos, "training digits", "features", "frechet")
    cfm, efm = (scores(demos, name, "features", "frechet") for name in ("CFM", "EFM"))
    assert statistics.median(a / b for a, b in zip(cfm, reference, strict=True)) <= 1.7
    assert abs(statistics.mean(efm) / statistics.mean(cfm) - 1) <= 0.10
    for name in ("CFM", "EFM"):
        assert all(0.85 <= ratio <= 1.15 for ratio in scores(demos, name, "pixels", "neighbour_ratio"))
    assert all(ratio < 1e-3 for ratio in scores(demos, "exact field", "pixels", "neighbour_ratio"))


@pytest.mark.slow
def test_mean_flows_make_new_digits_in_one_step_and_cleaner_ones_in_two(demos: list[dict[str, Any]]) -> None:
    assert all([demo["scores"][name]["evaluations"] for name in JUMPS] == [1, 2] for demo in demos)
    cfm = scores(demos, "CFM", "features", "frechet")
    for name in JUMPS:
        jumps = scores(demos, name, "features", "frechet")
        assert statistics.median(a / b for a, b in zip(jumps, cfm, strict=True)) <= 1.3
        assert all(0.85 <= ratio <= 1.25 for ratio in scores(demos, name, "pixels", "neighbour_ratio"))
    for score in ("frechet", "neighbour_ratio"):  # in the classifier's features the two do not differ reliably
        one, two = (scores(demos, name, "pixels", score) for name in JUMPS)
        assert all(b < a for a, b in zip(one, two, strict=True)), score


@pytest.mark.slow
def test_noise_makes_samples_worse(demos: list[dict[str, Any]]) -> None:
    for space, score in (("pixels", "frechet"), ("pixels", "neighbour_ratio"), ("features", "neighbour_ratio")):
        pairs = zip(scores(demos, "CFM", space, score), scores(demos, NOISY, space, score), strict=True)
        assert all(noisy > clean for clean, noisy in pairs), (space, score)


@pytest.mark.slow
def test_the_gap_opens_late_and_wider_on_held_out_digits(demos: list[dict[str, Any]]) -> None:
    for demo in demos:
        for name in ("CFM", "EFM", "Mean Flow"):
            data = demo["gap"][name]["data"]
            late = [k for k, t in enumerate(data["t"]) if t >= 0.8]
            early = [k for k, t in enumerate(data["t"]) if t <= 0.3]
            train, held_out = data["train"]["gap"], data["held_out"]["gap"]
            assert all(held_out[k] > train[k] for k in late)
            assert max(train[k] for k in early) < min(train[k] for k in late)
