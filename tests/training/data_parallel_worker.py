"""One of the processes of test_data_parallel.py: ``data_parallel_worker.py RANK STORE OUT.npz``.

Every draw is given row by row, so that two processes with half of the rows each do the work of one with all of them.
Writes two gradients in a row of each objective, flat and in float64, under the names ``CASE/DTYPE/HOW``; HOW is
``parallel`` (through DistributedDataParallel), in float64 ``bypassed`` (its inner module called instead), and on rank 0
``one`` (all rows in this process, without it).
"""

import datetime
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fluvial as fv
from fluvial.conditions import Embedding
from fluvial.objectives import cfm, efm, meanflow
from fluvial.training.step import TrainStep

RANKS, ROWS, DATA, DIM, CLASSES, WIDTH = 2, 24, 40, 3, 3, 16


@dataclass(frozen=True)
class Given:
    """What the rows of a batch are made of; one process has them all, a rank has ``of_rank``.

    Args:
        data: The data set, the same for all.
        classes: Its labels.
        rows: Which of all the rows these are.
        index: Datum of each row.
        x0: Noise, in the order in which it is drawn.
        order: Which noise meets which datum.
        t: First times, no two of them equal.
        r: Second times.
        cond: Labels, of which some are absent.
        vectors: Embeddings, of which some are absent.
    """

    data: Tensor
    classes: Tensor
    rows: Tensor
    index: Tensor
    x0: Tensor
    order: Tensor
    t: Tensor
    r: Tensor
    cond: Tensor
    vectors: Embedding

    def of_rank(self, rank: int) -> "Given":
        """Half of the rows: of those with r > t, which lead every batch, and of the others."""
        rows = _rows_of(rank)
        place = torch.empty(ROWS, dtype=torch.int64)
        place[rows] = torch.arange(len(rows))
        parts = (x[rows] for x in (self.index, self.x0, place[self.order], self.t, self.r, self.cond, self.vectors))
        return Given(self.data, self.classes, rows, *parts)


def all_rows(dtype: torch.dtype) -> Given:
    """The rows of both ranks. Noise is paired within a rank, and each rank has rows of every label."""
    g = torch.Generator().manual_seed(0)
    data = torch.randn(DATA, DIM, generator=g, dtype=dtype)
    classes = torch.arange(DATA) % CLASSES
    cond = torch.arange(ROWS) // RANKS % (CLASSES + 1) - 1
    index = torch.tensor([_datum(classes, label, g) for label in cond.tolist()])
    order = torch.empty(ROWS, dtype=torch.int64)
    for rank in range(RANKS):
        rows = _rows_of(rank)
        order[rows] = rows[torch.randperm(len(rows), generator=g)]
    times = 0.9 * torch.rand(2, ROWS, generator=g, dtype=dtype)
    t, r = times.amin(0), times.amax(0)
    present = torch.rand(ROWS, generator=g) < 0.7
    vectors = Embedding(torch.randn(ROWS, 5, generator=g, dtype=dtype), present)
    x0 = torch.randn(ROWS, DIM, generator=g, dtype=dtype)
    return Given(data, classes, torch.arange(ROWS), index, x0, order, t, r, cond, vectors)


def _rows_of(rank: int) -> Tensor:
    return torch.arange(ROWS).reshape(2, RANKS, -1)[:, rank].flatten()


def _datum(classes: Tensor, label: int, g: torch.Generator) -> int:
    """One datum of a class, or of any for the absent label."""
    weights = torch.ones(DATA) if label < 0 else (classes == label).float()
    return int(torch.multinomial(weights, 1, generator=g))


class Net(nn.Module):
    """A perceptron with dropout whose masks belong to the rows, known by their times, of which no two are equal."""

    def __init__(self, given: Given, gap: bool, **condition: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner = fv.nn.MLP((DIM,), WIDTH, depth=2, gap=gap, time_scale=1.0, **condition)
        for parameter in self.inner.parameters():  # a last layer of zeros would leave the others without gradient
            nn.init.normal_(parameter, std=0.3)
        self.inner.to(given.data.dtype)
        self.times, self.masks = given.t, 2.0 * (torch.rand(ROWS, WIDTH) < 0.5).to(given.data.dtype)
        for block in self.inner.blocks:
            block.register_forward_hook(lambda _module, _inputs, out: out * self.mask)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None, r: Tensor | None = None) -> Tensor:
        same = t[:, None] == self.times
        assert bool((same.sum(1) == 1).all())
        self.mask = self.masks[same.int().argmax(1)]
        out: Tensor = self.inner(x, t, cond, r)
        return out


@dataclass(frozen=True)
class Case:
    """An objective made of given rows, and the condition that its net takes."""

    objective: Callable[[Given], Any]
    kind: str | None = None
    gap: bool = False

    def cond(self, given: Given) -> Any:
        return {None: None, "labels": given.cond, "vectors": given.vectors}[self.kind]

    def net(self, given: Given) -> Net:
        sizes = {None: {}, "labels": {"classes": CLASSES}, "vectors": {"embedding": 5}}[self.kind]
        return Net(given, self.gap, **sizes)


def _times(given: Given) -> Any:
    return lambda count, **_: given.t


def _mean_flow(**options: Any) -> Callable[[Given], fv.MeanFlow]:
    return lambda given: fv.MeanFlow(pairs=lambda count, **_: (given.t, given.r), **options)


def _efm(given: Given, labels: Tensor | None = None) -> fv.EFM:
    return fv.EFM(fv.CondOT(), given.data, bank_size=9, labels=labels, times=_times(given))


def _paired(given: Given) -> fv.CFM:
    return fv.CFM(coupling=lambda x0, x1, labels, *, generator: given.order, times=_times(given))


CASES = {
    "CFM": Case(lambda given: fv.CFM(times=_times(given))),
    "CFM with labels": Case(lambda given: fv.CFM(times=_times(given)), "labels"),
    "CFM with embeddings": Case(lambda given: fv.CFM(times=_times(given)), "vectors"),
    "OT-CFM": Case(_paired, "labels"),
    "EFM": Case(_efm),
    "EFM with labels": Case(lambda given: _efm(given, given.classes), "labels"),
    "MeanFlow": Case(_mean_flow(), gap=True),
    "MeanFlow, power 1": Case(_mean_flow(power=1.0), "labels", gap=True),
    "MeanFlow, guided": Case(_mean_flow(omega=2.0, kappa=0.5, interval=(0.1, 0.6)), "labels", gap=True),
    "MeanFlow, published form": Case(_mean_flow(improved=False), gap=True),
    "MeanFlow, published form, power 1": Case(_mean_flow(improved=False, power=1.0), "labels", gap=True),
}


def gradients(case: Case, given: Given, whole: Given, wrap: Callable[[nn.Module], nn.Module]) -> np.ndarray:
    """Gradients of two updates in a row, shape (2, parameters): DDP reports what it missed on the second."""
    step = TrainStep(case.net(whole), case.objective(given), nullcontext)
    forward = wrap(step)
    optimizer = torch.optim.SGD(step.parameters(), lr=0.01)
    batch = fv.Batch(given.data[given.index], case.cond(given), given.index)
    found = []
    with ExitStack() as stack:
        for module in (cfm, efm, meanflow):
            stack.enter_context(patch.object(module, "noise_like", lambda x1, generator: given.x0.to(x1)))
        for update in range(2):
            optimizer.zero_grad()
            # Banks alone are drawn: all ranks draw the same, class by class.
            forward(batch, torch.Generator().manual_seed(update)).loss.backward()
            found.append(torch.cat([p.grad.flatten() for p in step.parameters()]).double().numpy())
            optimizer.step()
    return np.stack(found)


def main(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS, timeout=patience)
    found = {}
    for dtype in (torch.float32, torch.float64):
        whole = all_rows(dtype)
        part = whole.of_rank(rank)
        for name, case in CASES.items():
            key = f"{name}/{str(dtype).removeprefix('torch.')}"
            found[f"{key}/parallel"] = gradients(case, part, whole, DistributedDataParallel)
            if dtype == torch.float64:
                found[f"{key}/bypassed"] = gradients(case, part, whole, lambda s: DistributedDataParallel(s).module)
            if rank == 0:
                found[f"{key}/one"] = gradients(case, whole, whole, lambda step: step)
    np.savez(out, **found)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
