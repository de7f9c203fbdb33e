"""Moving draws and batches to where the net is."""

import torch
from torch import Tensor


def to_device(value: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device; from the CPU to CUDA through pinned memory, so that the host does not wait for the copy.

    Example:
        >>> to_device(torch.zeros(2), "cpu").device
        device(type='cpu')
    """
    if torch.device(device).type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
