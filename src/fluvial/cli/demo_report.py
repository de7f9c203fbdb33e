"""Assembles the demo's report from what was measured."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluvial.audits.drawing import draw_figure, draw_png
from fluvial.audits.report import Figure, Report, Section, Table, Verdict
from fluvial.cli.demo_figures import draw_gaps, draw_losses, draw_nearest, draw_samples_figure
from fluvial.cli.demo_measure import Scores, judge

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.audits import Finding

SCORE_COLUMNS = (
    "set",
    "evaluations",
    "Fréchet, features",
    "of reference",
    "Fréchet, pixels",
    "KID",
    "neighbour ratio",
)

_SCORES = (
    "Every set is compared with the held-out digits, which no model has seen. The training digits show what fresh "
    "data of the same source score. Gaussian noise added to CFM's samples makes them worse in pixels and in the "
    "neighbour ratio. In the classifier's features, 360 held-out digits are too few to resolve so small a change: "
    "there it moves the Fréchet distance less, either way, than another seed of the samples does."
)
_FAST = (
    "CFM and EFM learn velocities, which a solver follows in small steps. The Mean Flow learns average velocities "
    "between two times, and so goes from noise to a digit in one step, or in two. It pays in training: an update takes "
    "about twice as long as CFM's, and it makes half as many again. How long each took is at the end of this page."
)
_NOTE = (
    "Evaluations: how often the net, or the exact field, is computed for one sample. Fréchet distances: lower is "
    "better; in 64 penultimate features of a small classifier and in raw pixels. Of reference: over that of the "
    "training digits. KID: unbiased kernel distance in the same features; it may be negative, and 360 held-out digits "
    "resolve it coarsely. Neighbour ratio: mean distance in pixels to the nearest training digit over that of held-out "
    "digits; about 1 is as new as fresh data, 0 is a copy. metrics.json has every score in both spaces."
)


def score_rows(scores: Scores) -> list[tuple[str, ...]]:
    """Rows of the table of scores, as text."""
    return [
        (
            name,
            "–" if score.evaluations is None else str(score.evaluations),
            f"{score.features.frechet:.3f}",
            f"{scores.relative(name):.2f}",
            f"{score.pixels.frechet:.3f}",
            f"{score.features.kernel:.2f}",
            f"{score.pixels.neighbour_ratio:.2f}",
        )
        for name, score in scores.rows.items()
    ]


def draw_all(
    out: Path,
    samples: "Mapping[str, Tensor]",
    train: "Tensor",
    held_out: "Tensor",
    losses: Mapping[str, Sequence[Mapping[str, float]]],
    gaps: "Mapping[str, Finding]",
) -> dict[str, Figure]:
    """Draws every figure, writes it to ``out`` as ``NAME.png``, and returns it by its name, with its caption."""
    grids = {"held-out digits (real)": held_out, **samples}
    height = 2.0 * len(samples)
    drawn = {
        "samples": _both(lambda dark: draw_figure(draw_samples_figure(grids), size=(8.4, 6.0), dark=dark)),
        "nearest": _both(lambda dark: draw_figure(draw_nearest(samples, train), size=(7.5, height), dark=dark)),
        "gap": _both(lambda dark: draw_png(draw_gaps(gaps), dark=dark)),
        "loss": _both(lambda dark: draw_png(draw_losses(losses), dark=dark)),
    }
    for name, (light, _) in drawn.items():
        (out / f"{name}.png").write_bytes(light)
    return {name: Figure(*_WORDS[name], *pictures) for name, pictures in drawn.items()}


_WORDS = {
    "samples": (
        "Samples",
        "The first 64 samples of each kind beside 64 held-out digits; all start from the same noises. CFM, EFM and the "
        "exact field are followed in 25 steps of Heun's method, the Mean Flow in one step and in two.",
        "Grids of handwritten digits: real ones, and those of each model.",
    ),
    "nearest": (
        "Nearest training digits",
        "Each sample above the training digit nearest to it in pixels, with the distance between the two. The exact "
        "field ends on training digits; a model that makes new ones does not.",
        "Pairs of digits, sample above and nearest training digit below.",
    ),
    "gap": (
        "Distance to the exact field",
        "Mean squared distance between each learned field and the exact field of the training digits, on points "
        "between noise and digits. The Mean Flow's velocity is its average velocity over no time at all. Near t = 1 "
        "the exact field turns towards single training digits; a model that makes new ones does not follow, and its "
        "dashed curve rises above its solid one.",
        "Curves of the squared gap against time for each model, on training and held-out digits.",
    ),
    "loss": (
        "Training loss",
        "Means of ten updates (faint) and running mean. The levels do not compare: CFM's target is a single draw, "
        "EFM's an average over a bank of training digits, the Mean Flow's on half of the rows is made with the net "
        "itself, so their losses have different floors.",
        "Curves of the training loss against the step for each model.",
    ),
}


def _both(draw: Callable[[bool], bytes]) -> tuple[bytes, bytes]:
    return draw(False), draw(True)


def demo_report(
    scores: Scores,
    models: Sequence[str],
    gaps: "Mapping[str, Finding]",
    figures: Mapping[str, Figure],
    provenance: Mapping[str, str],
) -> Report:
    """The page: verdicts, scores, pictures, gap and losses."""
    gap_rows = [(f"{name}, {row[0]}", *row[1:]) for name, finding in gaps.items() for row in finding.rows]
    first = next(iter(gaps.values()))
    return Report(
        title="fluvial demo: do these models make new digits?",
        lead="Three flow-matching models, trained on scikit-learn's 1,797 real handwritten digits, held against the "
        "exact velocity field of their training data. One of them, the Mean Flow, makes a digit in one step.",
        verdicts=[Verdict(name, *judge(scores, name)) for name in models],
        sections=[
            Section(
                "Scores",
                (_SCORES, _FAST, f"The classifier is right on {scores.accuracy:.1%} of the held-out digits."),
                Table(SCORE_COLUMNS, score_rows(scores), _NOTE),
            ),
            Section("What the samples look like", figures=(figures["samples"],)),
            Section("Are they copies?", figures=(figures["nearest"],)),
            Section(
                "How far is each model from the exact field?",
                (first.method, f"Source: {first.source}"),
                Table(("model and points", *first.columns[1:]), gap_rows),
                (figures["gap"],),
            ),
            Section("Training", figures=(figures["loss"],)),
        ],
        provenance=provenance,
    )
