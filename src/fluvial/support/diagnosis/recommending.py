"""What to do in which regime, with the figures that speak for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fluvial.support.diagnosis.geometry_view import signed
from fluvial.support.diagnosis.regimes import Recommendation
from fluvial.support.diagnosis.scarcity_view import falling
from fluvial.support.diagnosis.thresholds import COLLAPSED_SIZE, GEOMETRY_NATS, SCARCE_ERROR

Data = Mapping[str, Any]


def recommend(
    regimes: Sequence[str], collapse: Data, geometry: Data, scarcity: Data, command: str | None
) -> tuple[Recommendation, ...]:
    """What to do about the regimes.

    Args:
        regimes: Those that apply.
        collapse: ``data`` of that finding.
        geometry: Likewise.
        scarcity: Likewise.
        command: How a model is trained over tasks like these; None where there are too few classes for that.
    """
    if not regimes and scarcity["error_here"] <= SCARCE_ERROR:
        return (_as_it_is(collapse, scarcity),)
    found: list[Recommendation] = []
    if "geometry mismatch" in regimes:
        found.append(_metric(geometry))
    if "collapsed" in regimes:
        found += [_projection(collapse), _grid(collapse)]
    if "scarce" in regimes:
        found.append(_more_examples(scarcity))
    found.append(_amortise(scarcity, command))
    return tuple(found)


def _as_it_is(collapse: Data, scarcity: Data) -> Recommendation:
    return Recommendation(
        "Use the exact head as it is, fluvial.support.KernelAttention: no training is needed",
        f"its posterior mean is off by {100 * scarcity['error_here']:.1f} % of the variance alone, and it averages "
        f"over {collapse['open_size']['value']:.1f} examples where {100 * collapse['open_share']:g} % is open",
    )


def _metric(geometry: Data) -> Recommendation:
    dim = geometry["dimension"]
    whole, near = geometry["whole_excess"], geometry["excess"]
    figures = (
        "nats per held-out point over the isotropic kernel, beyond Gaussian data: Mahalanobis "
        f"{signed(whole['value'])} ({whole['low']:.2f} to {whole['high']:.2f}); local {signed(near['value'])} "
        f"({near['low']:.2f} to {near['high']:.2f})"
    )
    if whole["low"] > GEOMETRY_NATS * dim:
        return Recommendation(
            "Whiten each task by its support's shrunk covariance, and let the flow end at a noise of about "
            f"{geometry['bandwidth']['Mahalanobis']:.2f} of the spread there (CondOT(sigma_min=...)); the weights "
            "alone are KernelAttention(metric=M)",
            f"{figures}; {_denoising(geometry, 'Mahalanobis')}",
        )
    return Recommendation(
        "Do not whiten: one metric for the whole space does not mend this; use heads with projections of their own, "
        "KernelAttention(heads=H, dim=d), or a trained model, which can bend its metric from place to place",
        f"{figures}; {_denoising(geometry, 'local')}",
    )


def _denoising(geometry: Data, name: str) -> str:
    less = geometry["denoising_gain"][name]
    return (
        f"the posterior mean's error changes by {-100 * less['value']:+.2g} % of the variance "
        f"({-100 * less['high']:+.2g} to {-100 * less['low']:+.2g})"
    )


def _projection(collapse: Data) -> Recommendation:
    nested = collapse["nested"]
    whole = nested[-1]
    fitting = [row for row in nested[:-1] if row["open_size"]["value"] >= COLLAPSED_SIZE]
    start = f"{whole['open_size']['value']:.1f} examples are averaged over in {whole['dimension']} coordinates"
    if not fitting:
        return Recommendation(
            "Fewer dimensions do not help here: train a model over tasks instead of projecting",
            f"{start}, and fewer than {COLLAPSED_SIZE:g} in any number of leading ones",
        )
    best = fitting[-1]
    return Recommendation(
        f"Let each head see a projection on {best['dimension']} dimensions or fewer: KernelAttention(heads=H, dim="
        f"{whole['dimension']}, rank={best['dimension']})",
        f"{start}, {best['open_size']['value']:.1f} in the {best['dimension']} leading ones, which hold "
        f"{100 * best['variance'] / whole['variance']:.0f} % of the variance",
    )


def _grid(collapse: Data) -> Recommendation:
    time, late = collapse["time"]["value"], collapse["late_time"]["value"]
    return Recommendation(
        f"Spend the solver's steps before t = {late:.2f}: one step from there is enough for the exact field",
        f"half of the points follow a single example from t = {time:.2f} on, 90 % from {late:.2f}, and the way to a "
        "single example is straight",
    )


def _more_examples(scarcity: Data) -> Recommendation:
    rate, m = scarcity["rate_here"], scarcity["m"]
    return Recommendation(
        f"Collect more examples: {2 * m} would take {100 * (1 - 2 ** -rate['value']):.0f} % off the error, "
        f"{4 * m} {100 * (1 - 4 ** -rate['value']):.0f} %",
        f"the error, {100 * scarcity['error_here']:.1f} % of the variance, falls {falling(rate)}",
    )


def _amortise(scarcity: Data, command: str | None) -> Recommendation:
    at_least = "" if scarcity["known_truth"] else "at least "
    evidence = (
        f"a model that knows the family can take back {at_least}{100 * scarcity['error_here']:.1f} % of the variance, "
        "the distance of the kernel's posterior mean from the true one; whether it does, fluvial support evaluate says"
    )
    if command is None:
        return Recommendation(
            "Give labels, or more classes: a model is trained over tasks of at least 3 classes", evidence
        )
    return Recommendation(f"Train a model over many such tasks: {command}", evidence)
