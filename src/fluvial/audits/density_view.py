"""Log-densities for the eye: one histogram of training and held-out data, as a picture or in a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from fluvial.audits.density import HELD_OUT, TRAIN, Scored
from fluvial.audits.drawing import draw_png

_COLOURS = {TRAIN: "C0", HELD_OUT: "C1"}
_FAR = 4  # quartile ranges below the lower quartile beyond which data share the first bin


@dataclass(frozen=True)
class Shares:
    """Shares of data in common bins of log-density.

    Args:
        edges: Ends of the bins, ascending, shape ``(b + 1,)``.
        shares: For each part, by name, the share of its data in each bin, shape ``(b,)``.
        beyond: Whether the first bin holds what lies below it too.
    """

    edges: Float[np.ndarray, " c"]
    shares: dict[str, Float[np.ndarray, " b"]]
    beyond: bool


def shares_of(scored: Sequence[Scored], bins: int) -> Shares:
    """Bins over all parts; data far below the rest are counted in the first, which they would else push aside.

    Args:
        scored: The parts.
        bins: How many bins.

    Example:
        >>> from fluvial.audits.density import choose, score
        >>> from fluvial.densities import Trace
        >>> from fluvial.solvers.sampling import Solver
        >>> part = choose(fv.Dataset(torch.tensor([0.0, 0.0, 0.0, 3.0])), 4, "train")
        >>> found = shares_of([score(lambda x, t: 0 * x, part, trace=Trace(), solver=Solver("euler", 1))], 3)
        >>> found.shares["train"].tolist()
        [0.25, 0.0, 0.75]
    """
    values = {part.part.name: part.density.log_prob.numpy() for part in scored}
    quartiles = [np.quantile(one, (0.25, 0.75)) for one in values.values()]
    lowest, highest = min(one.min() for one in values.values()), max(one.max() for one in values.values())
    reach = min(q1 - _FAR * max(q3 - q1, 1e-6 * (1 + abs(q1))) for q1, q3 in quartiles)
    start = max(lowest, reach)
    edges = np.linspace(start, highest if highest > start else start + 1.0, bins + 1)
    counted = {name: np.histogram(one.clip(start), edges)[0] / len(one) for name, one in values.items()}
    return Shares(edges, counted, bool(lowest < start))


def histogram_png(scored: Sequence[Scored], title: str, unit: str) -> bytes:
    """The histogram as a PNG file.

    Args:
        scored: The parts, each in its own colour.
        title: Title.
        unit: What a log-density is of, for the axis.
    """
    found = shares_of(scored, 40)

    def draw(axes: Any) -> None:
        _draw(axes, scored, found)
        note = "; the first bin holds all below" if found.beyond else ""
        axes.set_title(title, fontsize=11, pad=30)
        axes.set(xlabel=f"log-density, nats ({unit}{note})", ylabel="share of the data")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=10)

    return draw_png(draw, size=(7.6, 4.2))


def _draw(axes: Any, scored: Sequence[Scored], found: Shares) -> None:
    for number, part in enumerate(scored):
        name = part.part.name
        colour = _COLOURS.get(name, "C2")
        label = f"{name}: {len(part.part.index):,}, mean {part.log_prob.text(1)}"
        axes.stairs(found.shares[name], found.edges, fill=True, color=colour, alpha=0.4)
        axes.stairs(found.shares[name], found.edges, color=colour, linewidth=1.4, label=label)
        style = ("--", ":")[number % 2]
        axes.axvline(max(part.log_prob.value, found.edges[0]), color=colour, linestyle=style, linewidth=1.2)


def histogram_lines(scored: Sequence[Scored], *, bins: int = 12, width: int = 30) -> list[str]:
    """The histogram as lines of text, one for each bin, from low to high densities.

    Args:
        scored: The parts, side by side.
        bins: How many bins.
        width: Characters of the longest bar.

    Returns:
        A head, and a line for each bin: its range, and a bar with a share for each part.
    """
    found = shares_of(scored, bins)
    most = max(float(one.max()) for one in found.shares.values())
    digits = max(0, 1 - int(np.floor(np.log10(max(found.edges[1] - found.edges[0], 1e-12)))))
    texts = [f"{edge:.{digits}f}" for edge in found.edges]
    wide = max(map(len, texts))
    lines = ["  ".join([" " * (2 * wide + 4), *(f"{name:<{width + 6}}" for name in found.shares)]).rstrip()]
    for row, (low, high) in enumerate(pairwise(texts)):
        start = f"{'below' if row == 0 and found.beyond else low:>{wide}}"
        joint = "  " if row == 0 and found.beyond else ".."
        bars = [_bar(float(one[row]), most, width) for one in found.shares.values()]
        lines.append("  ".join([f"{start} {joint} {high:>{wide}}", *bars]).rstrip())
    return lines


def _bar(share: float, most: float, width: int) -> str:
    full = round(width * share / most)
    drawn = "█" * full if full or not share else "▏"
    percent = f"{100 * share:.1f}%" if share else ""
    return f"{drawn} {percent}".ljust(width + 6)
