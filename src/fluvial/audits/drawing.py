"""Figures as PNG bytes in the colours of a light or a dark page; no window and no global figure is ever made."""

import io
from collections.abc import Callable
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f")
"""Okabe and Ito's palette, distinct to colour-blind readers: first model, second model, and so on."""

PIXELS = 200
"""Pixels per inch: sharp on screens with two pixels to a point."""

_LIGHT = {"page": "#ffffff", "ink": "#1c2126", "grid": "#d9dee3"}
_DARK = {"page": "#14181c", "ink": "#e4e8ec", "grid": "#343c44"}
_DARK_COLOURS = ("#56b4e9", "#f0894d", "#2fc49a", "#e3a3c6", "#a3a3a3")


def draw_png(draw: Callable[[Any], object], *, size: tuple[float, float] = (6.6, 3.9), dark: bool = False) -> bytes:
    """Draws one figure on one pair of axes, with a light grid.

    Args:
        draw: Called with a matplotlib ``Axes``; colours ``"C0"``, ``"C1"``, ... follow the palette.
        size: Width and height in inches, of 200 pixels.
        dark: For a dark page.

    Returns:
        A PNG file.

    Example:
        >>> draw_png(lambda axes: axes.plot([0, 1]))[1:4]
        b'PNG'
    """

    def fill(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.grid(True)
        draw(axes)

    return draw_figure(fill, size=size, dark=dark)


def draw_figure(fill: Callable[[Any], object], *, size: tuple[float, float], dark: bool = False) -> bytes:
    """Draws a figure of several parts; as :func:`draw_png`, but ``fill`` is called with the matplotlib ``Figure``."""
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    theme = _DARK if dark else _LIGHT
    colours = _DARK_COLOURS if dark else COLOURS
    settings: Any = {
        "axes.prop_cycle": cycler(color=colours),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "font.size": 11,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "grid.color": theme["grid"],
        "grid.linewidth": 0.7,
        **{f"{part}.facecolor": theme["page"] for part in ("figure", "axes")},
        **{f"{part}.color": theme["ink"] for part in ("text", "xtick", "ytick")},
        **{f"axes.{part}": theme["ink"] for part in ("edgecolor", "labelcolor", "titlecolor")},
    }
    with rc_context(settings):
        figure = Figure(figsize=size, dpi=PIXELS, layout="constrained")
        fill(figure)
        buffer = io.BytesIO()
        # Without the software's name, the same figure gives the same bytes under every version of it.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
