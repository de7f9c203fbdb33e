"""How the gap to the exact field is told and drawn."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from fluvial.audits.finding import Drawing, Finding

SETS = {
    "train": "training interpolants",
    "held_out": "held-out interpolants",
    "trajectory": "the model's own trajectories",
}
_STYLES = {"train": ("-", "C0"), "held_out": ("--", "C1"), "trajectory": ("-.", "C2")}


def gap_finding(data: dict[str, Any], reservation: str) -> Finding:
    """The finding that shows the curves of :func:`fluvial.audits.gap.approximation`."""
    names = [name for name in SETS if name in data]
    return Finding(
        name="approximation",
        title="Approximation: how far is the learned field from the exact one?",
        verdict=_verdict(data, names),
        method=_method(data),
        source="Bertrand et al. 2025, On the Closed-Form of Flow Matching, arXiv 2506.03719, figure 2; the departure "
        "is fluvial's.",
        columns=("points on", "mean gap over t", "95 % interval", "exact field's mean square", "largest gap at t"),
        rows=tuple(_row(data, name) for name in names),
        data=data,
        drawings=_drawings(data, names),
        notes=_notes(data),
        reservation=reservation,
    )


def _row(data: Mapping[str, Any], name: str) -> tuple[str | float, ...]:
    curve = data[name]
    low, high = curve["mean_interval"]
    largest = data["t"][max(range(len(data["t"])), key=curve["gap"].__getitem__)]
    return SETS[name], curve["mean"], f"{low:.3g} to {high:.3g}", curve["mean_exact_square"], largest


def _verdict(data: Mapping[str, Any], names: list[str]) -> str:
    t, *parts = data["t"], *(f"{data[name]['mean']:.3g} on {SETS[name]}" for name in names)
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    sentence = f"Averaged over t from {t[0]:g} to {t[-1]:g}, the squared gap to the exact field is {listed}"
    sentence += f", where the exact field's own square is {data['train']['mean_exact_square']:.3g} on the first"
    if data["departure"] is None:
        return f"{sentence}."
    low, high = data["departure_interval"]
    return (
        f"{sentence}. On training data it is {data['departure']:.2f} ({low:.2f} to {high:.2f}) of what a model without "
        "memory of them would show: 0 is the exact field itself, which copies, 1 no memory."
    )


def _method(data: Mapping[str, Any]) -> str:
    steps = f" or on trajectories of the learned field ({data['steps']} Euler steps)" if data["steps"] else ""
    return (
        "Mean over draws of the squared norm of the difference between the learned velocity and the exact "
        f"velocity of the training data, at {data['draws']} points per time between noise and data{steps}, with the "
        "same noise for all sets; means over t by the trapezoidal rule; intervals are 1.96 standard errors over the "
        "draws, given the data. A model without memory has the same loss on training as on held-out data, so its gap "
        "on training data would be the held-out loss less the part that is irreducible on training data; the gap "
        "that is seen, over that one, is the departure from the exact field."
    )


def _notes(data: Mapping[str, Any]) -> tuple[str, ...]:
    if "held_out" not in data:
        return ("There are no held-out data: whether a gap is lack of memory or lack of training cannot be told.",)
    if data["departure"] is None:
        return ("The loss on held-out data is not above the irreducible one on training data: there is no departure.",)
    return ()


def _drawings(data: Mapping[str, Any], names: list[str]) -> tuple[Drawing, ...]:
    first = Drawing.on_axes(
        "Gap to the exact field",
        "Squared gap to the exact field against time, 95 % intervals.",
        f"{len(names)} curves of the squared gap against time.",
        partial(_draw_gaps, data, names),
    )
    if data["relative_gap"] is None:
        return (first,)
    second = Drawing.on_axes(
        "Loss, and its parts",
        "On training data the loss is the gap plus the irreducible part, which falls to 0 where the exact field "
        "singles out training data. There a model that memorises has no loss left on training data; one that "
        "generalises has nearly that of held-out data.",
        "Curves of the loss on training and on held-out interpolants, and of its irreducible part, against time.",
        partial(_draw_losses, data),
    )
    return first, second


def _draw_gaps(data: Mapping[str, Any], names: list[str], axes: Any) -> None:
    for name in names:
        style, colour = _STYLES[name]
        gap, error = torch.tensor(data[name]["gap"]), torch.tensor(data[name]["standard_error"])
        axes.plot(data["t"], gap, style, color=colour, label=SETS[name])
        low, high = (gap - 1.96 * error).clamp_min(0), gap + 1.96 * error
        axes.fill_between(data["t"], low, high, color=colour, alpha=0.25, linewidth=0)
    if max(max(data[name]["gap"]) for name in names) > 0:  # a logarithmic axis has no place for zeros alone
        axes.set_yscale("log", nonpositive="clip")
    axes.set_xlabel("t (0 noise, 1 data)")
    axes.set_ylabel(r"$E\,\|u_\theta - u^*\|^2$ (squared data units)")
    axes.legend()


def _draw_losses(data: Mapping[str, Any], axes: Any) -> None:
    for name in ("train", "held_out"):
        style, colour = _STYLES[name]
        axes.plot(data["t"], data[name]["loss"], style, color=colour, label=f"loss on {SETS[name]}")
    axes.plot(data["t"], data["train"]["unexplained"], ":", color="C4", label="irreducible on training interpolants")
    if data["departure_time"] is not None:
        label = "gap on training interpolants reaches half of the held-out loss"
        axes.axvline(data["departure_time"], color="C4", linewidth=1, label=label)
    axes.set(xlabel="t (0 noise, 1 data)", ylabel="mean squared error (squared data units)")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(fontsize="small", loc="upper left")
