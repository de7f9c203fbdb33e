"""Whether samples are on the scale of the training data: images as grey levels, or in [0, 1], are named as such."""

import numpy as np
import torch
from torch import Tensor

_SLACK = 0.05  # by which generated images may leave the range of the data
_ENOUGH = 16  # images without one dark pixel are no accident


def check_same_range(
    samples: Tensor | np.ndarray, train: Tensor | np.ndarray, kind: str, *, name: str = "samples"
) -> None:
    """Refuses samples of another type or range than the training data, with what makes them right.

    Args:
        samples: What is compared with the training data, shape (n, ...).
        train: Training data, shape (N, ...).
        kind: ``"image"`` checks the range as well; of ``"points"`` and ``"table"`` any range may be meant.
        name: The argument's name, for the error.

    Raises:
        TypeError: If either holds no floating point numbers.
        ValueError: If training images are in [-1, 1] and the samples look like grey levels from 0 to 255, or lie in
            [0, 1].

    Example:
        >>> check_same_range(255 * torch.rand(9, 1, 8, 8), 2 * torch.rand(9, 1, 8, 8) - 1, "image")
        Traceback (most recent call last):
        ValueError: samples look like grey levels from 0 to 255, while train lies in [-1, 1]: convert by x / 127.5 - 1
    """
    x, known = _tensor(samples), _tensor(train)
    for value, argument in ((x, name), (known, "train")):
        if value.dtype == torch.uint8:
            raise TypeError(f"{argument} must hold floating point numbers, got uint8: convert by x / 127.5 - 1")
        if not value.is_floating_point():
            raise TypeError(f"{argument} must hold floating point numbers, got {value.dtype}")
    if kind != "image" or x.numel() == 0 or known.numel() == 0:
        return
    low, high = (float(v) for v in x.aminmax())
    floor, ceiling = (float(v) for v in known.aminmax())
    if floor >= 0 or floor < -1 - _SLACK or ceiling > 1 + _SLACK:
        return
    if low >= 0 and high > 2:
        raise ValueError(
            f"{name} look like grey levels from 0 to 255, while train lies in [-1, 1]: convert by x / 127.5 - 1"
        )
    if low >= 0 and high <= 1 and floor < -0.9 and len(x) >= _ENOUGH:
        raise ValueError(f"{name} lie in [0, 1], while train lies in [-1, 1]: convert by 2 x - 1")


def _tensor(value: Tensor | np.ndarray) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
