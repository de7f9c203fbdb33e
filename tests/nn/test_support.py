"""The support-conditioned net: its symmetries, what it is before training, and its units."""

import pytest
import torch

import fluvial as fv
from fluvial.nn.support import point_times, support_scale
from fluvial.randomness import generator

PATHS = [fv.CondOT(0.01), fv.CondOT(), fv.VP(), fv.Cosine()]


def made(dim: int = 3, seed: int = 0, **options: object) -> fv.nn.SupportNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = fv.nn.SupportNet(dim, width=16, blocks=2, heads=2, **options)
        for parameter in net.parameters():  # the last layer starts at zero
            parameter.data += 0.1 * torch.randn_like(parameter)
    return net.double().eval()


def inputs(dim: int = 3, n: int = 6, m: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = generator(1)
    shapes = ((2, n, dim), (2, m, dim))
    x, support = (3 * torch.randn(shape, generator=draws, dtype=torch.float64) for shape in shapes)
    return x, torch.rand(2, n, generator=draws, dtype=torch.float64), support


@pytest.mark.parametrize("head", [None, fv.support.KernelAttention()])
def test_support_has_no_order_and_points_do_not_see_one_another(head: object) -> None:
    net, (x, t, support) = made(head=head), inputs()
    whole = net(x, t, support)
    torch.testing.assert_close(net(x, t, support.flip(1)), whole)
    torch.testing.assert_close(net(x[:, 2:3], t[:, 2:3], support), whole[:, 2:3])
    assert not torch.allclose(net(x, t, support[:, :4]), whole)


def test_examples_given_twice_change_nothing() -> None:
    net, (x, t, support) = made(), inputs()
    torch.testing.assert_close(net(x, t, torch.cat([support, support], 1)), net(x, t, support))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_before_training_it_is_the_velocity_of_a_gaussian_of_the_supports_scale(path: fv.GaussianPath) -> None:
    net = fv.nn.SupportNet(3, width=16, blocks=1, path=path).double()
    x, t, support = inputs()
    t = t.clamp(0.01, 0.99)
    scale = support_scale(support)[:, None, None]
    at = t[..., None]
    alpha, sigma = path.alpha(at), path.sigma(at)
    # The mean of x1 given x, for x1 ~ N(0, c^2) and x = alpha x1 + sigma x0.
    mean = alpha * scale**2 * x / (alpha**2 * scale**2 + sigma**2)
    expected = path.alpha_dot(at) * mean + path.sigma_dot(at) / sigma * (x - alpha * mean)
    torch.testing.assert_close(net(x, t, support), expected)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_error_over_gain_has_variance_one_for_gaussian_data_at_every_time(path: fv.GaussianPath, scale: float) -> None:
    draws = generator(2)
    support = scale * torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
    net = fv.nn.SupportNet(1, width=16, blocks=1, path=path).double()
    for time in (0.02, 0.5, 0.98):
        x1 = scale * torch.randn(1, 40_000, 1, generator=draws, dtype=torch.float64)
        x0 = torch.randn(x1.shape, generator=draws, dtype=torch.float64)
        t = torch.full((1, 40_000), time, dtype=torch.float64)
        sample = path.sample(x0[0], x1[0], t[0])
        with torch.no_grad():
            error = (sample.ut[None] - net(sample.xt[None], t, support)) / net.gain(t, support)[..., None]
        assert abs(float(error.square().mean()) - 1) < 0.04  # more than five standard errors


def test_times_are_one_for_all_for_each_task_or_for_each_point() -> None:
    net, (x, t, support) = made(), inputs()
    own = torch.tensor([0.2, 0.7], dtype=torch.float64)
    torch.testing.assert_close(net(x, own, support), net(x, own[:, None].expand(2, 6), support))
    torch.testing.assert_close(net(x, 0.3, support), net(x, torch.full_like(t, 0.3), support))
    with pytest.raises(ValueError, match=r"t must be a scalar or have shape \(2,\) or \(2, 6\), got \(6,\)"):
        point_times(torch.zeros(6), x)


@pytest.mark.parametrize("head", [None, fv.support.KernelAttention()])
def test_derivatives_in_both_modes_equal_differences(head: object) -> None:
    net, (x, t, support) = made(head=head), inputs()
    t = t.clamp(0.1, 0.9)
    tangent = torch.randn(x.shape, generator=generator(3), dtype=torch.float64)
    _, forward = torch.func.jvp(lambda x: net(x, t, support), (x,), (tangent,))
    step = 1e-6
    difference = (net(x + step * tangent, t, support) - net(x - step * tangent, t, support)) / (2 * step)
    torch.testing.assert_close(forward, difference, rtol=1e-5, atol=1e-6)
    at = x.clone().requires_grad_()
    (reverse,) = torch.autograd.grad((net(at, t, support) * tangent).sum(), at)
    other = torch.randn(x.shape, generator=generator(4), dtype=torch.float64)
    _, forward = torch.func.jvp(lambda x: net(x, t, support), (x,), (other,))
    torch.testing.assert_close((reverse * other).sum(), (forward * tangent).sum())


def test_it_is_a_field_for_a_batch_of_tasks() -> None:
    net, (x, _, support) = made(), inputs()
    with torch.no_grad():
        end = fv.solve(net, x, steps=4, method="heun", cond=support)
        alone = fv.solve(net, x[1:], steps=4, method="heun", cond=support[1:])
    torch.testing.assert_close(end.x[1:], alone.x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3)}, r"x must have shape \(B, n, 3\), got \(2, 3\)"),
        ({"support": torch.zeros(2, 5, 4)}, r"cond must be supports of shape \(2, m, 3\), got \(2, 5, 4\)"),
        ({"support": torch.zeros(1, 5, 3)}, r"cond must be supports of shape \(2, m, 3\), got \(1, 5, 3\)"),
        ({"support": torch.zeros(2, 0, 3)}, "cond must hold at least one example in each support, got m = 0"),
        ({"support": None}, r"cond must be supports of shape \(2, m, 3\), got NoneType"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    given = {"x": torch.zeros(2, 6, 3), "support": torch.zeros(2, 5, 3), **change}
    with pytest.raises(ValueError, match=message):
        fv.nn.SupportNet(3, width=16)(given["x"], 0.5, given["support"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"dim": 2, "blocks": 0}, "blocks must be at least 1, got 0"),
        ({"dim": 2, "width": 10, "heads": 4}, "heads must be positive and divide the width 10, got 4"),
    ],
)
def test_sizes_that_cannot_be_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fv.nn.SupportNet(**options)
