"""One of the processes of test_maximum_likelihood.py: ``maximum_likelihood_worker.py FOLDER ADJOINT RANK``.

Writes the gradients of two updates in a row on its half of the rows, and on rank 0 those of one process with all.
"""

import datetime
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fluvial as fv
from fluvial.objectives import MaximumLikelihood
from fluvial.training.step import TrainStep


def gradients(x: Tensor, adjoint: bool, wrap: Callable[[nn.Module], nn.Module]) -> np.ndarray:
    """Shape (2, parameters): DDP reports what it missed on the second update."""
    torch.manual_seed(1)
    net = fv.nn.MLP((2,), width=16, depth=1, time_scale=1.0).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    objective = MaximumLikelihood(2, adjoint=adjoint, divergence="exact", kinetic=0.1, jacobian=0.1)
    step = TrainStep(net, objective, nullcontext)
    forward, found = wrap(step), []
    for _ in range(2):
        net.zero_grad()
        forward(fv.Batch(x), torch.Generator()).loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters()]).numpy())
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.01 * parameter.grad
    return np.stack(found)


def main(folder: Path, adjoint: bool, rank: int) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=60)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.save(folder / f"{rank}.npy", gradients(x.chunk(2)[rank], adjoint, DistributedDataParallel))
    if rank == 0:
        np.save(folder / "one.npy", gradients(x, adjoint, lambda step: step))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "1", int(sys.argv[3]))
