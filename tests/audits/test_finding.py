import math
from typing import Any

import pytest
import torch

from fluvial.audits import Drawing, Finding


def finding(**changes: Any) -> Finding:
    plain: dict[str, Any] = {
        "name": "count",
        "title": "Count",
        "verdict": "There are 3.",
        "method": "Counting.",
        "source": "Euclid.",
        "columns": ("what", "number"),
        "rows": (("points", 3),),
        "data": {"curve": [1.0, None, "a"], "nested": {"deep": True}},
        "drawings": (Drawing.on_axes("Points", "A point.", "A point.", lambda axes: axes.plot([3])),),
    }
    return Finding(**(plain | changes))


def test_everything_but_the_drawing_is_in_the_dictionary() -> None:
    plain = finding().to_dict()
    assert plain["table"] == {"columns": ["what", "number"], "rows": [["points", 3]]}
    assert plain["data"]["nested"] == {"deep": True} and plain["captions"] == ["A point."] and "drawings" not in plain


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.zeros(2), {1, 2}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="finding 'count' must hold finite plain JSON values only"):
        finding(data={"x": value})


def test_rows_must_fill_the_columns() -> None:
    with pytest.raises(ValueError, match=r"rows\[1\] must have 2 cells, got 1"):
        finding(rows=(("points", 3), ("lines",)))
