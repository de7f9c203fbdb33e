"""The demo, shortened: every file, a report that needs no network, and a second run that replaces the first."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from fluvial.cli.demo import RUNS, Demo, _replace
from fluvial.cli.demo_figures import draw_losses
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
    jumps = {"Mean Flow, 1 step": 1, "Mean Flow, 2 steps": 2}
    evaluations = {name: score["evaluations"] for name, score in values["scores"].items()}
    exact = evaluations.pop("exact field")
    assert evaluations == {"training digits": None, "CFM": 50, "EFM": 50, "CFM + noise 0.1": 50, **jumps}
    assert exact in (49, 50)  # its last step is one of Euler's
    assert values["runs"] == {"cfm": 30, "efm": 30, "meanflow": 45}
    assert values["scores"]["exact field"]["pixels"]["neighbour_ratio"] < 1e-3
    assert values["scores"]["training digits"]["frechet_over_reference"] == 1
    noisy, plain = values["scores"]["CFM + noise 0.1"], values["scores"]["CFM"]
    assert noisy["pixels"]["frechet"] > plain["pixels"]["frechet"]
    assert set(values["gap"]) == {"CFM", "EFM", "Mean Flow"}
    assert all(len(gap["data"]["train"]["gap"]) == len(gap["data"]["t"]) for gap in values["gap"].values())


@pytest.mark.slow
def test_report_needs_nothing_else(demo):
    page = (demo / "report.html").read_text()
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert "://" not in text and "<script" not in text and "<link" not in text
    assert text.count("<img") == 4 and text.index('class="verdicts"') < text.index("<table")
    HTMLParser().feed(page)


@pytest.mark.slow
def test_runs_are_ordinary_runs(fluvial, demo, tmp_path):
    for name in RUNS:
        assert fluvial("sample", demo / name, "--n", 4, "--steps", 2, "--out", tmp_path / f"{name}.png").status == 0
    jump = ("--solver", "meanflow", "--steps", 1, "--n", 4, "--out", tmp_path / "jumps.png")
    assert fluvial("sample", demo / "meanflow", *jump).status == 0


def _content(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_second_demo_replaces_the_first(fluvial, demo):
    (demo / "notes.md").write_text("mine")
    outcome = fluvial("demo", "--steps", 2, "--samples", 16, "--out", demo)
    assert outcome.status == 0 and "exact field" in outcome.out and "report.html" in outcome.out
    assert json.loads((demo / "metrics.json").read_text())["steps"] == 2
    assert (demo / "notes.md").read_text() == "mine" and (demo / "report.html").stat().st_size > 1000
    assert [child.name for child in demo.parent.iterdir()] == ["demo"]


def _earlier_demo(folder):
    (folder / "cfm" / "samples").mkdir(parents=True)
    (folder / "cfm" / "samples" / "x.png").write_text("old")
    (folder / "metrics.json").write_text('{"fluvial": "0.1.0", "command": "demo"}')
    for name in ("report.html", "gap.png"):
        (folder / name).write_text("old")
    return _content(folder)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("broken"), 2), (KeyboardInterrupt(), 130), (OSError(28, "No space left"), 2)]
)
def test_a_demo_that_fails_leaves_the_first_as_it_was(fluvial, tmp_path, monkeypatch, error, status):
    out = tmp_path / "demo"
    before = _earlier_demo(out)

    def fails(*arguments, **settings):
        raise error

    monkeypatch.setattr("fluvial.cli.demo_run.measure", fails)
    outcome = fluvial("demo", "--steps", 2, "--samples", 16, "--out", out)
    assert outcome.status == status and "Traceback" not in outcome.err
    assert _content(out) == before and [child.name for child in tmp_path.iterdir()] == ["demo"]


def test_all_is_replaced_or_nothing(tmp_path):
    out, workshop = tmp_path / "demo", tmp_path / "workshop"
    before = _earlier_demo(out)
    workshop.mkdir()
    (workshop / "report.html").write_text("new")
    with pytest.raises(OSError):
        _replace(workshop, out, ["report.html", "cfm", "absent.png"])
    assert _content(out) == before
    (workshop / "replaced").rmdir()
    _replace(workshop, out, ["report.html"])
    assert (out / "report.html").read_text() == "new" and (out / "gap.png").read_text() == "old"


def test_a_users_file_in_a_demos_run_is_named(fluvial, tmp_path):
    before = _earlier_demo(tmp_path)
    (tmp_path / "cfm" / "mynotes").mkdir()
    (tmp_path / "cfm" / "mynotes" / "idea.md").write_text("dear")
    assert "mynotes" in fluvial("demo", "--out", tmp_path).error
    assert (tmp_path / "cfm" / "mynotes" / "idea.md").read_text() == "dear" and before.items() <= _content(
        tmp_path
    ).items()


def test_a_run_that_an_older_demo_did_not_write_is_named(fluvial, tmp_path):
    """Demos of two models stay replaceable, but a folder ``meanflow`` beside them is the user's."""
    _earlier_demo(tmp_path)
    Demo(out=tmp_path).validate()
    (tmp_path / "meanflow").mkdir()
    (tmp_path / "meanflow" / "config.toml").write_text("mine")
    assert "meanflow is not of the earlier demo" in fluvial("demo", "--out", tmp_path).error
    assert (tmp_path / "meanflow" / "config.toml").read_text() == "mine"
    (tmp_path / "metrics.json").write_text('{"fluvial": "0.1.0", "command": "demo", "runs": {"meanflow": 3}}')
    with pytest.raises(ValueError, match="cfm is not of the earlier demo"):
        Demo(out=tmp_path).validate()
    (tmp_path / "cfm").rename(tmp_path / "other")
    Demo(out=tmp_path).validate()


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


def _score(frechet: float, ratio: float, evaluations: int | None) -> Score:
    return Score(SpaceScore(frechet, 0.0, 1.0), SpaceScore(1.0, 0.0, ratio), evaluations)


@pytest.mark.parametrize(
    ("evaluations", "frechet", "ratio", "baseline", "start", "kind"),
    [
        (1, 1.5, 1.0, 1.4, "In 1 evaluation of the net, where CFM takes 50, it makes new digits: ", "good"),
        (2, 1.5, 1.0, 1.9, "In 2 evaluations of the net, where CFM takes 50, it makes new digits: ", "good"),
        (2, 1.9, 1.0, 1.4, "In 2 evaluations of the net, where CFM takes 50, it makes new digits, rougher ", "neutral"),
        (1, 1.3, 1.2, 1.4, "In 1 evaluation of the net, where CFM takes 50, it makes new digits, rougher ", "neutral"),
        (1, 2.9, 1.0, 1.4, "It has not learned digits well yet", "neutral"),  # over twice the baseline's distance
        (1, 1.9, 1.0, 1.8, "It has not learned digits well yet", "neutral"),  # nor has the baseline
        (1, 1.5, 0.1, 1.4, "It copies", "bad"),
        (50, 1.9, 1.0, 1.4, "It has not learned digits well yet", "neutral"),  # as many evaluations as the baseline
        (49, 1.5, 1.0, 1.4, "It makes new digits: ", "good"),
        (None, 1.9, 1.0, 1.4, "It has not learned digits well yet", "neutral"),
    ],
)
def test_verdicts_of_models_with_few_evaluations_compare(evaluations, frechet, ratio, baseline, start, kind):
    rows = {
        "training digits": _score(1.0, 1.0, None),
        "CFM": _score(baseline, 1.02, 50),
        "net": _score(frechet, ratio, evaluations),
    }
    sentence, judged = judge(Scores(0.98, rows), "net")
    assert sentence.startswith(start) and judged == kind
    if "rougher" in sentence:  # the reason comes first
        reasons = [sentence.index(words) for words in ("the Fréchet distance", "its samples")]
        assert (reasons[0] < reasons[1]) == (frechet > 1.7)
    compared = f"(CFM: {baseline:.2f})" in sentence and "(CFM: 1.02)" in sentence
    assert compared == (evaluations in (1, 2))


def test_recipes_name_the_runs_and_scale_with_the_steps():
    from fluvial.cli.demo_run import DRAWS, EXACT, MODELS, OUTPUTS

    assert tuple(recipe.objective for recipe in MODELS.values()) == RUNS and set(RUNS) <= set(OUTPUTS)
    assert {model for model, _ in DRAWS.values()} == {*MODELS, EXACT}
    assert [recipe.steps(1500) for recipe in MODELS.values()] == [1500, 1500, 2250]
    assert [recipe.steps(1) for recipe in MODELS.values()] == [1, 1, 1]


def test_loss_curve_of_a_weighted_loss_is_its_error():
    """An adaptive weight makes a loss say nothing; the raw error is drawn."""
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    rows = [{"step": step, "loss": 0.5, "error": 3.0 + step} for step in range(4)]
    draw_losses({"CFM": [{"step": 1, "loss": 2.0}], "Mean Flow": rows})(axes)
    drawn = {line.get_color(): list(line.get_ydata()) for line in axes.lines if line.get_alpha()}
    assert drawn == {"C0": [2.0], "C1": [3.0, 4.0, 5.0, 6.0]}


def test_noise_of_the_control_is_independent_of_the_samples():
    from fluvial.cli.demo_run import _noisy
    from fluvial.randomness import noise

    x = torch.zeros(500, 1, 8, 8)
    added = _noisy(x, seed=0).flatten().numpy()
    own = noise(0, 0, 500, (1, 8, 8)).flatten().numpy()
    assert added.std() == pytest.approx(0.1, rel=0.02)
    assert abs(np.corrcoef(added, own)[0, 1]) < 0.02
