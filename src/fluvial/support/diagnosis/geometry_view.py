"""How the geometry is told and drawn."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fluvial.audits.finding import Drawing, Finding

_STYLES = {
    "plug-in": ("C4", ":", "plug-in"),
    "isotropic": ("C0", "-", "isotropic, best bandwidth"),
    "Mahalanobis": ("C1", "--", "Mahalanobis, best bandwidth"),
    "local": ("C2", "-.", "local, best bandwidth"),
}


def geometry_finding(data: dict[str, Any]) -> Finding:
    """The finding that shows the figures of :func:`fluvial.support.diagnosis.geometry.measure_geometry`."""
    return Finding(
        name="geometry",
        title="Geometry: would the same examples say more in another metric?",
        verdict=_verdict(data),
        method=(
            f"Kernel density estimates from the {data['m']} examples of each of {data['tasks']} tasks: isotropic, with "
            "the support's covariance (shrunk towards the isotropic one), and with a covariance for each example from "
            f"its nearest neighbours. Shrinkage, neighbours and bandwidth are chosen on half of the {data['held_out']} "
            "held-out points of each task and measured on the other half; traces are equal, so that a change of scale "
            "is no gain. Metrics gain a little on Gaussians too, where there are few examples for many "
            "dimensions: the same is measured on round Gaussian data for the Mahalanobis metric and on Gaussian data "
            "with each task's covariance for the local one, and what is beyond that counts. Denoising is the "
            "squared error of each density estimate's posterior mean at x1 + h z, as a share of the data's variance."
        ),
        source="Matsui Smola 2026, Support-Conditioned Flow Matching Is Kernel Smoothing, arXiv 2605.13386 (the "
        "regime, the Mahalanobis head); Wand & Jones 1995, Kernel Smoothing, chapter 4. The measurement is fluvial's.",
        columns=(
            "kernel",
            "held-out log-density (nats)",
            "gain (nats)",
            "95 % interval",
            "denoising error less (% of the variance)",
            "95 % interval of that",
        ),
        rows=_rows(data),
        data=data,
        drawings=(
            Drawing(
                "Denoising error and gain by kernel",
                "Left: error of the posterior mean at held-out points, as a share of the data's variance; the plug-in "
                "takes the examples themselves for the data. Right: gain in held-out log-density over the "
                "isotropic kernel, with 95 % intervals over tasks"
                + (
                    "; the room is the distance of the isotropic kernel from the true density." if data["room"] else "."
                ),
                "Curves of the denoising error against time, and points with intervals for the gains.",
                partial(_draw, data),
                size=(10.0, 3.9),
            ),
        ),
    )


def _rows(data: Mapping[str, Any]) -> tuple[tuple[str | int | float, ...], ...]:
    rows: list[tuple[str | int | float, ...]] = []
    for name, value in data["log_density"].items():
        if name == "isotropic":
            rows.append((name, value, "", "", "", ""))
            continue
        gain, less = data["gain"][name], data["denoising_gain"][name]
        rows.append((name, value, gain["value"], _range(gain), 100 * less["value"], _range(less, 100)))
    whole = data["whole_excess"]
    rows.append(("Mahalanobis, beyond round Gaussian data", "", whole["value"], _range(whole), "", ""))
    rows.append(("local, beyond Gaussian data", "", data["excess"]["value"], _range(data["excess"]), "", ""))
    if data["room"]:
        rows.append(("the true density", data["true_log_density"], data["room"]["value"], _range(data["room"]), "", ""))
    return tuple(rows)


def _range(interval: Mapping[str, float], unit: float = 1.0) -> str:
    return f"{unit * interval['low']:.3g} to {unit * interval['high']:.3g}"


def signed(value: float) -> str:
    """Two digits with a sign, and no minus before zero.

    Example:
        >>> signed(-0.001), signed(1.5)
        ('+0.00', '+1.50')
    """
    return f"{round(value, 2) + 0.0:+.2f}"


def _verdict(data: Mapping[str, Any]) -> str:
    whole, near, excess = data["gain"]["Mahalanobis"], data["gain"]["local"], data["excess"]
    sentence = (
        f"Over the best isotropic kernel a Mahalanobis metric gains {signed(whole['value'])} nats per held-out point "
        f"({_range(whole)}) and a local one {signed(near['value'])} ({_range(near)}), {signed(excess['value'])} "
        f"({_range(excess)}) beyond what it gains on Gaussian data"
    )
    if data["room"]:
        sentence += f"; to the true density there are {data['room']['value']:.2f}"
    return f"{sentence}."


def telling_gain(data: Mapping[str, Any]) -> tuple[str, Mapping[str, float]]:
    """The metric whose gain tells most of a mismatch, and its gain beyond that on Gaussian data."""
    gains = {"Mahalanobis": data["whole_excess"], "local": data["excess"]}
    return max(gains.items(), key=lambda item: float(item[1]["low"]))


def _draw(data: Mapping[str, Any], figure: Any) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    left.grid(True)
    for name, (colour, line, label) in _STYLES.items():
        left.plot(data["t"], data["denoising"][name], line, color=colour, label=label)
    left.set(xlabel="t (0 noise, 1 data)", ylabel="squared error / variance", xlim=(0, 1))
    left.set_ylim(0, None)
    left.legend(fontsize="small")
    gains = {**data["gain"], "local, excess": data["excess"]}
    gains |= {"to the truth": data["room"]} if data["room"] else {}
    right.grid(True)
    for place, gain in enumerate(gains.values()):
        error = [[gain["value"] - gain["low"]], [gain["high"] - gain["value"]]]
        colour = ("C1", "C2", "C3", "C4")[place]
        right.errorbar([gain["value"]], [place], xerr=error, fmt="o", color=colour, capsize=4)
    right.axvline(0, color="C4", linewidth=1)
    right.set_yticks(range(len(gains)), list(gains))
    right.set(xlabel="gain in log-density (nats per point)", ylim=(len(gains) - 0.5, -0.5))
