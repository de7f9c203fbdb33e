"""Names of parameters that are the same in every process, whatever lies where in memory."""

import re
from typing import Any


def steady(value: Any) -> str:
    """``repr`` without addresses: processes that share the tests must call them the same."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
