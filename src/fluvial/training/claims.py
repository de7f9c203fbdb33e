"""Whether a checkpoint's weights are those of the net that it describes, found out before the net takes memory."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from fluvial.data.quoting import one_line
from fluvial.training.checkpoints import Checkpoint

_UNBACKED = 2**30  # bytes of positions and the like, which are made anew and stand in no file


def check_claims(
    make: Callable[[int], nn.Module], depth: int, sizes: Iterable[int], checkpoint: Checkpoint, name: str
) -> None:
    """Refuse a description of a net that needs more tensors or more numbers than the file of its weights holds.

    The net is made on the device ``meta``, where tensors have shapes and take no memory. Its modules do: how many
    tensors it has is told by nets of depth 1 and 2, and the whole is made only if the file has as many.

    Args:
        make: Makes the net that the checkpoint describes, at another depth.
        depth: Its depth. Each unit of depth adds the same tensors.
        sizes: Widths and other sizes of the description; each stands for at least one number of the net.
        checkpoint: The checkpoint, whose files have their recorded sizes.
        name: Group of the weights.

    Raises:
        ValueError: If no net can be made of the description, or it is another than that of the weights.
        OSError: If the file of the weights may not be read, or its disk has gone.
    """
    there = checkpoint.state["files"][f"{name}.safetensors"]["bytes"]
    # Before anything is made: a width of a billion takes hours, memory or no memory.
    largest = max(sizes, default=0)
    if largest > there:
        raise _another(checkpoint, f"{largest} is a size of it, its weights have {there} bytes")
    shallow, deeper = (len(_made(make, low, checkpoint).state_dict()) for low in (1, 2))
    tensors, held = shallow + (depth - 1) * (deeper - shallow), checkpoint.count_tensors(name)
    if tensors > held:
        raise _another(checkpoint, f"it has {tensors} tensors, its weights {held}")
    net = _made(make, depth, checkpoint)
    needed = _size(net.state_dict().values())
    if needed > there:
        raise _another(checkpoint, f"it takes {needed} bytes, its weights have {there}")
    unbacked = _size(net.buffers()) + _size(net.parameters()) - needed
    if unbacked > _UNBACKED:
        raise _another(checkpoint, f"it takes {unbacked} bytes beside its weights")


def _made(make: Callable[[int], nn.Module], depth: int, checkpoint: Checkpoint) -> nn.Module:
    try:
        with torch.device("meta"):
            return make(depth)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{checkpoint.folder} describes no net that can be made: {one_line(error)}") from error


def _size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _another(checkpoint: Checkpoint, why: str) -> ValueError:
    return ValueError(f"{checkpoint.folder} holds another net: {why}")
