"""The pictures of a memorization finding: local ratios, distances, and samples beside their training data."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fluvial.audits.finding import Drawing
from fluvial.audits.pictures import is_picture, mosaic
from fluvial.audits.pictures import show as show_picture

_LEAST_RATIO = 1e-3  # where exact copies are drawn on a logarithmic axis
_FEATURES = 200  # values of a row that are drawn, at most
_NAMES = {
    "samples": ("samples", "C0", "-"),
    "fresh": ("held-out", "C1", "-"),
    "left_out": ("training, left out", "C2", "--"),
}


@dataclass(frozen=True)
class Shown:
    """What the pictures show beside the figures.

    Args:
        sample: Samples to show, shape (s, *D).
        datum: The training datum nearest to each, shape (s, *D).
        rows: For each its number, the number of the datum, and the local ratio.
        samples: Some samples, flattened.
        train: Some training data, flattened.
    """

    sample: Float[Tensor, "s ..."]
    datum: Float[Tensor, "s ..."]
    rows: tuple[tuple[int, int, float], ...]
    samples: Float[Tensor, "n d"]
    train: Float[Tensor, "N d"]


def drawings(data: Mapping[str, Any], shown: Shown, fresh: str) -> tuple[Drawing, ...]:
    """Local ratios, distances, and samples beside their nearest training data."""
    curves = Drawing.on_axes(
        "How near the samples are to training data",
        "Share of each set with a local ratio up to the value: distance to the nearest training datum over that "
        f"datum's own nearest-neighbour distance. A curve to the left of that of the {fresh} means samples too near; "
        "copies are at the far left.",
        "Cumulative curves of the local ratio for samples and for fresh data, both axes logarithmic.",
        partial(_draw_ratios, data),
    )
    distances = Drawing.on_axes(
        "Distance to the nearest training datum",
        "Share of each set that is nearer to the training data than the value.",
        "Cumulative curves of the distance to the nearest training datum for samples and for fresh data.",
        partial(_draw_distances, data),
    )
    return (curves, distances, *_pairs(data, shown))


def _sets(data: Mapping[str, Any]) -> list[str]:
    return [name for name in _NAMES if name != "fresh" or data["held_out"] is not None]


def _count(data: Mapping[str, Any], name: str) -> int:
    counts = {"samples": data["samples"], "fresh": data["held_out"]}
    return int(counts.get(name) or data["train"])


def _draw_ratios(data: Mapping[str, Any], axes: Any) -> None:
    level = np.array(data["curves"]["level"])
    for name in _sets(data):
        label, colour, style = _NAMES[name]
        values = np.maximum(data["curves"]["local_ratio"][name], _LEAST_RATIO)
        whole = level >= 1 / _count(data, name)  # a smaller share is less than one row
        axes.plot(values[whole], level[whole], style, color=colour, label=label)
    if data["copy_threshold"] is not None:
        axes.axvline(
            max(data["copy_threshold"], _LEAST_RATIO),
            color="C4",
            linewidth=1,
            linestyle=":",
            label="copies to the left",
        )
    zero = any(data["curves"]["local_ratio"][name][0] < _LEAST_RATIO for name in _sets(data))
    label = f"local ratio (less is drawn at {_LEAST_RATIO:g})" if zero else "local ratio"
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="share of the set")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" and value < 10 else "")
    axes.yaxis.set_minor_formatter("")
    axes.legend()


def _draw_distances(data: Mapping[str, Any], axes: Any) -> None:
    for name in _sets(data):
        label, colour, style = _NAMES[name]
        axes.plot(data["curves"]["distance"][name], data["curves"]["level"], style, color=colour, label=label)
    axes.set(xlabel="distance to the nearest training datum (data units)", ylabel="share of the set", ylim=(0, 1))
    axes.set_xlim(left=0)
    axes.legend()


def _pairs(data: Mapping[str, Any], shown: Shown) -> tuple[Drawing, ...]:
    if not shown.rows:
        return ()
    what = "copies" if data["copies"] else "nearest samples, none of which is a copy,"
    first = "the most copied training data first" if data["copies"] else "the nearest first"
    title = "Copies beside their training data" if data["copies"] else "Nearest samples beside training data"
    caption = f"The {what} and the training data they are nearest to, {first}, with their local ratios."
    count, shape = len(shown.rows), tuple(shown.sample.shape[1:])
    if data["kind"] == "image" and is_picture(shape):
        height = 0.6 + 2 * 6.4 / max(count, 5) * shape[1] / shape[2]
        alt = f"{count} samples in a row, and under each the nearest training image."
        return (Drawing(title, caption, alt, partial(_draw_pictures, shown), (6.6, height)),)
    if shown.samples.shape[1] == 2:
        alt = "Training data and samples in the plane; lines join samples to the training data nearest to them."
        return (Drawing.on_axes(title, caption, alt, partial(_draw_plane, shown), size=(6.6, 5.0)),)
    alt = f"Values of {min(count, 6)} samples, each over the values of the nearest training datum."
    return (Drawing(title, caption, alt, partial(_draw_values, shown), (6.6, 1.0 + 1.0 * min(count, 6))),)


def _draw_pictures(shown: Shown, figure: Any) -> None:
    grid = figure.subplots(2, max(len(shown.rows), 5), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for top, bottom, sample, datum, (_, row, ratio) in zip(*grid, shown.sample, shown.datum, shown.rows, strict=False):
        for axes, picture in ((top, sample), (bottom, datum)):
            axes.set_axis_on()
            show_picture(axes, mosaic(picture[None].float(), 1))
        top.set_title(f"{ratio:.2g}", fontsize=9)
        bottom.set_xlabel(f"#{row}", fontsize=8, labelpad=2)
    grid[0, 0].set_ylabel("sample", fontsize=9)
    grid[1, 0].set_ylabel("training", fontsize=9)


def _draw_plane(shown: Shown, axes: Any) -> None:
    axes.plot(*shown.train.T, ".", color="C2", markersize=3, alpha=0.6, label="training data")
    axes.plot(*shown.samples.T, ".", color="C0", markersize=3, alpha=0.4, label="samples")
    for number, (a, b) in enumerate(zip(shown.sample.flatten(1), shown.datum.flatten(1), strict=True)):
        label = "shown pairs" if number == 0 else None
        axes.plot([a[0], b[0]], [a[1], b[1]], "o-", color="C1", markersize=4, linewidth=1, label=label)
    axes.set(xlabel="first feature (data units)", ylabel="second feature (data units)")
    axes.legend()


def _draw_values(shown: Shown, figure: Any) -> None:
    count = min(len(shown.rows), 6)
    grid = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axes, sample, datum, (_, row, ratio) in zip(grid, shown.sample, shown.datum, shown.rows, strict=False):
        axes.plot(datum.flatten()[:_FEATURES], color="C2", linewidth=3, alpha=0.5, label="training datum")
        axes.plot(sample.flatten()[:_FEATURES], color="C0", linewidth=1, label="sample")
        axes.set_title(f"training row {row}, local ratio {ratio:.2g}", fontsize=9, loc="left")
    grid[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9)
    grid[-1].set_xlabel("feature")
    figure.supylabel("value (data units)", fontsize=10)
