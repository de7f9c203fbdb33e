"""How collapse is told and drawn."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fluvial.audits.finding import Drawing, Finding


def collapse_finding(data: dict[str, Any]) -> Finding:
    """The finding that shows the curves of :func:`fluvial.support.diagnosis.collapse.measure_collapse`."""
    return Finding(
        name="collapse",
        title="Collapse: does the kernel still average while the sample is undecided?",
        verdict=_verdict(data),
        method=(
            f"Posterior weights of the {data['m']} examples at {data['queries']} held-out points of each of "
            f"{data['tasks']} tasks, x1 + h z at bandwidth h(t), none of whose data is in the support. The effective "
            "sample size is one over the sum of the squared weights, beside the exponential of their entropy. Collapse "
            "is where half of the points have over half of their weight on one example. Predictions take the data for "
            "a Gaussian of their covariance: collapse where 1/2 sum ln(1 + lambda / h^2) = ln m, and 1 + (m - 1) "
            "E (E k)^2 / E k^2 for the effective sample size. Fewer dimensions are the leading principal coordinates "
            "of each support."
        ),
        source="Matsui Smola 2026, Support-Conditioned Flow Matching Is Kernel Smoothing, arXiv 2605.13386; Biroli et "
        "al. 2024, Dynamical Regimes of Diffusion Models, arXiv 2402.18491 (condensation).",
        columns=(
            "leading coordinates",
            "variance held",
            "collapse, predicted t",
            "collapse, measured t",
            "95 % interval",
            f"examples averaged at {100 * data['open_share']:g} % open",
            f"at t = {data['paper_time']:g}",
        ),
        rows=tuple(_row(nested, data["nested"][-1]["variance"]) for nested in data["nested"]),
        data=data,
        drawings=(
            Drawing(
                "Effective sample size, and the time of collapse",
                "Left: how many examples the kernel averages over at held-out points, measured (with the 95 % interval "
                "over tasks) and as a Gaussian of the same covariance would have it; the exponential of the entropy "
                "beside. The shaded times are those before a quarter of the data's variance is all that is left open. "
                "Right: when half of the points follow one example, by the number of leading coordinates.",
                "A falling curve of the effective sample size against time, and the collapse time against dimension.",
                partial(_draw, data),
                size=(10.0, 3.9),
            ),
        ),
    )


def _row(nested: Mapping[str, Any], whole: float) -> tuple[str | int | float, ...]:
    time = nested["time"]
    return (
        nested["dimension"],
        f"{100 * nested['variance'] / whole:.0f} %",
        nested["predicted_time"],
        time["value"],
        f"{time['low']:.3f} to {time['high']:.3f}",
        nested["open_size"]["value"],
        nested["paper_size"]["value"],
    )


def _verdict(data: Mapping[str, Any]) -> str:
    size, time = data["open_size"], data["time"]
    return (
        f"When {100 * data['open_share']:g} % of the data's variance is still open (t = {data['open_time']:.2f}), the "
        f"kernel averages over {size['value']:.1f} of {data['m']} examples ({size['low']:.1f} to {size['high']:.1f}); "
        f"half of the points follow a single example from t = {time['value']:.2f} on (predicted "
        f"{data['predicted_time']:.2f}), with {100 * data['undetermined_at_collapse']:.0f} % of the variance open."
    )


def _draw(data: Mapping[str, Any], figure: Any) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    t = data["t"]
    left.grid(True)
    left.fill_between(t, data["size_low"], data["size_high"], color="C0", alpha=0.25, linewidth=0)
    left.plot(t, data["size"], color="C0", label="measured")
    left.plot(t, data["predicted_size"], color="C1", linestyle="--", label="predicted from the covariance")
    left.plot(t, _exponential(data["entropy"]), color="C2", linestyle=":", label="exp(entropy), measured")
    left.axvspan(0, data["open_time"], color="C4", alpha=0.12, linewidth=0)
    left.axvline(data["time"]["value"], color="C4", linewidth=1.2, label="half of the points collapsed")
    left.set_yscale("log")
    left.set(xlabel="t (0 noise, 1 data)", ylabel="examples averaged over", xlim=(0, 1), ylim=(0.9, 1.3 * data["m"]))
    left.legend(fontsize="small")
    dims = [nested["dimension"] for nested in data["nested"]]
    time = [nested["time"] for nested in data["nested"]]
    values = [point["value"] for point in time]
    errors = [[p["value"] - p["low"] for p in time], [p["high"] - p["value"] for p in time]]
    right.grid(True)
    right.errorbar(dims, values, errors, color="C0", marker="o", capsize=3, label="measured")
    right.plot(dims, [n["predicted_time"] for n in data["nested"]], color="C1", linestyle="--", label="predicted")
    right.set_xscale("log", base=2)
    right.set_xticks(dims, [str(k) for k in dims])
    right.minorticks_off()
    right.set(xlabel="leading coordinates", ylabel="t of collapse", ylim=(0, 1))
    right.legend(fontsize="small")


def _exponential(entropy: list[float]) -> list[float]:
    from math import exp

    return [exp(value) for value in entropy]
