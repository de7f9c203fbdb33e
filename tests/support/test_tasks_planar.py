"""Families in the plane: sampler, density and velocity against one another and against sums over a fine grid."""

import dataclasses

import pytest
import torch

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support.tasks import FourierDensities, GaussianMixtures, Moons, Rings, Shells, Spirals

CURVES = [Rings(), Moons(), Spirals()]
PLANAR = [*CURVES, Shells(2), FourierDensities(2)]


def name(family):
    return family.name


def grid_about(points, step):
    """Middles of the cells of a grid over the points, with a margin; shape (P, 2)."""
    low, high = points.amin(0) - 1.5, points.amax(0) + 1.5
    axes = [torch.arange(float(a), float(b), step, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def step_of(family, truth):
    return 0.6 * float(truth.noise) if family in CURVES else 0.07  # 100 cells across the box of fourier


def tabulated(family, seed):
    """One task, a grid, and its density times the cell's area there."""
    truth = family.draw(1, generator(seed))
    step = step_of(family, truth)
    points = truth.sample(5000, generator(seed, 1))[0]
    if family.name == "fourier":
        at = torch.arange(-3.5 + step / 2, 3.5, step, dtype=torch.float64)
        grid = torch.cartesian_prod(at, at)
    else:
        grid = grid_about(points, step)
    return truth, points, grid, truth.log_density(grid[None])[0], step**2


@pytest.mark.parametrize("family", PLANAR, ids=name)
@pytest.mark.parametrize("seed", [0, 1])
def test_density_sums_to_one_and_is_that_of_the_samples(family, seed):
    truth, points, _, log_p, area = tabulated(family, seed)
    p = log_p.exp() * area
    mass = float(p.sum())
    if family.name == "shells":  # 1 / |x| at the origin takes a finer grid than the rest
        assert mass == pytest.approx(1, abs=0.01)
    else:
        assert mass == pytest.approx(1, abs=2e-4)
    # samples have the entropy of the density, and its second moments
    at_samples = truth.log_density(points[None].double())[0]
    expected = float((p * log_p.nan_to_num(neginf=0.0)).sum())
    error = float(at_samples.std()) / len(points) ** 0.5
    assert float(at_samples.mean()) == pytest.approx(
        expected, abs=5 * error + (0.03 if family.name == "shells" else 1e-3)
    )


@pytest.mark.parametrize("family", PLANAR, ids=name)
@pytest.mark.parametrize("path", [fv.CondOT(0.01), fv.Cosine()], ids=lambda p: type(p).__name__)
def test_velocity_is_a_sum_over_the_plane(family, path):
    truth, points, grid, log_p, _ = tabulated(family, 2)
    t = torch.tensor([0.0, 0.1, 0.4, 0.7, 0.85], dtype=torch.float64)
    x = path.sample(torch.randn(5, 2, generator=generator(3)).double(), points[:5].double(), t).xt
    found = truth.velocity(x[None], t[None], path)[0]
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    distance = (x[:, None] - alpha[..., None] * grid).square().sum(-1)
    weight = torch.softmax(log_p.nan_to_num(neginf=-1e9) - 0.5 * distance / sigma.square(), 1)
    mean = weight @ grid
    expected = path.alpha_dot(t)[:, None] * mean + path.sigma_dot(t)[:, None] * (x - alpha * mean) / sigma
    tolerance = {"shells": 2e-2, "fourier": 2e-3}.get(family.name, 1e-3)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("family", CURVES, ids=name)
def test_twice_the_nodes_change_nothing(family):
    batch = family.batch(40, 1, 30, generator(4))
    finer = dataclasses.replace(batch.truth, refinement=2)
    coarse = dataclasses.replace(batch.truth, outline=_with_nodes(batch.truth.outline, 24))
    x, path = batch.targets.double(), fv.CondOT()
    torch.testing.assert_close(batch.truth.log_density(x), finer.log_density(x), rtol=0, atol=1e-8)
    t = torch.rand(40, 30, generator=generator(5)).double()
    xt = t[..., None] * x + (1 - t[..., None]) * torch.randn(x.shape, generator=generator(6))
    found = batch.truth.velocity(xt, t, path)
    torch.testing.assert_close(found, finer.velocity(xt, t, path), rtol=1e-8, atol=1e-8)
    assert float((found - coarse.velocity(xt, t, path)).abs().max()) > 1e-3  # so few do not suffice


def _with_nodes(outline, number):
    kind = type("Coarse", (type(outline),), {"nodes": number})
    return kind(**{field.name: getattr(outline, field.name) for field in dataclasses.fields(outline)})


@pytest.mark.parametrize("family", PLANAR, ids=name)
def test_densities_can_be_differentiated_and_velocities_are_constants(family):
    batch = family.batch(2, 1, 4, generator(13))
    x = (0.9 * batch.targets.double()).requires_grad_()
    (score,) = torch.autograd.grad(batch.truth.log_density(x).sum(), x)
    assert not batch.truth.velocity(x, torch.full((2, 4), 0.5), fv.CondOT()).requires_grad
    x, step = x.detach(), torch.tensor([1e-6, 0.0], dtype=torch.float64)
    slope = (batch.truth.log_density(x + step) - batch.truth.log_density(x - step)) / 2e-6
    torch.testing.assert_close(score[..., 0], slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", CURVES, ids=name)
@pytest.mark.parametrize("last", [1 - 1e-6, 1.0])
def test_at_the_end_the_velocity_is_finite_and_continuous(family, last):
    batch = family.batch(3, 1, 20, generator(7))
    x = batch.targets.double()
    path = fv.CondOT()
    at = batch.truth.velocity(x, torch.full((3, 20), last).double(), path)
    # at t = 1 the noise has mean zero: u = alpha' x
    assert float((at - x).abs().max()) < (1e-12 if last == 1 else 1e-3)


def test_circles_have_the_density_of_the_bessel_function():
    from scipy.special import ive

    truth = Rings().draw(1, generator(8))
    truth = dataclasses.replace(truth, branches=torch.tensor([1]))
    radius = float(truth.frames.scale * truth.outline.radius[0, 0])
    tau, centre = float(truth.noise), truth.frames.centre.double()
    distance = torch.linspace(0.5, 1.5, 30, dtype=torch.float64) * radius
    x = centre + distance[:, None] * torch.tensor([0.6, 0.8], dtype=torch.float64)
    kappa = (distance * radius / tau**2).numpy()
    expected = -0.5 * ((distance - radius) / tau) ** 2 + torch.log(
        torch.from_numpy(ive(0, kappa)) / (6.283185307179586 * tau**2)
    )
    torch.testing.assert_close(truth.log_density(x[None])[0], expected, rtol=1e-5, atol=1e-4)


def test_parameters_lie_in_the_stated_ranges():
    rings, moons, spirals = (family.draw(2000, generator(9)) for family in CURVES)
    for truth in (rings, moons, spirals):
        assert truth.frames.centre.abs().max() <= 3 and truth.frames.scale.min() >= 2 and truth.frames.scale.max() <= 5
        share = truth.noise / truth.frames.scale
        assert 0.0299 < share.min() < 0.032 and 0.078 < share.max() < 0.0801
    assert rings.branches.unique().tolist() == [1, 2, 3] and rings.outline.radius.min() >= 0.3
    assert moons.branches.unique().tolist() == [2] and spirals.branches.unique().tolist() == [1, 2]
    assert spirals.outline.turn.unique().tolist() == [-1, 1]


def test_moons_are_those_of_scikit_learn():
    from sklearn.datasets import make_moons

    truth = Moons().draw(1, generator(10))
    s = torch.linspace(0, 1, 50, dtype=torch.float64).repeat(1, 2)
    branch = torch.arange(2).repeat_interleave(50)[None]
    expected, _ = make_moons(100, shuffle=False)
    found = truth.outline(s, branch)[0] + torch.tensor([0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", [*PLANAR, GaussianMixtures(2)], ids=name)
def test_a_task_does_not_depend_on_its_neighbours_and_seeds_decide_all(family):
    a, b = (family.batch(5, 6, 7, generator(11)) for _ in range(2))
    assert torch.equal(a.support, b.support) and torch.equal(a.targets, b.targets)
    t = torch.full((5, 7), 0.5)
    velocity = a.truth.velocity(a.targets, t, fv.CondOT())
    assert velocity.dtype == torch.float32 and velocity.shape == (5, 7, 2)
    support, targets = family.sample(6, 7, generator(12))
    assert support.shape == (6, 2) and targets.shape == (7, 2)
    assert not (support[:, None] == targets[None]).all(-1).any()
