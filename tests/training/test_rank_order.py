"""Processes read the tensors of a checkpoint each in an order of its own, and exchange them in one order, or not."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from fluvial.training.optimizer import load_optimizer_tensors, optimizer_tensors
from fluvial.training.sharding import divided_like


def test_the_optimiser_hands_out_its_tensors_in_one_order() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    names = [name for name, _ in net.named_parameters()]
    adamw = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    adamw.step()
    tensors = optimizer_tensors(adamw, names)
    orders = []
    for backwards in (False, True):
        load_optimizer_tensors(adamw, names, dict(sorted(tensors.items(), reverse=backwards)))
        orders.append(list(optimizer_tensors(adamw, names)))
    assert orders[0] == orders[1]


@pytest.fixture
def second_of_two() -> Iterator[None]:
    """A process group of which no other process answers."""
    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_a_process_takes_its_part_without_asking_the_others(second_of_two: None) -> None:
    mesh = init_device_mesh("cpu", (2,))
    whole = torch.arange(6.0).reshape(3, 2)
    like = distribute_tensor(torch.zeros(3, 2), mesh, [Shard(0)], src_data_rank=None)
    part = divided_like(whole, like)
    assert isinstance(part, DTensor) and torch.equal(part.to_local(), whole[2:])
