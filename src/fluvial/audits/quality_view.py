"""What :func:`fluvial.audits.quality` found, in words, a table and figures."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fluvial.audits.finding import Drawing, Finding
from fluvial.audits.quality_scores import LARGEST, NEIGHBOUR

GOALS = {"held_out": "held-out data", "train": "training data"}
COLUMNS = (
    "features: compared",
    "Fréchet distance",
    "95 % interval",
    "at unlimited size",
    "KID",
    "KID standard error",
    "precision",
    "recall",
    "density",
    "coverage",
    "rows",
)
FIGURES = ("precision", "recall", "density", "coverage")
ROWS = {
    "held_out": ("samples to held-out", "C0", "o"),
    "train": ("samples to training", "C1", "s"),
    "train_all": ("samples to all training", "C1", "D"),
    "reference": ("real data to {goal}", "C4", "d"),
}


def quality_finding(data: Mapping[str, Any], notes: Sequence[str]) -> Finding:
    """The finding of these figures, with the notes that they and the data ask for."""
    found: Mapping[str, Any] = data["extractors"]
    curves = {name: each for name, each in found.items() if "frechet_curve" in each["scores"]["reference"]}
    drawings = [_frechet_drawing(found), _figures_drawing(found)]
    return Finding(
        name="quality",
        title="Quality: how near are the samples to the data, and how much of them do they reach?",
        verdict=_verdict(found),
        method=_method(data),
        source=(
            "Heusel et al. 2017 (Fréchet distance); Bińkowski et al. 2018 (KID); Kynkäänniemi et al. 2019 (precision, "
            "recall); Naeem et al. 2020 (density, coverage); Chong & Forsyth 2020 (extrapolation)."
        ),
        columns=COLUMNS,
        rows=tuple(_row(name, key, each["scores"][key], each) for name, each in found.items() for key in _keys(each)),
        data=data,
        drawings=(*drawings, *([_curve_drawing(curves)] if curves else [])),
        notes=(*notes, *_notes(data)),
    )


def _keys(each: Mapping[str, Any]) -> list[str]:
    return [key for key in ROWS if key in each["scores"]]


def _label(key: str, each: Mapping[str, Any]) -> str:
    return ROWS[key][0].format(goal="held-out" if each["goal"] == "held_out" else "other training data")


def _verdict(found: Mapping[str, Any]) -> str:
    parts, goal = [], ""
    for name, each in found.items():
        goal = each["goal"]
        score, real = each["scores"][goal], each["scores"]["reference"]
        low, high = score["frechet_interval"]
        parts.append(
            f"in {name} {score['frechet']:.3g} ({low:.3g} to {high:.3g}) where real data score {real['frechet']:.3g}, "
            f"with a coverage of {score['coverage']:.0%} where real data have {real['coverage']:.0%}"
        )
    return f"The samples' Fréchet distance to {GOALS[goal]} is " + "; ".join(parts) + "."


def _method(data: Mapping[str, Any]) -> str:
    found: Mapping[str, Any] = data["extractors"]
    protocols = [
        f"{name}: {each['features']} features, {each['protocol'].get('features', '')}, resize "
        f"{each['protocol'].get('resize', 'unknown')}, uint8 {each['protocol'].get('uint8', 'unknown')}, "
        f"hash {each['hash'][:12]}"
        for name, each in found.items()
    ]
    made = ", ".join(f"{key} {value}" for key, value in data["provenance"].items())
    if data["held_out"]:
        sides = "Training and held-out data are compared at equal numbers of rows, drawn at random"
    else:
        sides = "Half of the training data is compared with, and rows of the other half stand for real data"
    return (
        "Fréchet distance in float64 with a 95 % interval by a delete-group jackknife (ten groups of each set); KID "
        "unbiased over disjoint subsets, with its standard error; precision, recall, density and coverage with "
        f"k = {NEIGHBOUR} on at most {LARGEST:,} rows of each set, exact. {sides}. The Fréchet distance of finite sets "
        "is too high by about c/n: the row of real data has the same bias, and where rows outnumber features four "
        "times, its value at unlimited size is extrapolated from the whole, half and a quarter of the rows. "
        f"Features: {'; '.join(protocols)}." + (f" Samples: {made}." if made else "")
    )


def _row(name: str, key: str, score: Mapping[str, Any], each: Mapping[str, Any]) -> tuple[str | float, ...]:
    low, high = score["frechet_interval"]
    values = [score["kernel"], score["kernel_standard_error"], *(score[figure] for figure in FIGURES)]
    return (
        f"{name}: {_label(key, each)}",
        score["frechet"],
        f"{low:.4g} to {high:.4g}",
        *("–" if value is None else value for value in (score["frechet_limit"], *values)),
        f"{score['n']:,} and {score['m']:,}",
    )


def _notes(data: Mapping[str, Any]) -> list[str]:
    notes = []
    if not data["held_out"]:
        notes.append(
            "There are no held-out data: scores against training data alone cannot tell good samples from copies."
        )
    for name, each in data["extractors"].items():
        goal, scores = each["goal"], each["scores"]
        rows = min(scores[goal]["n"], scores[goal]["m"])
        if each["constant"]:
            notes.append(f"In {name} all training data are the same: no score but the distances means anything.")
        elif each["without_extent"] > 0.01:
            share = f"{each['without_extent']:.0%} of the {GOALS[goal]}"
            notes.append(f"In {name} {share} have {NEIGHBOUR} or more equals: their balls are empty and never covered.")
        if rows <= each["features"]:
            notes.append(
                f"In {name} there are {rows:,} rows for {each['features']:,} features: covariances have not their full "
                "rank, the Fréchet distance is biased upwards by much, and compares with the row of real data alone."
            )
        if goal == "held_out" and scores["train"]["frechet_interval"][1] < scores["held_out"]["frechet_interval"][0]:
            notes.append(
                f"In {name} the samples are nearer to the training data ({scores['train']['frechet']:.3g}) than to "
                f"held-out data ({scores['held_out']['frechet']:.3g}), beyond the intervals: they lean on what was "
                "trained on, or the held-out data differ from it."
            )
    return notes


def _frechet_drawing(found: Mapping[str, Any]) -> Drawing:
    return Drawing(
        "Fréchet distance",
        "Fréchet distance with 95 % intervals in each kind of features. Real data in the samples' place show what can "
        "be reached at this sample size; samples nearer to training than to held-out data lean on what was trained on.",
        "For each kind of features, points with intervals on a line of the Fréchet distance.",
        partial(_draw_frechet, found),
        size=(6.6, 0.7 + sum(0.75 + 0.3 * len(_keys(each)) for each in found.values())),
    )


def _draw_frechet(found: Mapping[str, Any], figure: Any) -> None:
    heights = [0.75 + 0.3 * len(_keys(each)) for each in found.values()]
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, each) in zip(panels, found.items(), strict=True):
        keys = _keys(each)
        for place, key in enumerate(keys):
            score, (_, colour, marker) = each["scores"][key], ROWS[key]
            low, high = score["frechet_interval"]
            value = score["frechet"]
            reach = [[value - low], [high - value]]
            axes.errorbar([value], [place], xerr=reach, fmt=marker, color=colour, capsize=3, markersize=5)
        axes.set_yticks(range(len(keys)), [_label(key, each) for key in keys])
        axes.set_ylim(len(keys) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(True, axis="x")
        axes.set_title(name, fontsize=11, loc="left")
    panels[-1].set_xlabel("Fréchet distance (squared units of the features)")


def _figures_drawing(found: Mapping[str, Any]) -> Drawing:
    return Drawing(
        "Precision, recall, density, coverage",
        "Precision and density: are samples where data are? Recall and coverage: are samples wherever data are? Real "
        "data in the samples' place show what can be reached.",
        "For each kind of features, four groups of points between 0 and about 1.",
        partial(_draw_figures, found),
        size=(6.6, 0.6 + 2.1 * len(found)),
    )


def _draw_figures(found: Mapping[str, Any], figure: Any) -> None:
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, each) in zip(panels, found.items(), strict=True):
        keys = [key for key in _keys(each) if key != "train_all"]
        for number, key in enumerate(keys):
            _, colour, marker = ROWS[key]
            places = [place + 0.16 * (number - (len(keys) - 1) / 2) for place in range(len(FIGURES))]
            values = [each["scores"][key][measured] for measured in FIGURES]
            axes.plot(places, values, marker, color=colour, markersize=6, label=_label(key, each))
        axes.set_xticks(range(len(FIGURES)), FIGURES)
        top = max(each["scores"][key][measured] for key in keys for measured in FIGURES)
        axes.set_ylim(-0.05, 1.08 * max(1.0, top))
        axes.set_ylabel("share, ratio")
        axes.grid(True, axis="y")
        axes.set_title(name, fontsize=11, loc="left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


def _curve_drawing(found: Mapping[str, Any]) -> Drawing:
    return Drawing(
        "Fréchet distance and sample size",
        "Fréchet distance against the inverse of the number of rows, and the line that takes it to unlimited size (at "
        "the left edge), where real data should be at about 0.",
        "For each kind of features, two rising lines against the inverse of the number of rows.",
        partial(_draw_curves, found),
        size=(6.6, 0.5 + 2.4 * len(found)),
    )


def _draw_curves(found: Mapping[str, Any], figure: Any) -> None:
    panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, (name, each) in zip(panels, found.items(), strict=True):
        ends = [0.0]
        for key in (each["goal"], "reference"):
            score, (_, colour, marker) = each["scores"][key], ROWS[key]
            inverse = [1 / rows for rows in score["frechet_curve"]["rows"]]
            values, limit = score["frechet_curve"]["frechet"], score["frechet_limit"]
            # the line of least squares goes through the mean of its points
            mean = sum(inverse) / len(inverse)
            slope = (sum(values) / len(values) - limit) / mean
            axes.plot([0, max(inverse)], [limit, limit + slope * max(inverse)], "-", color=colour, linewidth=1.2)
            axes.plot(inverse, values, marker, color=colour, markersize=6, label=_label(key, each))
            ends += [*values, limit]
        rows = each["scores"]["reference"]["frechet_curve"]["rows"]
        axes.set_xticks([0, *(1 / size for size in rows)], ["unlimited", *(f"{size:,}" for size in rows)])
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=min(0.0, 1.1 * min(ends)))
        axes.grid(True)
        axes.set_ylabel("Fréchet distance")
        axes.set_title(name, fontsize=11, loc="left")
        axes.legend(fontsize=9)
    panels[-1].set_xlabel("rows of either set (on a scale of their inverse)")
