"""How scarcity is told and drawn."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fluvial.audits.finding import Drawing, Finding

_NAMES = {
    "error": "the posterior mean's error",
    "velocity": "the velocity's error",
    "adapted": "the error at the adapted bandwidth",
    "mmd2": "the plug-in's MMD²",
}


def scarcity_finding(data: dict[str, Any]) -> Finding:
    """The finding that shows the curves of :func:`fluvial.support.diagnosis.scarcity.measure_scarcity`."""
    return Finding(
        name="scarcity",
        title="Scarcity: would more examples help?",
        verdict=_verdict(data),
        method=_method(data),
        source="Matsui Smola 2026, Support-Conditioned Flow Matching Is Kernel Smoothing, arXiv 2605.13386 (rates); "
        "Tsybakov 2009, Introduction to Nonparametric Estimation, chapter 1. The estimate from disjoint supports is "
        "fluvial's.",
        columns=(
            "examples m",
            "posterior-mean error, % of the variance",
            "95 % interval",
            "velocity error (squared data units)",
            "error at h ~ m^(-1/(4+d)), %",
            "MMD² of the plug-in",
            "its 1/m line",
        ),
        rows=tuple(_row(data, k) for k in range(len(data["sizes"]))),
        data=data,
        drawings=(
            Drawing(
                "Errors, and the plug-in's MMD², by number of examples",
                "Left: errors of the kernel's posterior mean and velocity with their fitted rates; the grey line falls "
                "as m^(-4/(4+d)), the classical rate of a kernel regression. Right: the plug-in's MMD² beside "
                "(1 - E k)/m, which it follows in every dimension because the plug-in draws its points from the "
                "support: it says nothing of scarcity.",
                "Falling lines in doubly logarithmic coordinates.",
                partial(_draw, data),
                size=(10.0, 3.9),
            ),
        ),
        notes=_notes(data),
    )


def _row(data: Mapping[str, Any], k: int) -> tuple[str | int | float, ...]:
    interval = data["error_interval"][k]
    return (
        data["sizes"][k],
        100 * data["error"][k],
        f"{100 * interval['low']:.3g} to {100 * interval['high']:.3g}",
        data["velocity"][k],
        100 * data["adapted"][k],
        data["mmd2"][k],
        data["mmd2_line"][k],
    )


def _method(data: Mapping[str, Any]) -> str:
    against = (
        "against the true posterior mean"
        if data["known_truth"]
        else "as half the mean squared difference between the estimates of two disjoint supports, which is their "
        "variance: a lower bound of the error, which leaves the bias out"
    )
    return (
        f"The squared error of the kernel's weighted mean at {data['queries']} held-out points of each of "
        f"{data['tasks']} tasks, {against}; averaged over t = .05, .15, ..., .95. The velocity's is that times the "
        "squared rate at which the path turns the mean into a velocity. The adapted bandwidth is the data's spread in "
        f"one coordinate times m^(-1/(4+d)), d = {data['dimension']}. Rates are slopes on logarithms. Squared MMDs are "
        "unbiased, with the median distance of the held-out points as bandwidth at all sizes."
    )


def _verdict(data: Mapping[str, Any]) -> str:
    rate, adapted = data["rate_here"], data["rates"]["adapted"]
    at_least = "" if data["known_truth"] else "at least "
    sentence = (
        f"With {data['m']} examples the error of the kernel's posterior mean is {at_least}"
        f"{100 * data['error_here']:.1f} % of the data's variance, and falls {falling(rate)}"
    )
    if rate["value"] is not None:
        sentence += f": twice as many would take {100 * (1 - 2 ** -rate['value']):.0f} % off it"
    line = f"beside 4/(4+d) = {data['minimax_rate']:.2f}"
    return f"{sentence}. At the adapted bandwidth it falls {falling(adapted)}, {line}."


def falling(rate: Mapping[str, float | None]) -> str:
    """How an error falls with the number of examples, with the interval.

    Example:
        >>> falling({"value": 0.5, "low": 0.4, "high": None}), falling({"value": None, "low": None, "high": None})
        ('as m^-0.50 (0.40 to ∞)', 'at a rate that cannot be told')
    """
    value, low, high = rate["value"], rate["low"], rate["high"]
    if value is None:
        return "at a rate that cannot be told"
    start = "-∞" if low is None else f"{low:.2f}"
    return f"as m^-{value:.2f} ({start} to {'∞' if high is None else f'{high:.2f}'})"


def _notes(data: Mapping[str, Any]) -> tuple[str, ...]:
    velocity, mmd2 = data["rates"]["velocity"], data["rates"]["mmd2"]
    notes = [
        f"The velocity's error falls {falling(velocity)}; "
        f"the posterior mean's rate less that of h² is 2/(4+d) = {data['minimax_velocity_rate']:.2f}. Where the "
        "bandwidth is far below the data's spread, the values averaged differ by h alone, and the posterior mean at "
        f"the adapted bandwidth can fall as fast as m^(-6/(4+d)) = m^-{data['local_rate']:.2f}."
    ]
    notes.append(
        f"The plug-in's MMD² falls {falling(mmd2)}; the sampling of the support alone makes it fall as m^-1 "
        "(MMD ~ m^-1/2) in every dimension."
    )
    for name, sizes in data["left_out"].items():
        if sizes:
            notes.append(
                f"The rate of {_NAMES[name]} leaves out the sizes {', '.join(map(str, sizes))}, where the mean over "
                "tasks is not positive."
            )
    if max(data["sizes"]) < data["m"]:
        notes.append(
            f"There are too few data for two disjoint supports of {data['m']}: the error there is extrapolated from "
            f"{max(data['sizes'])} and fewer."
        )
    return tuple(notes)


def _draw(data: Mapping[str, Any], figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    sizes = data["sizes"]
    curves = {"error": ("C0", "o", "posterior mean / variance"), "adapted": ("C2", "s", "at h ~ m^(-1/(4+d))")}
    left.grid(True)
    for name, (colour, marker, label) in curves.items():
        rate = data["rates"][name]["value"]
        left.plot(sizes, data[name], marker, color=colour, label=f"{label}{_rate(rate)}")
        if rate is not None:
            left.plot(sizes, _line(sizes, data[name], rate), color=colour)
    scale = data["error"][0] / (data["velocity"][0] or 1)
    velocity, rate = [scale * value for value in data["velocity"]], data["rates"]["velocity"]["value"]
    left.plot(sizes, velocity, "^--", color="C1", linewidth=1.2, label=f"velocity, scaled{_rate(rate)}")
    slope = data["minimax_rate"]
    if data["rates"]["adapted"]["value"] is not None:
        left.plot(sizes, _line(sizes, data["adapted"], slope), ":", color="C4", label=f"4/(4+d) = {slope:.2f}")
    left.axvline(data["m"], color="C4", linewidth=1)
    left.set(xlabel="examples m", ylabel="squared error")
    right.grid(True)
    shown = [(size, value) for size, value in zip(sizes, data["mmd2"], strict=True) if value > 0]
    right.plot([s for s, _ in shown], [v for _, v in shown], "o", color="C3", label="MMD² of the plug-in")
    right.plot(sizes, data["mmd2_line"], color="C4", label="(1 - E k)/m, in any dimension")
    right.set(xlabel="examples m", ylabel="MMD²")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.legend(fontsize="small")


def _rate(rate: float | None) -> str:
    return "" if rate is None else f": rate {rate:.2f}"


def _line(sizes: Sequence[int], values: Sequence[float], rate: float) -> list[float]:
    """A line of a rate through the centre of the positive points."""
    from math import exp, log

    shown = [(log(size), log(value)) for size, value in zip(sizes, values, strict=True) if value > 0]
    centre, level = (sum(part) / len(shown) for part in zip(*shown, strict=True))
    return [exp(level - rate * (log(size) - centre)) for size in sizes]
