import pytest
import torch
from torch import nn

from fluvial.training.ema import EMA


def test_average_follows_the_recursion_in_float64() -> None:
    net = nn.Linear(2, 3)
    ema = EMA(net, decay=0.5)
    expected = net.weight.detach().double()
    for step in range(20):
        value = torch.randn(3, 2, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            net.weight.copy_(value)
        ema.update(net, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value.double()
    assert torch.allclose(ema.net.weight.double(), expected, atol=1e-6)


def test_average_is_a_copy_in_evaluation_mode_without_gradients() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    ema = EMA(net, decay=0.9)
    assert net.training
    assert not ema.net.training
    assert not any(parameter.requires_grad for parameter in ema.net.parameters())
    with torch.no_grad():
        net[0].weight.add_(1.0)
    assert not torch.equal(ema.net[0].weight, net[0].weight)


def test_buffers_are_copied() -> None:
    net = nn.BatchNorm1d(2)
    ema = EMA(net, decay=0.9)
    net(torch.randn(5, 2))
    ema.update(net, 0)
    assert torch.equal(ema.net.running_mean, net.running_mean)
    assert ema.net.num_batches_tracked == 1


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_bad_decay(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        EMA(nn.Linear(1, 1), decay)
