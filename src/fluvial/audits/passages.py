"""Where the nets of a sweep pass from memorising to generalising, and what Fréchet distance alone would have missed."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fluvial.audits.cells import Cell

MEMORISES = 0.5
"""Share of copies from which on a net memorises."""

NEAR = 0.5
"""Nearest-neighbour ratio below which samples lie nearer to the training data than to what is fresh."""

GENERALISES = 0.05, 0.75
"""Largest share of copies (above chance) and least nearest-neighbour ratio of a net that generalises."""

UNDERFITS = 1.25
"""Nearest-neighbour ratio above which a net has not learned its data well enough to be judged."""

AS_GOOD = 1.3
"""A Fréchet distance is about as good as another up to this factor."""

SPACES = {"features": "classifier features", "values": "raw values"}


def crossings(x: Sequence[float], y: Sequence[float], level: float) -> list[float]:
    """Where a curve through points passes a level, linear between them in log x.

    Args:
        x: Positive, increasing.
        y: Values at ``x``.
        level: The level; a point on it counts as above.

    Returns:
        Every passage, in the order of ``x``.

    Example:
        >>> crossings([10.0, 100.0, 1000.0], [1.0, 0.75, 0.25], 0.5)
        [316.22776601683796]
    """
    found = []
    for (left, a), (right, b) in pairwise(zip(x, y, strict=True)):
        if (a >= level) != (b >= level):
            share = (a - level) / (a - b)
            found.append(math.exp((1 - share) * math.log(left) + share * math.log(right)))
    return found


def passage_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """Where the nets of one width pass: the sizes around it, and the interpolated ones by both criteria."""
    sizes, rates = [float(cell.n) for cell in cells], [cell.copy_rate for cell in cells]
    by_rate = crossings(sizes, rates, MEMORISES)
    by_ratio = crossings(sizes, [cell.neighbour_ratio for cell in cells], NEAR)
    memorising = [cell.n for cell in cells if cell.copy_rate >= MEMORISES]
    last = max(memorising, default=None)
    return {
        "width": cells[0].width,
        "from": last,
        "to": min((cell.n for cell in cells if last is not None and cell.n > last), default=None),
        "copy_rate_half_at": by_rate[-1] if by_rate else None,
        "neighbour_ratio_half_at": by_ratio[-1] if by_ratio else None,
        "passages": len(by_rate),
        "largest_copy_rate": max(rates),
        "smallest_copy_rate": min(rates),
    }


def width_passage_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """At one size: the width at which nets begin to memorise, by interpolation in log width."""
    widths, rates = [float(cell.width) for cell in cells], [cell.copy_rate for cell in cells]
    found = crossings(widths, rates, MEMORISES)
    return {"n": cells[0].n, "copy_rate_half_at_width": found[0] if found and rates[0] < MEMORISES else None}


def generalises(cell: Cell) -> bool:
    """Whether a net copies no more than by chance and its samples keep a fresh datum's distance, or nearly."""
    copies, ratio = GENERALISES
    return cell.copy_rate <= copies + cell.chance and cell.neighbour_ratio >= ratio


def _best_generalising(cells: Sequence[Cell], space: str) -> float | None:
    return min((cell.frechet[space] for cell in cells if space in cell.frechet and generalises(cell)), default=None)


def missed_by_frechet(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Memorising nets whose Fréchet distance is about as good as the best one of a net that generalises."""
    found = []
    for space in SPACES:
        best = _best_generalising(cells, space)
        if best is None:
            continue
        found += [
            {
                "n": cell.n,
                "width": cell.width,
                "space": space,
                "copy_rate": cell.copy_rate,
                "frechet": cell.frechet[space],
                "best_generalising": best,
            }
            for cell in cells
            if space in cell.frechet and cell.copy_rate >= MEMORISES and cell.frechet[space] <= AS_GOOD * best
        ]
    return found


def blind_frechet(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The smallest size, by space, whose own data have about as good a distance as the best net that generalises."""
    found = []
    for space in SPACES:
        best = _best_generalising(cells, space)
        if best is None:
            continue
        scores = {cell.n: cell.frechet_subset[space] for cell in cells}
        good = [n for n, score in scores.items() if score <= AS_GOOD * best]
        if good:
            n = min(good)
            found.append({"n": n, "space": space, "frechet_subset": scores[n], "best_generalising": best})
    return found
