"""How the stochasticity of the target is told and drawn."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.audits.finding import Drawing, Finding

ALIGNED = 0.9
"""Cosine above which a pair counts as aligned, as in the source's figure 1c."""


def stochasticity_finding(data: dict[str, Any]) -> Finding:
    """The finding that shows the curves of :func:`fluvial.audits.stochastic.stochasticity`."""
    whole, *smaller = data["versions"]
    return Finding(
        name="stochasticity",
        title="Stochasticity: when does the target stop being random?",
        verdict=" ".join([_answer(data["t"], whole), *([_trend(whole, smaller)] if smaller else [])]),
        method=(
            "Cosine between the exact velocity and the conditional velocity that a net is regressed on, for "
            f"{data['pairs']} pairs of noise and datum; aligned means above {ALIGNED}. The undetermined variance is "
            "the mean squared distance of the datum from its posterior mean, over the data's variance. Fewer "
            "dimensions are averages over areas of images, or random coordinates, with noise and exact field of "
            "their own."
        ),
        source="Bertrand et al. 2025, On the Closed-Form of Flow Matching, arXiv 2506.03719, figure 1.",
        columns=("data", "dimensions", "half of the pairs aligned from t", "half of the variance determined from t"),
        rows=tuple(
            (curve["name"], curve["dimension"], *(_cell(curve[key]) for key in ("passage", "half_determined")))
            for curve in data["versions"]
        ),
        data=data,
        drawings=_drawings(data),
        notes=_notes(data["versions"]),
        reservation="It describes the data and the path, not a model.",
    )


def _cell(time: float | None) -> str | float:
    return "never" if time is None else time


def _answer(grid: Sequence[float], whole: Mapping[str, Any]) -> str:
    passage, half, dimension = whole["passage"], whole["half_determined"], whole["dimension"]
    if passage is None:
        first = (
            f"The target is still random at t = {grid[-1]:g} in {dimension} dimensions: fewer than half of the pairs"
        )
        return f"{first} are within a cosine of {ALIGNED} of its mean."
    start = f"In {dimension} dimensions half of the pairs have a cosine above {ALIGNED} with the mean of the target"
    start += " from the start" if passage == grid[0] else f" from t = {passage:.2f} on"
    if half is None:
        return f"{start}; half of the data's variance is still undetermined at t = {grid[-1]:g}."
    return f"{start}; half of the data's variance is determined from t = {half:.2f} on."


def _trend(whole: Mapping[str, Any], smaller: Sequence[Mapping[str, Any]]) -> str:
    last = smaller[-1]
    time = last["passage"]
    when = "it is never" if time is None else f"it is so from t = {time:.2f} on"
    return f"Reduced to {last['dimension']} dimensions {when}."


def _notes(versions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    if versions[0]["dimension"] < 4:
        return ("In so few dimensions there is nothing to leave out: the data are shown as they are.",)
    if any(curve["aligned"][0] > min(curve["aligned"]) + 0.05 for curve in versions):
        return (
            f"Near t = 0 many cosines are above {ALIGNED} because the noise, which is known there, is most of the "
            "velocity: the share of aligned pairs falls before it rises. The undetermined variance leaves the noise "
            "out.",
        )
    return ()


def _drawings(data: Mapping[str, Any]) -> tuple[Drawing, ...]:
    return (
        Drawing.on_axes(
            "Cosine between the target and its mean",
            "Histogram at each time, as share of the pairs; the line is the median. At a cosine of 1 the target is no "
            "longer random.",
            "Two-dimensional histogram of the cosine against time.",
            partial(_draw_histogram, data),
        ),
        Drawing.on_axes(
            "Share of aligned pairs",
            f"Share of pairs whose cosine is above {ALIGNED} (lines) and undetermined share of the data's variance "
            "(dashes), for the data as they are and in fewer dimensions.",
            "Curves of the share of aligned pairs that rise with time, and of the undetermined variance that fall.",
            partial(_draw_shares, data),
            size=(8.0, 3.9),
        ),
    )


def _draw_histogram(data: Mapping[str, Any], axes: Any) -> None:
    shares = torch.tensor(data["histogram"], dtype=torch.float64).T / data["pairs"]
    t = data["t"]
    colours = _from_nothing_to("C0")
    mesh = axes.pcolormesh(_edges(t), data["bins"], shares.sqrt().numpy(), cmap=colours, vmin=0, vmax=1)
    axes.plot(t, data["versions"][0]["median"], color="C1", label="median")
    axes.axhline(ALIGNED, color="C4", linewidth=1, linestyle=":", label=f"cosine {ALIGNED}")
    axes.set(
        xlabel="t (0 noise, 1 data)", ylabel="cosine of the target and its mean", ylim=_range(shares, data["bins"])
    )
    bar = axes.figure.colorbar(mesh, ax=axes, label="share of the pairs", ticks=[0, 0.1**0.5, 0.25**0.5, 0.5**0.5, 1])
    bar.ax.set_yticklabels(["0", "0.1", "0.25", "0.5", "1"])
    axes.legend(loc="lower right")


def _from_nothing_to(colour: str) -> Any:
    """Colours from transparent to ``colour``, so that what is absent looks like the page, light or dark."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    return LinearSegmentedColormap.from_list("share", [(*to_rgb(colour), 0.0), (*to_rgb(colour), 1.0)])


def _range(shares: Float[Tensor, "bins T"], edges: Sequence[float]) -> tuple[float, float]:
    """From a little below the lowest cosine that occurs to 1."""
    lowest = int(shares.sum(1).nonzero()[0])
    return max(-1.0, edges[lowest] - 0.1), 1.02


def _edges(t: Sequence[float]) -> list[float]:
    """Borders between the times, which lie in the middle of their cells."""
    if len(t) == 1:
        return [t[0] - 0.01, t[0] + 0.01]
    inner = [(a + b) / 2 for a, b in pairwise(t)]
    return [2 * t[0] - inner[0], *inner, 2 * t[-1] - inner[-1]]


def _draw_shares(data: Mapping[str, Any], axes: Any) -> None:
    for number, curve in enumerate(data["versions"]):
        axes.plot(data["t"], curve["aligned"], color=f"C{number}", label=f"{curve['dimension']} dimensions")
        axes.plot(data["t"], curve["undetermined"], "--", color=f"C{number}", linewidth=1)
    axes.plot([], [], color="C4", label="aligned pairs")
    axes.plot([], [], "--", color="C4", linewidth=1, label="undetermined variance")
    axes.set(xlabel="t (0 noise, 1 data)", ylabel="share", xlim=(0, 1), ylim=(-0.02, 1.05))
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
