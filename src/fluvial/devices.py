"""Moving draws and batches to where the net is."""

from typing import TypeVar

import torch
from torch import Tensor

from fluvial.conditions import Embedding, Tokens

Movable = TypeVar("Movable", Tensor, Embedding, Tokens)


def to_device(value: Movable, device: torch.device | str) -> Movable:
    """A tensor or a condition on a device; from the CPU to CUDA through pinned memory, so that the host does not wait.

    Example:
        >>> to_device(torch.zeros(2), "cpu").device
        device(type='cpu')
    """
    if not isinstance(value, Tensor):
        return value.each(lambda part: to_device(part, device))
    if torch.device(device).type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
