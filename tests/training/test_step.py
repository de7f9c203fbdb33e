from contextlib import nullcontext
from typing import Any

import pytest
import torch

import fluvial as fv
from fluvial.devices import to_device
from fluvial.training.step import TrainStep


class _Recorder(torch.nn.Module):
    """Remembers in which type its matrix product ran."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(2))
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        out = x @ self.weight
        self.seen.append(out.dtype)
        return out


def test_only_the_net_runs_in_low_precision() -> None:
    net = _Recorder()
    seen = []

    def objective(field: Any, batch: fv.Batch, *, generator: torch.Generator) -> fv.Loss:
        seen.append((batch.x1 @ batch.x1.T).dtype)
        velocity = field(batch.x1, torch.zeros(3), None)
        seen.append(velocity.dtype)
        return fv.Loss(velocity.sum(), velocity.sum(1))

    step = TrainStep(net, fv.CFM(), lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    step._objective = objective
    # Accelerate would run the whole pass under autocast.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step(fv.Batch(torch.ones(3, 2)), torch.Generator())
    assert net.seen == [torch.bfloat16]
    assert seen == [torch.float32, torch.float32]


def test_tensors_arrive_on_the_device_unchanged() -> None:
    value = torch.arange(6.0)
    assert torch.equal(to_device(value, torch.device("cpu")), value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_does_not_wait_for_a_batch() -> None:
    value, device = torch.arange(6.0), torch.device("cuda")
    to_device(value, device)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved = to_device(value, device)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert torch.equal(moved.cpu(), value)


def test_loss_is_the_objective_s() -> None:
    net, batch = fv.nn.MLP((2,), width=8, depth=1), fv.Batch(torch.randn(6, 2))
    loss = TrainStep(net, fv.CFM(), nullcontext)(batch, torch.Generator().manual_seed(5)).loss
    expected = fv.CFM()(net, batch, generator=torch.Generator().manual_seed(5)).loss
    assert torch.equal(loss, expected)
