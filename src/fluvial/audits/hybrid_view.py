"""How the hybrids of the exact and a learned field are told and drawn."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fluvial.audits.finding import Drawing, Finding
from fluvial.audits.pictures import is_picture, mosaic, show

SHOWN = 8
"""Noises whose samples are shown for every tau."""

WAYS = {"exact_first": "exact until tau, learned after", "learned_first": "learned until tau, exact after"}
_STYLES = {"exact_first": ("-o", "C0"), "learned_first": ("--s", "C1")}


def hybrid_finding(data: dict[str, Any], pictures: Mapping[str, Sequence[Tensor]], reservation: str) -> Finding:
    """The finding that shows the curves of :func:`fluvial.audits.hybrids.hybrid`.

    Args:
        data: Its figures.
        pictures: For each way the samples of the same noises at every tau; empty where none can be shown.
        reservation: Why the finding does not bear on the verdict; empty if it does.
    """
    return Finding(
        name="hybrid",
        title="Hybrid: from when in time does the learned field make something new?",
        verdict=_verdict(data),
        method=(
            f"From {data['n']} noises, the exact field until tau and the learned one after, and the reverse, on one "
            f"grid of {data['steps']} {data['method']} steps. A sample lands where the exact field alone ends if its "
            "nearest training datum, in Euclidean distance, is the same. Shares have Wilson's 95 % intervals; the "
            "critical tau is where the share comes to one half, linear between taus."
        ),
        source="Bertrand et al. 2025, On the Closed-Form of Flow Matching, arXiv 2506.03719, section 4.2, figure 3; "
        "the reverse and the share of equal ends are fluvial's.",
        columns=_columns(data),
        rows=tuple(_row(data, k) for k in range(len(data["taus"]))),
        data=data,
        drawings=_drawings(data, pictures),
        notes=_notes(data),
        reservation=reservation,
    )


def _units(data: Mapping[str, Any], way: str) -> str:
    """The critical tau in words, with the collapse time as unit where that is known."""
    tau = data["critical_tau"][way]
    collapse = data["collapse_time"]
    return f"t = {tau:.2f}" + ("" if collapse is None else f" ({tau / collapse:.2f} of the collapse time)")


def _verdict(data: Mapping[str, Any]) -> str:
    alone = data["exact_first"]["share"][0]
    if data["critical_tau"]["exact_first"] == 0:
        fresh = data["reference_distance"]
        beside = "" if fresh is None else f", where held-out data have {fresh:.3g}"
        return (
            f"The learned field alone already ends nearest to the training datum where the exact field ends for "
            f"{alone:.0%} of the noises, at a mean distance of {data['exact_first']['distance'][0]:.3g} from training "
            f"data{beside}."
        )
    sentence = (
        f"Once the exact field has led until {_units(data, 'exact_first')}, the learned field takes half of the "
        f"noises to the training datum where the exact field alone ends; on its own it does so for {alone:.0%}."
    )
    if data["critical_tau"]["learned_first"] is None:
        return f"{sentence} What it decides first, the exact field always takes to the same end."
    return f"{sentence} If it leads first, more than half end elsewhere from {_units(data, 'learned_first')} on."


def _columns(data: Mapping[str, Any]) -> tuple[str, ...]:
    unit = () if data["collapse_time"] is None else ("tau / collapse time",)
    names = ["same end, exact first", "same end, learned first", "distance, exact first", "distance, learned first"]
    if data["exact_first"]["frechet"][0] is not None:
        names += ["Fréchet, exact first", "Fréchet, learned first"]
    return ("tau", *unit, *names)


def _row(data: Mapping[str, Any], k: int) -> tuple[str | float, ...]:
    tau, collapse = data["taus"][k], data["collapse_time"]
    keys = ["share", "distance", *(["frechet"] if data["exact_first"]["frechet"][0] is not None else [])]
    unit = () if collapse is None else (tau / collapse,)
    return (f"{tau:g}", *unit, *(data[way][key][k] for key in keys for way in WAYS))


def _notes(data: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if data["exact_first"]["distance"][-1] > 0.1 * max(data["exact_first"]["distance"][0], 1e-12):
        notes.append("The exact field alone does not end on training data: more steps would take it there.")
    if data["exact_first"]["frechet"][0] is not None:
        notes.append(
            f"The Fréchet distance of {data['n']} samples is biased upwards: compare it with other taus and with the "
            f"{data['reference_frechet']:.3g} of as many training data, not with other reports."
        )
    return tuple(notes)


def _drawings(data: Mapping[str, Any], pictures: Mapping[str, Sequence[Tensor]]) -> tuple[Drawing, ...]:
    drawings = [
        Drawing.on_axes(
            "Samples that land where the exact field alone ends",
            "Share of the noises, with 95 % intervals, against the time at which one field hands over to the other; "
            "the vertical line is the collapse time.",
            "Two curves of the share against tau: one rises to 1, the other falls from 1.",
            partial(_draw_shares, data),
        ),
        Drawing(
            "How near the samples are to training and to held-out data",
            "Mean distance to the nearest training datum, and Fréchet distance to held-out data where there are any; "
            "dotted lines show the same of fresh data.",
            "Curves of the distances against tau.",
            partial(_draw_distances, data),
            size=(8.0, 3.6),
        ),
    ]
    if pictures and is_picture(tuple(pictures["exact_first"][0].shape[1:])):
        drawings.append(
            Drawing(
                "Samples at every tau",
                "Each column starts from one noise. Left: exact until tau, learned after, so that the last row is "
                "training data. Right: learned until tau, exact after, so that the first row is training data.",
                "Two grids of images whose rows are taus and whose columns are noises.",
                partial(_draw_strips, data, pictures),
                size=(8.0, 0.5 + 0.46 * len(data["taus"])),
            )
        )
    return tuple(drawings)


def _draw_shares(data: Mapping[str, Any], axes: Any) -> None:
    for way, label in WAYS.items():
        style, colour = _STYLES[way]
        low, high = np.array(data[way]["share_interval"]).T
        axes.plot(data["taus"], data[way]["share"], style, color=colour, label=label, markersize=4)
        axes.fill_between(data["taus"], low, high, color=colour, alpha=0.25, linewidth=0)
    _mark_collapse(data, axes)
    axes.set(xlabel="tau (0 noise, 1 data)", ylabel="share with the same end", xlim=(0, 1), ylim=(-0.02, 1.05))
    axes.legend()


def _mark_collapse(data: Mapping[str, Any], axes: Any) -> None:
    if data["collapse_time"] is not None:
        axes.axvline(data["collapse_time"], color="C4", linewidth=1, label="collapse time")


def _draw_distances(data: Mapping[str, Any], figure: Any) -> None:
    parts = [("distance", "distance to training data (data units)", "reference_distance", "held-out data")]
    if data["exact_first"]["frechet"][0] is not None:
        parts.append(("frechet", "Fréchet distance to held-out data", "reference_frechet", "training data"))
    for axes, (key, label, reference, who) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        for way in WAYS:
            style, colour = _STYLES[way]
            name = {"exact_first": "exact first", "learned_first": "learned first"}[way]
            axes.plot(data["taus"], data[way][key], style, color=colour, label=name, markersize=4)
        if data[reference] is not None:
            axes.axhline(data[reference], color="C4", linestyle=":", label=who)
        _mark_collapse(data, axes)
        axes.grid(True)
        axes.set(xlabel="tau (0 noise, 1 data)", ylabel=label, xlim=(0, 1))
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.legend(fontsize="small")


def _draw_strips(data: Mapping[str, Any], pictures: Mapping[str, Sequence[Tensor]], figure: Any) -> None:
    for axes, (way, label) in zip(figure.subplots(1, 2), WAYS.items(), strict=True):
        rows = pictures[way]
        columns, height = len(rows[0]), rows[0].shape[-2]
        show(axes, mosaic(torch.cat(list(rows)), columns))
        centres = [k * (height + 1) + (height - 1) / 2 for k in range(len(rows))]
        axes.set_yticks(centres, [f"{tau:.2f}" for tau in data["taus"]])
        axes.tick_params(length=0)
        axes.set(ylabel="tau")
        axes.set_title(label, fontsize="medium")
