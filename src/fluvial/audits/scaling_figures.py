"""Figures of a sweep over sizes and widths."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fluvial.audits.finding import Drawing

if TYPE_CHECKING:
    from fluvial.audits.cells import Cell

_MARKERS = "osD^vP*"
_STYLES = ("-", "--", "-.", ":")
_COLOURS = 4  # of the palette's five; the fifth, grey, is for references


def drawings(cells: "Sequence[Cell]") -> tuple[Drawing, ...]:
    """The figures: copying against size, Fréchet distance beside it, error, and copying against width.

    Args:
        cells: The nets, sorted by width and size.
    """
    found = [_passage_drawing(cells), _error_drawing(cells)]
    if len({cell.width for cell in cells}) > 1:
        found.append(_width_drawing(cells))
    return tuple(found)


def _passage_drawing(cells: "Sequence[Cell]") -> Drawing:
    return Drawing(
        "What Fréchet distance sees, and what it does not",
        "Above: Fréchet distance of samples to held-out data against the number N of training data; in grey, that of "
        "the N data themselves, which a net that only copies would score. Below: share of the samples that are copies, "
        "and their nearest-neighbour ratio (1: as far from the training data as fresh data). Where the upper curve is "
        "low and the share of copies is high, Fréchet distance alone would have missed a memorising net.",
        "Three panels of curves against the number of training data on a logarithmic axis, one curve for each width: "
        "Fréchet distance to held-out data, share of copies, nearest-neighbour ratio.",
        partial(_fill_passage, cells),
        size=(6.6, 8.2),
    )


def _error_drawing(cells: "Sequence[Cell]") -> Drawing:
    return Drawing(
        "Error against the exact field",
        "Above: mean over t of the squared distance to the exact velocity of the net's own N data, over that "
        "velocity's mean square. Below: the same error against time for the widest net. A net that has learned its "
        "data by heart has a small error; one that generalises leaves the exact field, late in time above all.",
        "Above, curves of the relative error against the number of training data for each width; below, the error "
        "against time for each number of training data.",
        partial(_fill_error, cells),
        size=(6.6, 7.0),
    )


def _width_drawing(cells: "Sequence[Cell]") -> Drawing:
    return Drawing.on_axes(
        "Copies against width",
        "Share of the samples that are copies against the width of the net, for each number N of training data. "
        "Above the dotted line a net memorises.",
        "One curve for each number of training data: share of copies against width on a logarithmic axis.",
        partial(_draw_widths, cells),
    )


def _fill_passage(cells: "Sequence[Cell]", figure: Any) -> None:
    frechet, copies, ratio = figure.subplots(3, 1, sharex=True, height_ratios=(1.2, 1, 1))
    space = "features" if "features" in cells[0].frechet else "values"
    for number, (width, row) in enumerate(_by(cells, "width")):
        style = _style(number)
        sizes = [cell.n for cell in row]
        frechet.plot(sizes, [cell.frechet[space] for cell in row], label=f"width {width}", **style)
        copies.plot(sizes, [100 * cell.copy_rate for cell in row], **style)
        ratio.plot(sizes, [cell.neighbour_ratio for cell in row], **style)
    subset = {cell.n: cell.frechet_subset[space] for cell in cells}
    positive = {n: value for n, value in sorted(subset.items()) if value > 0}
    frechet.plot(list(positive), list(positive.values()), ":", color="C4", label="the N data themselves")
    where = "features" if space == "features" else "squared data units"
    frechet.set(yscale="log", ylabel=f"Fréchet distance\nto held-out ({where})")
    frechet.legend()
    copies.set(ylabel="copies (% of samples)", ylim=(-3, 103))
    ratio.set(ylabel="nearest-neighbour ratio", xlabel="N (training data)", xscale="log", ylim=(0, None))
    for axes, line in ((copies, 50), (ratio, 0.5)):
        axes.axhline(line, linestyle=":", color="C4", linewidth=1)
    ratio.axhline(1, linestyle=":", color="C4", linewidth=1)
    for axes in (frechet, copies, ratio):
        axes.grid(True)
    _ticks(ratio.xaxis, sorted(subset))


def _fill_error(cells: "Sequence[Cell]", figure: Any) -> None:
    mean, curve = figure.subplots(2, 1)
    for number, (width, row) in enumerate(_by(cells, "width")):
        style = _style(number)
        mean.plot([cell.n for cell in row], [cell.relative_gap for cell in row], label=f"width {width}", **style)
    _, widest = _by(cells, "width")[-1]
    shades = [1.0 - 0.65 * number / max(len(widest) - 1, 1) for number in range(len(widest))]
    for cell, shade in zip(widest, shades, strict=True):
        curve.plot(cell.t, cell.gap, color="C0", alpha=shade, label=f"N = {cell.n:,}")
    mean.set(xscale="log", xlabel="N (training data)", ylabel=r"mean $\|u_\theta - u^*\|^2$ / mean $\|u^*\|^2$")
    curve.set(xlabel="t (0 noise, 1 data)", ylabel=r"$E\,\|u_\theta - u^*\|^2$ (squared data units)")
    for axes, values in ((mean, [cell.gap_mean for cell in cells]), (curve, [max(cell.gap) for cell in widest])):
        if max(values) > 0:  # a logarithmic axis has no place for zeros alone
            axes.set_yscale("log", nonpositive="clip")
        axes.grid(True)
        axes.legend(fontsize=9)
    curve.set_title(f"width {widest[0].width}", fontsize=11, loc="left")
    _ticks(mean.xaxis, sorted({cell.n for cell in cells}))


def _draw_widths(cells: "Sequence[Cell]", axes: Any) -> None:
    for number, (n, row) in enumerate(_by(cells, "n")):
        widths = [cell.width for cell in row]
        axes.plot(widths, [100 * cell.copy_rate for cell in row], label=f"N = {n:,}", **_style(number))
    axes.axhline(50, linestyle=":", color="C4", linewidth=1)
    axes.set(xscale="log", xlabel="width (features in a hidden layer)", ylabel="copies (% of samples)", ylim=(-3, 103))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _ticks(axes.xaxis, sorted({cell.width for cell in cells}))


def _by(cells: "Sequence[Cell]", key: str) -> "list[tuple[int, list[Cell]]]":
    names = sorted({getattr(cell, key) for cell in cells})
    return [(name, [cell for cell in cells if getattr(cell, key) == name]) for name in names]


def _style(number: int) -> dict[str, Any]:
    colour, marker = f"C{number % _COLOURS}", _MARKERS[number % len(_MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 5, "linestyle": _STYLES[number // _COLOURS % len(_STYLES)]}


def _ticks(axis: Any, values: Sequence[int]) -> None:
    """Names the values that were measured, without the clutter of a logarithmic axis."""
    axis.set_ticks(values, labels=[f"{value:,}" for value in values])
    axis.set_ticks([], minor=True)
