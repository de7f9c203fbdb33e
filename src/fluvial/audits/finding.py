"""What an audit hands back: one sentence, the figures behind it, and how to draw them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Drawing:
    """A figure that is not drawn yet, so that it can be drawn for a light and for a dark page.

    Args:
        title: A few words.
        caption: What to see in it, in a sentence or two.
        alt: What it looks like, for those who do not see it.
        fill: Draws it on an empty matplotlib ``Figure``; colours ``"C0"``, ``"C1"``, ... follow the page's palette.
        size: Width and height in inches.
        narrow: Whether a page shows it at half width.
    """

    title: str
    caption: str
    alt: str
    fill: Callable[[Any], object]
    size: tuple[float, float] = (6.6, 3.9)
    narrow: bool = False

    @classmethod
    def on_axes(
        cls,
        title: str,
        caption: str,
        alt: str,
        draw: Callable[[Any], object],
        *,
        size: tuple[float, float] = (6.6, 3.9),
    ) -> "Drawing":
        """A drawing on one pair of axes with a light grid; ``draw`` is called with the matplotlib ``Axes``."""

        def fill(figure: Any) -> None:
            axes = figure.add_subplot()
            axes.grid(True)
            draw(axes)

        return cls(title, caption, alt, fill, size)


@dataclass(frozen=True)
class Finding:
    """Result of one audit, complete enough for a report that knows nothing of the audit.

    Args:
        name: Identifier, such as ``"approximation"``; names files and keys.
        title: Heading of its section.
        verdict: The answer in one sentence.
        method: What was measured and how, in a few sentences.
        source: Where the measurement comes from.
        columns: Headings of the table of the main figures, with units where there are any.
        rows: Its cells, one tuple per row, as long as ``columns``.
        data: All figures, curves included, as plain JSON values (no tensors, no NaN).
        drawings: Its figures.
        notes: Warnings that a reader of the figures needs, such as a small sample.
        reservation: Why the finding does not bear on the verdict, such as ``"not comparable: ..."``; empty if it does.
        seconds: How long the measurement took.

    Raises:
        ValueError: If ``data`` or ``rows`` holds something that JSON cannot, or a row has another length than
            ``columns``.

    Example:
        >>> finding = Finding(
        ...     name="count", title="Count", verdict="There are 3.", method="Counting.", source="Euclid.",
        ...     columns=("n",), rows=((3,),), data={"n": 3},
        ... )
        >>> finding.to_dict()["data"]
        {'n': 3}
    """

    name: str
    title: str
    verdict: str
    method: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float, ...], ...]
    data: Mapping[str, Any] = field(repr=False)
    drawings: tuple[Drawing, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    reservation: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"rows[{number}] must have {len(self.columns)} cells, got {len(row)}")
        try:
            json.dumps(self.to_dict(), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"finding {self.name!r} must hold finite plain JSON values only: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Everything but the drawings' pictures, as plain values for ``json.dump``."""
        return {
            "name": self.name,
            "title": self.title,
            "verdict": self.verdict,
            "method": self.method,
            "source": self.source,
            "table": {"columns": list(self.columns), "rows": [list(row) for row in self.rows]},
            "data": dict(self.data),
            "captions": [drawing.caption for drawing in self.drawings],
            "notes": list(self.notes),
            "reservation": self.reservation,
            "seconds": self.seconds,
        }
