"""Pictures of the figures of solvers.py: one column, to be read on a phone."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from fluvial.audits.drawing import draw_figure

Rows = list[dict[str, Any]]
Panels = dict[str, Rows]

COLOURS = {"euler": "C4", "midpoint": "C0", "heun": "C1", "rk4": "C2", "dopri5": "C3"}
MARKS = {"equal": "o-", "bandwidth": "^:", "optimised": "s--"}
TITLES = {"mixture": "Mixture of Gaussians", "digits": "Net on digits", "exact": "Exact field of digits"}


def draw_all(found: dict[str, Any], folder: Path) -> None:
    """Writes solvers-samples.png, solvers-density.png and solvers-grids.png."""
    folder.mkdir(parents=True, exist_ok=True)
    panels = {name: found[name]["rows"] for name in TITLES if name in found}
    size = (5.0, 3.1 * len(panels))
    for name, fill in {"samples": _samples, "density": _density, "grids": _grids}.items():
        picture = draw_figure(lambda figure, fill=fill: fill(figure, panels), size=size)
        # 64 colours are enough for lines, in a quarter of the bytes.
        small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        small.save(folder / f"solvers-{name}.png", optimize=True)


def _samples(figure: Any, panels: Panels) -> None:
    for axes, (name, rows) in zip(_axes(figure, len(panels)), panels.items(), strict=True):
        for method in COLOURS:
            _line(axes, rows, method, "equal", ("evaluations", "rms"), method)
        _finish(axes, TITLES[name], "RMS distance of samples")


def _density(figure: Any, panels: Panels) -> None:
    for axes, (name, rows) in zip(_axes(figure, len(panels)), panels.items(), strict=True):
        for method in COLOURS:
            _line(axes, rows, method, "equal", ("density", "absolute"), method)
        for method in ("midpoint", "rk4"):
            _line(axes, rows, method, "optimised", ("density", "absolute"), f"{method}, optimised")
        _finish(axes, TITLES[name], "mean |error| of log p, nats")


def _line(axes: Any, rows: Rows, method: str, grid: str, keys: tuple[str, str], label: str) -> None:
    own = [row for row in rows if row["method"] == method and (row["grid"] == grid or method == "dopri5")]
    own.sort(key=lambda row: row[keys[0]])
    x, y = ([row[key] for row in own] for key in keys)
    axes.loglog(x, y, MARKS[grid], ms=4, lw=1.3, color=COLOURS[method], label=label)


def _grids(figure: Any, panels: Panels) -> None:
    for axes, (name, rows) in zip(_axes(figure, len(panels)), panels.items(), strict=True):
        for method in ("heun", "rk4"):
            for grid in MARKS:
                _line(axes, rows, method, grid, ("evaluations", "rms"), f"{method}, {grid}")
        _finish(axes, TITLES[name], "RMS distance of samples")


def _axes(figure: Any, count: int) -> list[Any]:
    axes = figure.subplots(count, 1)
    return [axes] if count == 1 else list(axes)


def _finish(axes: Any, title: str, label: str) -> None:
    axes.set(title=title, xlabel="evaluations", ylabel=label, xlim=(3.5, 230))
    axes.set_xticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    axes.minorticks_off()
    axes.grid(True)
    axes.legend(fontsize=8)
