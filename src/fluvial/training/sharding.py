"""Weights, average and optimiser divided among processes (FSDP2), and whole again for a checkpoint."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from fluvial.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard(net: nn.Module, ranks: Ranks) -> nn.Module:
    """Divide a net's weights among the processes, block by block, in place.

    Each process keeps its part of every weight, and gathers those of one block while it computes with them.

    Source: Zhao et al. 2023, "PyTorch FSDP"; ``torch.distributed.fsdp.fully_shard``.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(ranks.device).type, (ranks.count,))
    for module in reversed(list(net.modules())):
        if isinstance(module, nn.ModuleList):
            for block in module:
                if not isinstance(block, nn.ModuleList | nn.ModuleDict) and any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh)
    # By default what is left at the top stays whole until a backward pass, which the average never has.
    fully_shard(net, mesh=mesh, reshard_after_forward=True)
    return net


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is not divided; all processes ask for it at once."""
    return tensor.full_tensor() if _is_divided(tensor) else tensor


def whole_on_host(tensors: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
    """Named tensors that are not divided, on the CPU; made one after the other, since all at once may not fit.

    Args:
        tensors: As all processes have them, in the same order.
        keep: Whether this process wants them.
    """
    found = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor)
        if keep:
            found[name] = gathered.cpu()
    return found


def divided_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that all processes have whole, divided as another one is."""
    if not _is_divided(like) or tensor.ndim == 0:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # Each process takes its own part: an exchange would take the tensors of another in the order in which that reads.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _is_divided(tensor: Tensor) -> "TypeGuard[DTensor]":
    if type(tensor) in (Tensor, nn.Parameter):  # without half a second of imports that only dividing needs
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
