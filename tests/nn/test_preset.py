"""Nets by name."""

import pytest
import torch

import fluvial as fv


def test_a_preset_is_the_net_with_its_options() -> None:
    net = fv.nn.preset("unet", (3, 16, 16), width=8, dropout=0.1, classes=4, gap=True)
    assert isinstance(net, fv.nn.UNet) and net.gap and net.shape == (3, 16, 16)
    out = net(torch.randn(2, 3, 16, 16), torch.rand(2), torch.tensor([3, -1]), torch.ones(2))
    assert out.shape == (2, 3, 16, 16)
    assert isinstance(fv.nn.preset("dit", (1, 28, 28), embedding=5), fv.nn.DiT)


def test_what_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"name must be one of mlp, unet, .*, got 'unett'; did you mean 'unet'\?"):
        fv.nn.preset("unett", (1, 8, 8))
    with pytest.raises(ValueError, match="an mlp takes neither tokens nor dropout"):
        fv.nn.preset("mlp", (2,), tokens=8)
