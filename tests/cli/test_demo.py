"""The demo, shortened: every file, a report that needs no network, and a second run that replaces the first."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from fluvial.cli.demo_measure import Score, Scores, SpaceScore, judge

FILES = ["report.html", "samples.png", "loss.png", "nearest.png", "gap.png", "metrics.json"]
SHORT = ["--steps", 30, "--samples", 64]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    from fluvial.cli import main

    out = tmp_path_factory.mktemp("demo") / "demo"
    assert main(["demo", *map(str, SHORT), "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_files(demo):
    assert all((demo / name).stat().st_size > 1000 for name in FILES)
    values = json.loads((demo / "metrics.json").read_text())
    assert values["complete"] and values["classifier_accuracy"] >= 0.96
    assert set(values["scores"]) == {"training digits", "CFM", "EFM", "exact field", "CFM + noise 0.1"}
    assert values["scores"]["exact field"]["pixels"]["neighbour_ratio"] < 1e-3
    assert values["scores"]["training digits"]["frechet_over_reference"] == 1
    noisy, plain = values["scores"]["CFM + noise 0.1"], values["scores"]["CFM"]
    assert noisy["pixels"]["frechet"] > plain["pixels"]["frechet"]
    assert len(values["gap"]["CFM"]["data"]["t"]) == len(values["gap"]["EFM"]["data"]["train"]["gap"])


@pytest.mark.slow
def test_report_needs_nothing_else(demo):
    page = (demo / "report.html").read_text()
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert "://" not in text and "<script" not in text and "<link" not in text
    assert text.count("<img") == 4 and text.index('class="verdicts"') < text.index("<table")
    HTMLParser().feed(page)


@pytest.mark.slow
def test_runs_are_ordinary_runs(fluvial, demo, tmp_path):
    for name in ("cfm", "efm"):
        assert fluvial("sample", demo / name, "--n", 4, "--steps", 2, "--out", tmp_path / f"{name}.png").status == 0


@pytest.mark.slow
def test_second_demo_replaces_the_first(fluvial, demo):
    outcome = fluvial("demo", "--steps", 2, "--samples", 16, "--out", demo)
    assert outcome.status == 0 and "exact field" in outcome.out and "report.html" in outcome.out
    assert json.loads((demo / "metrics.json").read_text())["steps"] == 2


def test_foreign_folder_is_refused(fluvial, tmp_path):
    (tmp_path / "metrics.json").write_text('{"mine": 1}')
    assert "not of a demo" in fluvial("demo", "--out", tmp_path).error
    assert (tmp_path / "metrics.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("options", [["--steps", 0], ["--samples", 3], ["--seed", -1]])
def test_bad_values(fluvial, tmp_path, options):
    assert options[0] in fluvial("demo", "--out", tmp_path / "demo", *options).error
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("ratio", "frechet", "word", "kind"),
    [
        (0.0, 1.2, "copies", "bad"),
        (0.7, 1.2, "leans on the training digits", "neutral"),
        (1.0, 1.2, "makes new digits", "good"),
        (1.0, 1.9, "not learned", "neutral"),
        (1.3, 1.2, "not learned", "neutral"),
    ],
)
def test_verdicts(ratio, frechet, word, kind):
    rows = {
        name: Score(SpaceScore(distance, 0.0, 1.0), SpaceScore(1.0, 0.0, own))
        for name, distance, own in (("training digits", 1.0, 1.0), ("net", frechet, ratio))
    }
    sentence, judged = judge(Scores(0.98, rows), "net")
    assert word in sentence and judged == kind


def test_noise_of_the_control_is_independent_of_the_samples():
    from fluvial.cli.demo_run import _noisy
    from fluvial.randomness import noise

    x = torch.zeros(500, 1, 8, 8)
    added = _noisy(x, seed=0).flatten().numpy()
    own = noise(0, 0, 500, (1, 8, 8)).flatten().numpy()
    assert added.std() == pytest.approx(0.1, rel=0.02)
    assert abs(np.corrcoef(added, own)[0, 1]) < 0.02
