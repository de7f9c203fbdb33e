"""Conditional Flow Matching: the loss by hand, its gradient, and its distance from the marginal regression."""

from collections.abc import Callable

import pytest
import torch

import fluvial as fv
from fluvial.objectives.base import noise_like


def test_loss_is_the_mean_squared_error_of_the_pairs_it_draws() -> None:
    x1 = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))

    def net(x: torch.Tensor, t: torch.Tensor, cond: None = None) -> torch.Tensor:
        return 2 * x + t[:, None, None]

    found = fv.CFM(fv.Cosine())(net, fv.Batch(x1), generator=torch.Generator().manual_seed(1))
    g = torch.Generator().manual_seed(1)
    x0 = torch.randn(x1.shape, generator=g)
    t = torch.rand(6, generator=g)
    point = fv.Cosine().sample(x0, x1, t)
    error = (net(point.xt, t) - point.ut).square()
    torch.testing.assert_close(found.loss, error.mean())
    torch.testing.assert_close(found.per_sample, error.flatten(1).mean(1))
    assert not found.per_sample.requires_grad


def test_draws_follow_the_data_in_dtype_and_the_generator_in_value() -> None:
    x1 = torch.zeros(4, 2, dtype=torch.float64)
    noise = noise_like(x1, torch.Generator().manual_seed(3))
    assert noise.dtype == torch.float64
    assert torch.equal(noise, noise_like(x1, torch.Generator().manual_seed(3)))


def test_optimal_transport_pairs_are_the_ones_that_are_regressed() -> None:
    x1 = torch.randn(32, 2, generator=torch.Generator().manual_seed(0)) * 4
    pairs: list[torch.Tensor] = []

    def net(x: torch.Tensor, t: torch.Tensor, cond: None = None) -> torch.Tensor:
        pairs.append((x - t[:, None] * x1) / (1 - t[:, None]))
        return torch.zeros_like(x)

    loss = fv.CFM(coupling=fv.OptimalTransport())(net, fv.Batch(x1), generator=torch.Generator().manual_seed(1))
    independent = fv.CFM()(net, fv.Batch(x1), generator=torch.Generator().manual_seed(1))
    coupled = (x1 - pairs[0]).square().mean()
    torch.testing.assert_close(loss.loss, coupled, rtol=1e-3, atol=1e-3)
    assert loss.loss < independent.loss
    torch.testing.assert_close(pairs[0].sort(0).values, pairs[1].sort(0).values, rtol=1e-3, atol=1e-3)


def test_loss_exceeds_the_marginal_regression_by_the_conditional_variance() -> None:
    """L_CFM - L_FM = E Var[u | xt], whatever the net: here the zero field, on four points."""
    support = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    x1 = support[torch.randint(4, (60_000,), generator=g)]
    x0, t = (
        torch.randn(x1.shape, generator=g, dtype=torch.float64),
        torch.rand(len(x1), generator=g, dtype=torch.float64),
    )
    point = fv.CondOT().sample(x0, x1, t)
    exact = fv.ExactField(support)(point.xt, t)
    difference = point.ut.square().sum(1) - exact.square().sum(1)
    variance = (point.ut - exact).square().sum(1)
    gap = difference - variance
    assert gap.mean().abs() < 4 * gap.std() / len(gap) ** 0.5
    assert difference.mean() > 20 * difference.std() / len(gap) ** 0.5


def test_gradient_reaches_the_net_and_shapes_are_checked() -> None:
    net = fv.nn.MLP((2,), width=16)
    fv.CFM()(net, fv.Batch(torch.randn(8, 2)), generator=torch.Generator()).loss.backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if "last" in name)
    with pytest.raises(ValueError, match=r"the net must return shape \(8, 2\), got \(8, 1\)"):
        fv.CFM()(lambda x, t, c: x[:, :1], fv.Batch(torch.randn(8, 2)), generator=torch.Generator())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fv.Batch(torch.zeros(0, 2)), "B > 0"),
        (lambda: fv.Batch(torch.zeros(2, 2, dtype=torch.int64)), "x1 must be floating"),
        (lambda: fv.Batch(torch.zeros(2, 2), index=torch.arange(3)), r"index must have shape \(2,\), got \(3,\)"),
    ],
)
def test_bad_batches(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
