"""How a memorization finding reads: its sentence, its table and its notes."""

from collections.abc import Mapping
from typing import Any

from fluvial.audits.finding import Finding
from fluvial.audits.memorization_drawings import Shown, drawings

_TITLE = "Memorization: are there copies of training data?"
_SOURCE = (
    "Meehan, Chaudhuri & Dasgupta 2020, A Non-Parametric Test to Detect Data-Copying in Generative Models (C_T); Alaa "
    "et al. 2022, How Faithful is your Synthetic Data? (authenticity); Bates et al. 2023, Testing for outliers with "
    "conformal p-values; Yoon et al. 2023, Diffusion Probabilistic Models Generalize when They Fail to Memorize (NNDR "
    "below a third)."
)


def present(data: Mapping[str, Any], shown: Shown) -> Finding:
    """The finding of these figures."""
    fresh = "held-out data" if data["held_out"] is not None else "training data left out in turn"
    return Finding(
        name="memorization",
        title=_TITLE,
        verdict=_verdict(data, fresh),
        method=_method(data, fresh),
        source=_SOURCE,
        columns=(
            "set",
            "rows",
            "mean distance to the nearest training datum",
            "DCR, 5th percentile",
            "DCR, median",
            "NNDR, median",
            "share with NNDR below 1/3",
            "authenticity",
        ),
        rows=_rows(data),
        data=data,
        drawings=drawings(data, shown, fresh),
        notes=_notes(data),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.4g} %"


def _verdict(data: Mapping[str, Any], fresh: str) -> str:
    n, copies, exact = data["samples"], data["copies"], data["exact_copies"]
    if copies:
        are = "is a copy" if copies == 1 else "are copies"
        which = "all" if exact == copies else "none" if exact == 0 else f"{exact:,}"
        found = f"{copies:,} of {n:,} samples ({_percent(copies / n)}) {are} of training data, {which} of them exact"
    else:
        found = f"No copy was found among {n:,} samples (copy rate below {_percent(data['copy_rate_upper'])}, 95 %)"
    level = f"(p = {data['p_value']:.2g}, alarm at {data['alpha']:g})"
    if data["alarm"]:
        end = f"they are nearer to them, or more often very near, than chance allows {level}"
    elif copies:
        end = f"their number and their distances alone raise no alarm {level}"
    else:
        end = f"nothing beyond chance {level}"
    return f"{found}; samples are {data['ratio']:.3g} times as far from the training data as {fresh}: {end}."


def _method(data: Mapping[str, Any], fresh: str) -> str:
    image = ", or to uint8," if data["kind"] == "image" else ""
    null = f"{fresh} and training data left out in turn" if data["held_out"] is not None else fresh
    return (
        "Euclidean distances to the nearest training datum (DCR), exact; NNDR is that over the distance to the second "
        "nearest. The local ratio is the distance of a sample to its nearest training datum over that datum's own "
        f"nearest-neighbour distance. A copy equals its datum up to rounding{image} or has a local ratio so small "
        f"that, among fresh data ({null}), it is beyond chance by Benjamini and Hochberg's rule: at most "
        f"{100 * data['false_discovery_rate']:g} % of the near copies are expected to be fresh. The alarm joins four "
        "tests by Bonferroni's rule: Fisher's exact test of the number of samples below the 1 % and the 0.1 % quantile "
        "and below half the minimum of the training data's own local ratios, and the C_T test of the distances; fresh "
        f"data raise it at a rate of at most {data['alpha']:g}. Authenticity is the share of samples that are further "
        "from their nearest training datum than that is from its own nearest one."
    )


def _rows(data: Mapping[str, Any]) -> tuple[tuple[str | int | float, ...], ...]:
    names = {"samples": ("samples", data["samples"])}
    if data["held_out"] is not None:
        names["fresh"] = ("held-out data", data["held_out"])
    distinct = data["train"] - data["duplicates"]["equal_rows"] - data["duplicates"]["merged_rows"]
    names["left_out"] = ("training data, left out in turn", distinct)
    authentic = {**data["authenticity_without_duplicates"], **data["authenticity"]}
    return tuple(
        (
            label,
            count,
            data["mean_distance"][name],
            data["dcr"][name]["percentile_5"],
            data["dcr"][name]["median"],
            data["nndr"][name]["median"],
            data["nndr_below_third"][name],
            authentic[name],
        )
        for name, (label, count) in names.items()
    )


def _notes(data: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    doubles = data["duplicates"]
    if doubles["equal_rows"] or doubles["near_rows"]:
        notes.append(
            f"The training data hold duplicates: {doubles['equal_rows']:,} rows repeat another one bit by bit, and "
            f"{doubles['near_rows']:,} nearly do (nearer than {doubles['near_distance']:.3g}), of which "
            f"{doubles['merged_rows']:,} are in groups far from all other rows. Models copy repeated data first. Equal "
            "rows, and such groups, count as one datum in the local ratio, NNDR, the search for copies and comparisons "
            "with training data; the published authenticity takes every sample near a doubled datum for authentic."
        )
    if data["held_out"] is None:
        notes.append(
            "Without held-out data, samples are compared with the training data themselves, each left out in turn. "
            "That cannot tell whether the training data lie closer together than fresh data would (repeated subjects, "
            "augmented images): samples that follow such data too closely then look fresh. The false-alarm rate is "
            "approximate, and C_T is not defined."
        )
    elif data["held_out"] < 100:
        notes.append(
            f"With {data['held_out']} held-out data, no sample's p-value can fall below "
            f"{1 / (data['held_out'] + 1):.2g}."
        )
    excess, distance = data["p_values_of_tests"]["copies"], data["p_values_of_tests"]["distance"]
    level = data["alpha"] / (len(excess) + 1)
    if distance <= level < min(excess):
        notes.append(
            "Only the distances as a whole raise the alarm, not the number of very near samples: blurred samples, "
            "which lie near everything, look like this as well as copies with noise do."
        )
    if data["fresh_below_half"] > 0.01:
        notes.append(
            f"Of the fresh data, {_percent(data['fresh_below_half'])} have a local ratio below a half, as happens in "
            "few dimensions: copies with noise can hardly be told from fresh data here, exact and very near ones can."
        )
    if data["copies"] and not data["alarm"]:
        notes.append("The tests do not exclude chance at the level of the alarm: judge the listed copies by eye.")
    if not data["copies"]:
        notes.append("The bound on the copy rate is for copies as near as those that are listed when found.")
    return tuple(notes)
