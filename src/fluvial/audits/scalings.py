"""From memorising to generalising: what a sweep over training set sizes and widths says.

Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", figure 2; Yoon et al. 2023, "Diffusion
Probabilistic Models Generalize when They Fail to Memorize".
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fluvial.audits.cells import Cell
from fluvial.audits.finding import Finding
from fluvial.audits.passages import (
    AS_GOOD,
    GENERALISES,
    MEMORISES,
    NEAR,
    SPACES,
    UNDERFITS,
    blind_frechet,
    missed_by_frechet,
    passage_of,
    width_passage_of,
)
from fluvial.audits.scaling_figures import drawings
from fluvial.kinds import checked


@checked
def scaling(cells: Sequence[Cell], *, compute: str = "flops") -> Finding:
    """Where nets of each width pass from memorising to generalising as the training set grows.

    A net memorises where at least half of its samples are copies (nearer to the nearest training datum than to a
    third of the distance to the second nearest). The passage is where that share falls through one half, by
    interpolation in log N between the two sizes around it; the nearest-neighbour ratio's way through one half is
    given beside it.

    Args:
        cells: The nets, as :func:`fluvial.audits.sweep.run_sweep` returns them; one for each size and width.
        compute: What the nets have in common, ``"flops"`` or ``"updates"``, for the text.

    Returns:
        A finding whose ``data`` holds ``cells``; ``passages``, for each width the sizes where the share of copies and
        the nearest-neighbour ratio pass one half; ``widths``, for each size the width from which on nets memorise;
        ``missed``, memorising nets whose Fréchet distance is as good as that of the best net that generalises; and
        ``blind``, for each space the smallest size whose data themselves, which a mere copier reproduces, have one.

    Raises:
        ValueError: If there are no cells, or two of one size and width.

    Source:
        Bertrand et al. 2025, figure 2; Yoon et al. 2023.
    """
    if not cells:
        raise ValueError("cells must hold at least one net, got none")
    if len({(cell.n, cell.width) for cell in cells}) < len(cells):
        raise ValueError("cells must hold one net for each size and width, got two of one")
    if compute not in ("flops", "updates"):
        raise ValueError(f"compute must be 'flops' or 'updates', got {compute!r}")
    ordered = sorted(cells, key=lambda cell: (cell.width, cell.n))
    widths = sorted({cell.width for cell in cells})
    sizes = sorted({cell.n for cell in cells})
    passages = [passage_of([cell for cell in ordered if cell.width == width]) for width in widths]
    across = [width_passage_of([cell for cell in ordered if cell.n == n]) for n in sizes]
    missed, blind = missed_by_frechet(ordered), blind_frechet(ordered)
    return Finding(
        name="scaling",
        title="Scaling: from how many training data on does the model generalise?",
        verdict=_verdict(passages, missed, blind),
        method=_method(ordered, compute),
        source=(
            "Bertrand et al. 2025, On the Closed-Form of Flow Matching, arXiv 2506.03719, figure 2; rule for copies: "
            "Yoon et al. 2023, Diffusion Probabilistic Models Generalize when They Fail to Memorize."
        ),
        columns=_columns(ordered),
        rows=tuple(_row(cell) for cell in ordered),
        data={
            "cells": [asdict(cell) for cell in ordered],
            "passages": passages,
            "widths": across,
            "missed": missed,
            "blind": blind,
            "compute": compute,
            "criteria": {"copy_rate": MEMORISES, "neighbour_ratio": NEAR, "as_good": AS_GOOD},
        },
        drawings=drawings(ordered),
        notes=_notes(ordered, passages),
    )


def _verdict(
    passages: Sequence[dict[str, Any]], missed: Sequence[dict[str, Any]], blind: Sequence[dict[str, Any]]
) -> str:
    text = "; ".join(map(_passage_words, passages))
    if missed:
        worst = max(missed, key=lambda found: found["copy_rate"])
        text += (
            f". Fréchet distance alone would have missed it: at N = {worst['n']:,} and width {worst['width']} it is "
            f"{worst['frechet']:.3g} in {SPACES[worst['space']]}, beside {worst['best_generalising']:.3g} of the best "
            f"net that generalises, while {worst['copy_rate']:.0%} of the samples are copies"
        )
    elif blind:
        least = min(blind, key=lambda found: found["n"])
        text += (
            f". Fréchet distance alone cannot tell a copier from N = {least['n']:,} on: these data themselves are at "
            f"{least['frechet_subset']:.3g} from the held-out data in {SPACES[least['space']]}, and the best net that "
            f"generalises is at {least['best_generalising']:.3g}"
        )
    return text[0].upper() + text[1:] + "."


def _passage_words(passage: dict[str, Any]) -> str:
    head = f"with width {passage['width']}"
    if passage["from"] is None:
        return f"{head} no size measured makes half of the samples copies (at most {passage['largest_copy_rate']:.0%})"
    if passage["to"] is None:
        return f"{head} at least half of the samples are copies up to the largest size, N = {passage['from']:,}"
    half, ratio = passage["copy_rate_half_at"], passage["neighbour_ratio_half_at"]
    beside = "" if ratio is None else f"; the nearest-neighbour ratio passes .5 at about {_count(ratio)}"
    return (
        f"{head} the passage from memorising to generalising lies between N = {passage['from']:,} and "
        f"{passage['to']:,} (half of the samples are copies at about N = {_count(half)}{beside})"
    )


def _count(value: float) -> str:
    """A number of data to two digits, which is all that interpolation gives.

    Example:
        >>> _count(1234.0), _count(17.2)
        ('1,200', '17')
    """
    return f"{float(f'{value:.2g}'):,.0f}"


def _method(cells: Sequence[Cell], compute: str) -> str:
    first = cells[0]
    equal = "as many floating point operations, so that narrower nets make more updates"
    if compute == "updates":
        equal = "as many updates, so that wider nets have more computing time"
    return (
        "Nets are trained on the first N data of one permutation of the training data, all with the same batch size; "
        f"small subsets recur more often, with other noise. Nets of different width get {equal}. Error: mean over "
        f"t of the squared distance to the exact velocity of the net's own N data. {first.samples:,} samples of each "
        "net: a sample is a copy if its distance to the nearest of the N is less than a third of that to the second "
        "nearest; chance is the share of held-out data that this holds for; the nearest-neighbour ratio is the "
        "samples' mean distance to the nearest of the N over that of held-out data. Fréchet distances to the "
        "held-out data, in raw values and in features of a classifier of the whole training data, which no subset "
        "changes; of the N data themselves: what a net that only copies would score."
    )


def _columns(cells: Sequence[Cell]) -> tuple[str, ...]:
    spaces = [f"Fréchet, {space}" for space in _spaces(cells)]
    return (
        "width, N",
        "updates",
        "error / exact square",
        "copies",
        "chance",
        "neighbour ratio",
        *spaces,
        *(f"{name}, of the N" for name in spaces),
    )


def _spaces(cells: Sequence[Cell]) -> list[str]:
    return [space for space in SPACES if space in cells[0].frechet]


def _row(cell: Cell) -> tuple[str | int | float, ...]:
    spaces = _spaces([cell])
    return (
        f"{cell.width}, {cell.n:,}",
        cell.updates,
        cell.relative_gap,
        f"{cell.copy_rate:.1%}",
        f"{cell.chance:.1%}",
        cell.neighbour_ratio,
        *(cell.frechet[space] for space in spaces),
        *(cell.frechet_subset[space] for space in spaces),
    )


def _notes(cells: Sequence[Cell], passages: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    notes = ["One net per size and width: another seed moves every figure, near the passage most."]
    several = [passage["width"] for passage in passages if passage["passages"] > 1]
    if several:
        names = ", ".join(map(str, several))
        notes.append(f"The share of copies does not fall steadily for width {names}; the last passage is given.")
    far = [cell for cell in cells if cell.neighbour_ratio > UNDERFITS]
    if far:
        names = ", ".join(f"width {cell.width} at N = {cell.n:,}" for cell in far[:6]) + (", ..." if far[6:] else "")
        notes.append(
            "Samples lie farther from the training data than fresh data do, which more updates or a wider net would "
            f"mend; until then such a net says little about copying: {names}."
        )
    chance = max(cell.chance for cell in cells)
    if chance > GENERALISES[0]:
        notes.append(
            f"The rule takes up to {chance:.0%} of held-out data for copies, as it does in few dimensions or where "
            "training data occur twice: read shares of copies beside that."
        )
    return tuple(notes)
