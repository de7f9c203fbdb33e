"""Labels of any kind as classes 0..C-1 with names."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fluvial.checks import require_dense

Labels = Tensor | NDArray[Any] | Sequence[Any]


def encode_labels(
    labels: Labels, count: int, class_names: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Numbers the classes that occur, in sorted order, and names each after its label.

    Args:
        labels: One label per datum, shape (N,): strings or whole numbers, which need not be contiguous.
        count: N, the number of data.
        class_names: Names of all classes; the labels are then already 0..C-1 and stay as they are.

    Returns:
        The classes, int64 of shape (N,), and the names of all classes.

    Raises:
        ValueError: If there are not ``count`` labels, or they are fractions, or outside the range of
            ``class_names``.

    Example:
        >>> encode_labels(["dog", "cat", "dog"], 3)
        (array([1, 0, 1]), ('cat', 'dog'))
        >>> encode_labels(np.array([7, 3, 7]), 3)
        (array([1, 0, 1]), ('3', '7'))
    """
    if isinstance(labels, Tensor):
        require_dense("labels", labels)
        labels = labels.detach().cpu()
        array = (labels.float() if labels.dtype == torch.bfloat16 else labels).numpy()
    else:
        array = np.asarray(labels)
    if array.shape != (count,):
        raise ValueError(f"labels must have shape ({count},), one per datum, got {array.shape}")
    if array.dtype.kind == "f":
        if not np.array_equal(array, np.round(array)):  # NaN is unequal to itself, so it is refused here too
            raise ValueError("labels must be whole numbers or strings, got fractions or NaN")
        if array.size and not np.abs(array).max() < 2.0**63:  # all of these would become one and the same int64
            raise ValueError(f"labels must be within the range of int64, got {array[np.abs(array).argmax()]}")
        array = array.astype(np.int64)
    if array.dtype.kind not in "iubUS":
        raise ValueError(f"labels must be whole numbers or strings, got dtype {array.dtype}")
    if class_names is not None:
        return _checked_classes(array, len(class_names)), tuple(class_names)
    names, codes = np.unique(array, return_inverse=True)
    return codes.astype(np.int64), tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist())


def _checked_classes(labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"with class_names, labels must be whole numbers 0..{classes - 1}, got dtype {labels.dtype}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels must be in 0..{classes - 1}, got {labels.min()}..{labels.max()}")
    return labels.astype(np.int64)


def class_numbers(text: str, names: Sequence[str]) -> list[int]:
    """Numbers of the classes that a text lists, by name, which goes first, or by number, with commas between them.

    Args:
        text: The list; may be empty.
        names: Names of all classes in the order of their numbers.

    Raises:
        ValueError: If one is neither, with the nearest name.

    Example:
        >>> class_numbers("dog, 0", ["cat", "dog"])
        [1, 0]
    """
    found = []
    for item in (part.strip() for part in text.split(",") if part.strip()):
        if item in names:
            found.append(list(names).index(item))
        elif item.isdecimal() and int(item) < len(names):
            found.append(int(item))
        else:
            near = get_close_matches(item, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = f"names {', '.join(map(repr, names[:20]))} or numbers 0..{len(names) - 1}" if names else "none"
            raise ValueError(f"{item!r} is no class: the classes are {known}{hint}")
    return found
