"""The figure of a probe: rank correlation by layer against time, and the share of heads above .9."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fluvial.support.probing.reports import ProbeReport


def fill_figure(figure: Any, report: "ProbeReport") -> None:
    """Draws both parts on an empty matplotlib figure.

    Args:
        figure: The figure.
        report: What was found.
    """
    lines, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    places = np.arange(len(report.times))
    _draw_lines(lines, report, places)
    bars.grid(True, axis="y")
    shares = [report.share(time=time) for time in report.times]
    drawn = bars.bar(places, shares, width=0.6, color="C0")
    if len(places) <= 8:
        bars.bar_label(drawn, [f"{share:.0%}" for share in shares], padding=2)
    bars.set(ylim=(0, 1.1), ylabel="heads above .9")
    bars.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    labelled = report.records[0].time is not None
    for axes in (lines, bars):
        _label_times(axes, report, places)
        axes.set_xlabel("time, in the order of the calls" if labelled else "call")


def _draw_lines(axes: Any, report: "ProbeReport", places: Any) -> None:
    from matplotlib import colormaps

    axes.grid(True)
    layers = report.layers
    style = {"marker": "o", "markersize": 3} if len(places) < 20 else {}
    for number, layer in enumerate(layers):
        found = [report.mean("spearman", layer=layer, time=time) for time in report.times]
        colour = colormaps["viridis"](0.1 + 0.8 * number / max(1, len(layers) - 1))
        label = "layers, from first (dark) to last" if number == 0 and len(layers) > 1 else None
        axes.plot(places, found, color=colour, linewidth=1, alpha=0.7, label=label, **style)
    mean = [report.mean("spearman", time=time) for time in report.times]
    axes.plot(places, mean, color="C1", linewidth=3, label="mean", **style)
    null, spread = (np.array([report.mean(name, time=t) for t in report.times]) for name in ("null", "null_spread"))
    edges = places if len(places) > 1 else np.array([-0.5, 0.5])
    axes.fill_between(
        edges, null - 2 * spread, null + 2 * spread, color="C4", alpha=0.3, label="a head with its keys permuted", lw=0
    )
    low = min(-0.3, float(np.nanmin([*mean, *(null - 2 * spread), 0])) - 0.05)
    axes.set(ylim=(low, 1.05), ylabel="rank correlation with the kernel")
    axes.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
    axes.legend(loc="lower right")


def _label_times(axes: Any, report: "ProbeReport", places: Any) -> None:
    every = -(-len(places) // 8)
    shown = places[::every]
    axes.set_xticks(shown, [f"{report.times[place]:g}" for place in shown])
    axes.set_xlim(-0.6, len(places) - 0.4)
