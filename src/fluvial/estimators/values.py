"""Values that scikit-learn hands over as they were given, checked where they are used."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from fluvial.data.memory import check_fits


def require_count(name: str, value: Any) -> int:
    """An integer from 1 to 2^31.

    Raises:
        ValueError: If it is none.

    Example:
        >>> require_count("n_samples", np.int64(3))
        3
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    if int(value) > 2**31:
        raise ValueError(f"{name} must be at most 2^31, got {value}")
    return int(value)


def require_samples(n_samples: Any, columns: int) -> int:
    """A number of rows to draw, of so many columns, that fit into memory.

    Raises:
        ValueError: If it is none.

    Example:
        >>> require_samples(3, 2)
        3
    """
    count = require_count("n_samples", n_samples)
    check_fits(8 * count * columns, f"n_samples={count}", "draw fewer at a time")
    return count


def require_device(device: Any) -> None:
    """A device that torch can compute on here.

    Raises:
        ValueError: If it cannot.

    Example:
        >>> require_device("cpu")
    """
    try:
        usable = bool(torch.ones((), device=device) == 1)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError):
        usable = False
    if not usable:
        raise ValueError(f"device must be one that torch can compute on here, such as 'cpu', got {device!r}")


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """A seed for fluvial's counter-based draws from what scikit-learn calls a random state.

    Example:
        >>> draw_seed(0) == draw_seed(0), draw_seed(0) == draw_seed(1)
        (True, False)
    """
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
