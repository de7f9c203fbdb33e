"""What an audit hands back: one sentence, the figures behind it, and how to draw them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


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
        caption: What the drawing shows; serves as its alternative text too.
        draw: Draws the figure on a matplotlib ``Axes``.

    Raises:
        ValueError: If ``data`` or ``rows`` holds something that JSON cannot, or a row has another length than
            ``columns``.

    Example:
        >>> finding = Finding(
        ...     name="count", title="Count", verdict="There are 3.", method="Counting.", source="Euclid.",
        ...     columns=("n",), rows=((3,),), data={"n": 3}, caption="A point.",
        ...     draw=lambda axes: axes.plot([3]),
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
    data: Mapping[str, Any]
    caption: str
    draw: Callable[[Any], object]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"rows[{number}] must have {len(self.columns)} cells, got {len(row)}")
        try:
            json.dumps(self.to_dict(), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"finding {self.name!r} must hold finite plain JSON values only: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Everything but the drawing, as plain values for ``json.dump``."""
        return {
            "name": self.name,
            "title": self.title,
            "verdict": self.verdict,
            "method": self.method,
            "source": self.source,
            "table": {"columns": list(self.columns), "rows": [list(row) for row in self.rows]},
            "data": dict(self.data),
            "caption": self.caption,
        }
