"""Log-densities against analytic ones, kernel density estimates, determinants, quadrature and finite differences."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor

import fluvial as fv
from fluvial.fields.divergences import exact_divergence, own_divergence, random_divergence
from fluvial.levels import bits_per_dim
from fluvial.randomness import generator

TIGHT = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9}


class Mixture:
    """Gaussian components with diagonal covariances: density and marginal velocity of CondOT in closed form."""

    def __init__(self, dim: int, components: int, seed: int = 0) -> None:
        draws = generator(seed, dim, components)
        self.means = 2 * torch.randn(components, dim, generator=draws, dtype=torch.float64)
        self.scales = 0.3 + torch.rand(components, dim, generator=draws, dtype=torch.float64)
        self.weights = torch.rand(components, generator=draws, dtype=torch.float64).add(0.2)

    def log_prob(self, x: Tensor, t: float | Tensor = 1.0) -> Tensor:
        return torch.logsumexp(self._joint(x, t), 1)

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        t = t[:, None, None]
        variance = (t * self.scales).square() + (1 - t).square()
        residual = x[:, None] - t * self.means
        # E[x1 - x0 | x] of each component, a linear function of x.
        each = self.means + (t * self.scales.square() - (1 - t)) / variance * residual
        return (self._joint(x, t[:, :, 0]).softmax(1)[..., None] * each).sum(1)

    def _joint(self, x: Tensor, t: float | Tensor) -> Tensor:
        times = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1, 1)
        variance = (times * self.scales).square() + (1 - times).square()
        square = (x[:, None] - times * self.means).square() / variance + (2 * math.pi * variance).log()
        return -0.5 * square.sum(2) + (self.weights / self.weights.sum()).log()

    def sample(self, n: int, seed: int = 1) -> Tensor:
        draws = generator(seed)
        which = torch.multinomial(self.weights, n, replacement=True, generator=draws)
        noise = torch.randn(n, self.means.shape[1], generator=draws, dtype=torch.float64)
        return self.means[which] + self.scales[which] * noise


@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize("dim", [1, 2, 10])
def test_densities_of_gaussian_mixtures(dim: int, components: int) -> None:
    truth = Mixture(dim, components)
    x = truth.sample(20)
    found = fv.log_prob(truth, x, **TIGHT)
    assert (found.log_prob - truth.log_prob(x)).abs().max() < 1e-6
    assert found.log_prob.dtype == torch.float64 and found.standard_error is None
    expected = -truth.log_prob(x) / (dim * math.log(2))
    assert (found.bits_per_dim - expected).abs().max() < 1e-6


@pytest.mark.parametrize("path", [fv.CondOT(0.3), fv.FromBandwidth(lambda t: (1 - t) / t + 0.3, lambda t: -1 / t**2)])
def test_the_exact_field_s_density_is_the_kernel_density_estimate(path: fv.GaussianPath) -> None:
    """alpha(1) and sigma(1) of the path give the estimate's scale and bandwidth."""
    support = Mixture(3, 4).sample(50)
    x = Mixture(3, 4).sample(6, seed=2)
    end = torch.ones((), dtype=torch.float64)
    alpha, sigma = float(path.alpha(end)), float(path.sigma(end))
    field = fv.ExactField(support, path)
    estimate = KernelDensity(bandwidth=sigma).fit(alpha * support.numpy()).score_samples(x.numpy())
    for divergence in ("exact", "field"):
        found = fv.log_prob(field, x, divergence=divergence, rtol=1e-7, atol=1e-7)
        assert np.abs(found.log_prob.numpy() - estimate).max() < 1e-5


def test_random_directions_are_unbiased_and_know_their_error() -> None:
    truth = Mixture(6, 3)
    x = truth.sample(40)
    found = fv.log_prob(truth, x, divergence="hutchinson", probes=64, generator=generator(0), rtol=1e-7, atol=1e-7)
    assert found.standard_error is not None
    scores = (found.log_prob - truth.log_prob(x)) / (found.standard_error + 1e-5)
    assert scores.abs().max() < 4.5 and scores.abs().mean() < 1.3  # the mean of |N(0, 1)| is .8
    assert scores.std() > 0.5  # the errors are no smaller than stated
    one = fv.log_prob(truth, x, divergence="hutchinson", generator=generator(0))
    assert one.standard_error is None


def test_a_random_direction_is_exact_where_the_jacobian_is_diagonal() -> None:
    signs = torch.tensor([[1.0, -1.0, 1.0]], dtype=torch.float64)
    x = torch.tensor([[0.5, 2.0, -1.0]], dtype=torch.float64)
    for field in (lambda x, t: x**3, lambda x, t: -2 * x):
        _, found = random_divergence([signs])(field, x, torch.zeros(1), None)
        _, exact = exact_divergence(field, x, torch.zeros(1))
        torch.testing.assert_close(found, exact)


def test_the_change_of_variables_is_the_determinant_of_the_flow_s_jacobian() -> None:
    """Jacobi's formula: the integral of the trace is the logarithm of the determinant."""
    truth = Mixture(3, 5)
    x0 = torch.randn(4, 3, generator=generator(3), dtype=torch.float64)

    def flow(x: Tensor) -> Tensor:
        return fv.solve(truth, x, steps=400, method="rk4").x

    jacobian = _jacobian(flow, x0)
    expected = -0.5 * x0.square().sum(1) - 1.5 * math.log(2 * math.pi) - torch.linalg.slogdet(jacobian).logabsdet
    found = fv.sample_with_log_prob(truth, x0, steps=400, method="rk4")
    assert (found.density.log_prob - expected).abs().max() < 1e-6
    torch.testing.assert_close(found.x, flow(x0))


def _jacobian(flow: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    at = x.clone().requires_grad_()
    end = flow(at)
    rows = [torch.autograd.grad(end[:, k].sum(), at, retain_graph=True)[0] for k in range(x.shape[1])]
    return torch.stack(rows, 1)


def test_samples_have_the_densities_that_they_are_given_alone() -> None:
    truth = Mixture(2, 3)
    x0 = torch.randn(16, 2, generator=generator(4), dtype=torch.float64)
    found = fv.sample_with_log_prob(truth, x0, **TIGHT)
    again = fv.log_prob(truth, found.x, **TIGHT)
    assert (found.density.log_prob - again.log_prob).abs().max() < 1e-6
    assert (found.density.log_prob - truth.log_prob(found.x)).abs().max() < 1e-6


NETS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: fv.nn.MLP((3,), width=16, depth=1), (3,)),
    "mlp of images": (lambda: fv.nn.MLP((1, 2, 2), width=16, depth=1), (1, 2, 2)),
    "unet": (lambda: fv.nn.UNet((1, 8, 8), width=8, multipliers=(1, 2), depth=1, stem=1), (1, 8, 8)),
    "dit": (lambda: fv.nn.DiT((1, 8, 8), width=16, depth=1, patch=4), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETS)
def test_divergences_of_nets_are_the_traces_of_their_jacobians(name: str) -> None:
    make, shape = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make().double().eval()
        for parameter in net.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    x, t = torch.randn(2, *shape, generator=generator(1), dtype=torch.float64), torch.tensor([0.2, 0.7]).double()
    with torch.no_grad():
        v, found = exact_divergence(net, x, t)
    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda y, row=row: net(y[None], t[row : row + 1])[0], x[row])
        trace = jacobian.reshape(math.prod(shape), -1).trace()
        assert float(found[row, 0]) == pytest.approx(float(trace), rel=1e-9, abs=1e-9)
    assert not v.requires_grad and not found.requires_grad


def test_exact_and_own_divergences_agree() -> None:
    field = fv.ExactField(Mixture(4, 3).sample(20), fv.CondOT(0.1))
    x = torch.randn(8, 4, generator=generator(5), dtype=torch.float64)
    t = torch.linspace(0, 1, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(exact_divergence(field, x, t)[1], own_divergence(field, x, t)[1])


def trained(dim: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fv.nn.MLP((dim,), width=32, depth=2)
        optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
        data = Mixture(dim, 3).sample(4000, seed=7).float() / 2
        for step in range(120):
            draws = generator(9, step)
            index = torch.randint(len(data), (256,), generator=draws)
            optimizer.zero_grad()
            fv.CFM()(net, fv.Batch(data[index]), generator=draws).loss.backward()
            optimizer.step()
    return net.eval()


@pytest.mark.parametrize("dim", [1, 2])
def test_the_density_of_a_trained_net_integrates_to_one(dim: int) -> None:
    net = trained(dim)
    nodes = torch.linspace(-5, 5, 801 if dim == 1 else 81)
    grid = nodes[:, None] if dim == 1 else torch.cartesian_prod(nodes, nodes)
    found = fv.log_prob(net, grid, steps=40, method="rk4", batch_size=8000)
    mass = float(found.log_prob.exp().sum()) * float(nodes[1] - nodes[0]) ** dim
    assert abs(mass - 1) < 0.01


def test_gradients_flow_when_asked_for() -> None:
    truth, net = Mixture(2, 2), fv.nn.MLP((2,), width=8, depth=1).double()
    with torch.no_grad():
        net.last.weight += 0.3
    x = truth.sample(5)
    options = {"steps": 6, "method": "rk4", "differentiable": True}
    at = x.clone().requires_grad_()
    total = fv.log_prob(net, at, **options).log_prob.sum()
    by_weight, by_datum = torch.autograd.grad(total, [net.last.weight, at])
    step = 1e-6
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            net.last.weight[1, 3] += sign * step
            ends.append(float(fv.log_prob(net, x, steps=6, method="rk4").log_prob.sum()))
            net.last.weight[1, 3] -= sign * step
        assert float(by_weight[1, 3]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
        moved = [x.clone(), x.clone()]
        moved[0][2, 1] += step
        moved[1][2, 1] -= step
        ends = [float(fv.log_prob(net, each, steps=6, method="rk4").log_prob.sum()) for each in moved]
        assert float(by_datum[2, 1]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
    assert not fv.log_prob(net, x, steps=2, method="rk4").log_prob.requires_grad


def test_batches_conditions_and_costs() -> None:
    truth = Mixture(2, 3)
    x, labels = truth.sample(7), torch.tensor([0, 1, 2, 0, 1, 2, 0])

    def field(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return truth(x, t) * (1 + 0.1 * cond[:, None])

    whole = fv.log_prob(field, x, labels, steps=10, method="rk4")
    parts = fv.log_prob(field, x, labels, steps=10, method="rk4", batch_size=3)
    torch.testing.assert_close(whole.log_prob, parts.log_prob)
    assert whole.evaluations == parts.evaluations == 40
    row = fv.log_prob(field, x[4:5], labels[4:5], steps=10, method="rk4")
    torch.testing.assert_close(row.log_prob, whole.log_prob[4:5])


def test_jumps_of_a_field_are_nodes_of_the_grid() -> None:
    """A hybrid of two fields: each side keeps the method's order."""
    field = fv.Hybrid(lambda x, t, cond=None: -x, lambda x, t, cond=None: 2 * x, tau=0.3)
    x = torch.ones(1, 2, dtype=torch.float64)
    found = fv.log_prob(field, x, steps=40, method="rk4").log_prob
    x0 = x * math.exp(0.3 - 1.4)
    expected = -0.5 * x0.square().sum() - math.log(2 * math.pi) - 2 * (-0.3 + 1.4)
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_bits_of_grey_levels() -> None:
    """Noise spread evenly over [-1, 1] has 255 intervals of width 2 / 255: about log2(255) bits."""
    log_density = torch.full((1,), 10 * math.log(0.5), dtype=torch.float64)
    assert float(bits_per_dim(log_density, 10, 256)) == pytest.approx(math.log2(255))
    assert float(bits_per_dim(log_density, 10)) == pytest.approx(1.0)


POINTS = torch.zeros(4, 2)


def broken(x: Tensor, t: Tensor) -> Tensor:
    return torch.where(t[:, None] < 0.5, torch.nan, x)


def broken_in_one_row(x: Tensor, t: Tensor) -> Tensor:
    return x * torch.tensor([[1.0], [1.0], [torch.nan], [1.0]])


def test_constant_fields_have_no_divergence() -> None:
    """A velocity that autograd sees as constant, and is: a shift, and one made by a parameter."""
    shift = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    for field in (lambda x, t: torch.ones_like(x), lambda x, t: shift.expand(len(x), 2)):
        found = fv.log_prob(field, POINTS, steps=2, method="euler")
        moved = POINTS - field(POINTS, torch.zeros(4)).detach()
        expected = -0.5 * moved.square().sum(1) - math.log(2 * math.pi)
        torch.testing.assert_close(found.log_prob, expected.double())


def test_nodes_of_time_of_one_s_own() -> None:
    truth = Mixture(2, 3)
    x = truth.sample(4)
    nodes = [1 - k / 30 for k in range(31)]
    equal = fv.log_prob(truth, x, steps=30, method="rk4")
    torch.testing.assert_close(fv.log_prob(truth, x, grid=nodes, method="rk4").log_prob, equal.log_prob)
    late = [1 - (k / 30) ** 2 for k in range(31)]
    assert not torch.equal(fv.log_prob(truth, x, grid=late, method="rk4").log_prob, equal.log_prob)
    drawn = fv.sample_with_log_prob(truth, x, grid=nodes[::-1], method="rk4")
    torch.testing.assert_close(drawn.x, fv.sample_with_log_prob(truth, x, steps=30, method="rk4").x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fv.log_prob(Mixture(2, 1), torch.zeros(4)), r"x1 must be floating, of shape \(B, \*D\)"),
        (lambda: fv.log_prob(Mixture(2, 1), torch.zeros(4, 2, dtype=torch.int64)), "x1 must be floating"),
        (lambda: fv.log_prob(Mixture(2, 1), torch.zeros(0, 2)), "at least one value"),
        (lambda: fv.log_prob(Mixture(2, 1), POINTS, divergence="exct"), "divergence must be one of exact, hutchinson"),
        (
            lambda: fv.log_prob(Mixture(2, 1), POINTS, divergence="hutchinson", probes=0, generator=generator(0)),
            "probes must be an integer of at least 1, got 0",
        ),
        (lambda: fv.log_prob(Mixture(2, 1), POINTS, divergence="hutchinson"), "generator is needed"),
        (lambda: fv.log_prob(Mixture(2, 1), POINTS, divergence="field"), "with a divergence of its own, got Mixture"),
        (lambda: fv.log_prob(Mixture(2, 1), POINTS, levels=1), "levels must be an integer of at least 2, got 1"),
        (lambda: fv.log_prob(Mixture(2, 1), POINTS, batch_size=0), "batch_size must be an integer of at least 1"),
        (lambda: fv.log_prob(fv.ExactField(POINTS), POINTS), "which have no density"),
        (lambda: fv.log_prob(fv.nn.MLP((3,), width=8), POINTS), r"x must have shape \(B, 3\), got \(4, 2\)"),
        (lambda: fv.log_prob(lambda x, t: x[:, :1], POINTS), "field must return a tensor of the shape of x"),
        (
            lambda: fv.log_prob(broken, POINTS, steps=4, method="rk4"),
            "4 of 4 rows",
        ),
        (lambda: fv.log_prob(broken, POINTS), "not finite at t = "),
        (lambda: fv.log_prob(broken, POINTS, steps=4, method="rk4", batch_size=3), r"3 of 3 .*\(rows of data 0 to 2\)"),
        (lambda: fv.log_prob(broken_in_one_row, POINTS), r"not finite at t = 1, in 1 of 4 rows \(25 %\)"),
        (lambda: fv.log_prob(Mixture(2, 1), POINTS / 0), "x1 must be finite, got NaN or infinite .* 4 of 4"),
        (lambda: fv.log_prob(Mixture(2, 1), POINTS, torch.zeros(3)), "cond must have 4 rows, .* got 3"),
        (lambda: fv.log_prob(Mixture(2, 1), POINTS, torch.zeros(())), r"cond must have 4 rows, .* got tensor"),
        (
            lambda: fv.log_prob(fv.nn.MLP((2,), width=8), POINTS.double()),
            "x1 must have the type of the net, torch.float32, got torch.float64",
        ),
        (lambda: fv.log_prob(lambda x, t: -x.detach(), POINTS), "depends on x and autograd does not see how"),
        (
            lambda: fv.log_prob(
                torch.no_grad()(Mixture(2, 1)), POINTS, divergence="hutchinson", generator=generator(0)
            ),
            "its velocity depends on x",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_wrappers_forward_the_divergence_of_their_fields() -> None:
    x, labels = torch.randn(12, 2, generator=generator(1), dtype=torch.float64), torch.arange(12) % 2
    exact = fv.ExactField(x, fv.CondOT(0.3), labels=labels)
    points, t = torch.randn(6, 2, generator=generator(2), dtype=torch.float64), torch.linspace(0.1, 0.9, 6).double()
    for field in (fv.Guided(exact, 2.0, (0.2, 0.7)), fv.Hybrid(exact, fv.Guided(exact, 0.5), 0.5)):
        cond = torch.tensor([0, 1, 0, 1, 0, 1])
        with torch.no_grad():
            own = own_divergence(field, points, t, cond)[1]
            torch.testing.assert_close(own, exact_divergence(field, points, t, cond)[1])
    assert not hasattr(fv.Guided(lambda x, t, cond=None: x, 2.0), "divergence")
    assert not hasattr(fv.Hybrid(exact, lambda x, t, cond=None: x, 0.5), "divergence")
