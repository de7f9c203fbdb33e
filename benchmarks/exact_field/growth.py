"""How the cost of one evaluation grows with N, d, B and t, and its picture."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from exact_field.evaluation import FIELD, SCREENED, exact_field
from exact_field.peers import two_products
from exact_field.shapes import Shape, as_floats, make_support, on_path
from exact_field.timing import alternating

BASE = Shape("base", 20_000, 784, 128, pixels=True)
T = 0.3
POINTS = (1000, 3000, 10_000, 30_000, 100_000)
DIMS = (16, 64, 256, 1024, 4096)
BATCHES = (1, 8, 64, 512, 2048)
AT_TIMES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
IMAGES = Shape("images", 50_000, 3072, 128, pixels=True)
PEER = "two products"


@dataclass(frozen=True)
class Curve:
    """Times along one axis.

    Args:
        symbol: What varies: N, d, B or t.
        fixed: What does not, in words.
        values: Its values.
        milliseconds: Median time of each method at each value.
    """

    symbol: str
    fixed: str
    values: tuple[float, ...]
    milliseconds: dict[str, list[float]]


def measure(quick: bool, rounds: int, device: str) -> list[Curve]:
    """One curve for each of N, d, B and t."""
    base, images = (replace(shape, points=shape.points // 10) if quick else shape for shape in (BASE, IMAGES))
    largest = base.points * 5
    n = tuple(value for value in POINTS if value <= largest)
    fixed = {"N": f"N = {base.points:,}", "d": f"d = {base.dim}", "B": f"B = {base.batch}", "t": f"t = {T}"}
    curves = []
    for symbol, name, values in (("N", "points", n), ("d", "dim", DIMS), ("B", "batch", BATCHES)):
        columns = [_times(replace(base, **{name: value}), [T], rounds, device)[0] for value in values]
        rest = ", ".join(text for other, text in fixed.items() if other != symbol)
        curves.append(Curve(symbol, rest, values, _by_method(columns)))
    rest = f"N = {images.points:,}, d = {images.dim}, B = {images.batch}"
    curves.append(Curve("t", rest, AT_TIMES, _by_method(_times(images, AT_TIMES, rounds, device))))
    return curves


def _times(shape: Shape, times: Iterable[float], rounds: int, device: str) -> list[dict[str, float]]:
    """Milliseconds of each method at each time."""
    support = make_support(shape)
    here = support.to(device)
    methods = {FIELD: exact_field(here), SCREENED: exact_field(here, 1e-6), PEER: two_products(as_floats(here))}
    columns = []
    for t in times:
        x = on_path(support, shape.batch, t).to(device)
        calls = {name: lambda velocity=velocity, x=x, t=t: velocity(x, t) for name, velocity in methods.items()}
        alternating(calls, 1, device)
        columns.append({name: 1e3 * s for name, s in alternating(calls, rounds, device).items()})
    return columns


def _by_method(columns: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [column[name] for column in columns] for name in columns[0]}


def draw(curves: list[Curve], device: str, path: Path) -> None:
    """Draw the curves as four panels into a PNG file."""
    from fluvial.audits.drawing import draw_figure

    def fill(figure: Any) -> None:
        panels = figure.subplots(2, 2).ravel()
        for axes, curve in zip(panels, curves, strict=True):
            _panel(axes, curve)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
        figure.supylabel(f"milliseconds an evaluation ({_machine(device)})", fontsize=11)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw_figure(fill, size=(8.6, 6.6)))


def _machine(device: str) -> str:
    return f"{torch.get_num_threads()} CPU threads" if device == "cpu" else torch.cuda.get_device_name()


STYLES = {FIELD: ("C0", "o", "-"), SCREENED: ("C1", "s", "-"), PEER: ("C4", "", "--")}
LABELS = {"N": "N, data", "d": "d, dimensions", "B": "B, points evaluated at once", "t": "t (0 noise, 1 data)"}


def _panel(axes: Any, curve: Curve) -> None:
    for name, values in curve.milliseconds.items():
        colour, marker, line = STYLES[name]
        axes.plot(curve.values, values, color=colour, marker=marker, ls=line, ms=4.5, label=name)
    if curve.symbol != "t":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
    _label_milliseconds(axes)
    axes.grid(True, which="major")
    axes.set_xlabel(LABELS[curve.symbol])
    axes.set_title(curve.fixed, fontsize=10)


def _label_milliseconds(axes: Any) -> None:
    """A logarithmic axis labelled with plain numbers, at least two of them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
