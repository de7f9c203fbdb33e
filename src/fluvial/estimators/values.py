"""Values that scikit-learn hands over as they were given, checked where they are used."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state


def require_count(name: str, value: Any) -> int:
    """An integer of at least 1.

    Raises:
        ValueError: If it is none.

    Example:
        >>> require_count("n_samples", np.int64(3))
        3
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return int(value)


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
