"""The linear velocity of white data and the units of a net's own part, against regressions on draws."""

import pytest
import torch

import fluvial as fv
from fluvial.randomness import generator

PATHS = [fv.CondOT(), fv.CondOT(0.2), fv.VP(), fv.Cosine(), fv.Polynomial(2.0)]
AT_THE_END = 0.9999  # the rate of VP's sigma is infinite at 1


class Recorded(torch.nn.Module):
    """Returns ones and keeps what it is given."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: object = None) -> torch.Tensor:
        self.given = x
        return torch.ones_like(x)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("time", [0.0, 0.3, 0.8, AT_THE_END])
def test_a_silent_net_is_the_velocity_of_white_data(path: fv.GaussianPath, time: float) -> None:
    """The regression of ut on xt over many draws: its coefficient is the field's, its residual the net's unit."""
    draws = generator(3)
    x0, x1 = torch.randn(2, 400_000, 1, generator=draws, dtype=torch.float64)
    point = path.sample(x0, x1, time)
    slope = float((point.ut * point.xt).mean() / point.xt.square().mean())
    residual = float((point.ut - slope * point.xt).square().mean().sqrt())
    inner = Recorded()
    net = fv.nn.Preconditioned(inner, path)
    at = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = net(at, torch.full((2,), time, dtype=torch.float64))
    assert float(found[1] - found[0]) == pytest.approx(slope, abs=0.01 * max(1, residual))
    assert float(found[0]) == pytest.approx(residual, rel=0.01, abs=1e-6)
    net(point.xt, time)
    assert float(inner.given.std()) == pytest.approx(1, rel=0.01)


def test_a_new_net_keeps_noise_as_it_is() -> None:
    net = fv.nn.Preconditioned(fv.nn.MLP((2,), width=8, depth=1)).double()
    x0 = torch.randn(5, 2, generator=generator(0), dtype=torch.float64)
    torch.testing.assert_close(fv.solve(net, x0, steps=200, method="rk4").x.detach(), x0)
