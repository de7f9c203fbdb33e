"""Bandwidth by design: one exact flow for all schedules, held-out effective sample sizes, grids that follow them."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support import KernelAttention
from fluvial.support.design import (
    SizeCurve,
    balanced_bandwidths,
    balanced_sizes,
    bandwidth_grid,
    design_bandwidth,
    design_grid,
    effective_sizes,
    even_bandwidths,
    geometric_sizes,
)
from fluvial.support.tasks import GaussianMixtures, Moons, Shells

PATHS = [fv.CondOT(0.01), fv.CondOT(), fv.VP(), fv.Cosine(), fv.Polynomial(2)]


@pytest.fixture(scope="module")
def curve() -> SizeCurve:
    return effective_sizes(Shells(8), 50, tasks=60, queries=60, seed=0)


def data(n=12, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, d, generator=g, dtype=torch.float64)


def number(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("path", [fv.Cosine(), fv.VP(), fv.Polynomial(2)], ids=repr)
def test_all_schedules_share_one_flow(path):
    """From y = x/alpha at one bandwidth to another, every path goes the way of CondOT."""
    support, wide, narrow = data(), 8.0, 0.3
    y = wide * torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = []
    for each in (fv.CondOT(), path):
        nodes = bandwidth_grid(np.geomspace(wide, narrow, 61), each)[1:-1]
        x0 = y * each.alpha(number(nodes[0]))
        end = fv.solve(fv.ExactField(support, each), x0, grid=nodes, t0=nodes[0], t1=nodes[-1], method="rk4").x
        ends.append(end / each.alpha(number(nodes[-1])))
    assert (ends[0] - ends[1]).abs().max() < 1e-4
    assert (ends[0] - y).abs().max() > 1  # the flow went somewhere


@pytest.mark.slow
def test_schedules_that_start_alike_take_the_same_noise_to_the_same_points():
    """Where alpha(0) = 0 and sigma(0) = 1, paths start at the same y / h, hence end alike."""
    support = data()
    x0 = torch.randn(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    grid = np.geomspace(60, 0.02, 200)
    ends = [
        fv.solve(fv.ExactField(support, path), x0, grid=bandwidth_grid(grid, path), method="rk4").x
        for path in (fv.CondOT(), fv.Cosine(), fv.Polynomial(2))
    ]
    for other in ends[1:]:
        assert ((ends[0] - other).abs().amax(1) < 1e-3).double().mean() > 0.94  # but for noise on a watershed


@pytest.mark.parametrize(
    "path",
    [fv.Polynomial(3), fv.Cosine(), fv.FromBandwidth(lambda t: 2 * (1 - t) / t, lambda t: -2 / t**2)],
    ids=["polynomial", "cosine", "bandwidth"],
)
def test_eulers_step_on_the_straight_path_is_the_step_in_bandwidths_of_every_path(path):
    """x' = alpha' m + (sigma'/sigma)(x - alpha m) at a path's equal times: Euler on CondOT at those bandwidths."""
    support = data()
    x0 = torch.randn(20, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    nodes = torch.linspace(0, 1, 11, dtype=torch.float64)
    field, x = fv.ExactField(support, path), x0
    for now, then in pairwise(nodes):
        mean = field.posterior(x, now).mean
        x = path.alpha(then) * mean + path.sigma(then) / path.sigma(now) * (x - path.alpha(now) * mean)
    carried = bandwidth_grid(path.bandwidth(nodes[1:-1]).numpy(), fv.CondOT())
    found = fv.solve(fv.ExactField(support), x0, grid=carried, method="euler").x
    assert (found - x).abs().max() < 1e-8
    assert (torch.tensor(carried, dtype=torch.float64) - nodes).abs().max() > 0.02


@pytest.mark.parametrize("path", [fv.VP(), fv.Cosine()], ids=repr)
def test_a_scheme_in_bandwidths_walks_alike_on_every_path(path):
    """y' = m + (h'/h)(y - m), with m from each path's own field, is one walk for all."""
    support, h = data(), [6.0, 3.0, 1.5, 0.7, 0.3, 0.1]
    start = 6 * torch.randn(10, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ends = []
    for each in (fv.CondOT(), path):
        field, y = fv.ExactField(support, each), start
        for t, (now, then) in zip(bandwidth_grid(h, each)[1:], pairwise(h), strict=False):
            mean = field.posterior(y * each.alpha(number(t)), t).mean
            y = mean + then / now * (y - mean)
        ends.append(y)
    assert (ends[0] - ends[1]).abs().max() < 1e-8


@pytest.mark.parametrize("steps", [5, 20])
def test_sizes_of_balanced_errors_give_the_balanced_nodes(curve, steps):
    grid = design_grid(curve, balanced_sizes(curve), steps)
    expected = bandwidth_grid(balanced_bandwidths(0.85 * curve.scale, steps))
    assert np.allclose(grid, expected, atol=2e-3)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_nodes_have_their_bandwidths(path):
    h = np.geomspace(50, 0.02, 9)
    nodes = bandwidth_grid(h, path)
    assert nodes[0] == 0 and nodes[-1] == 1
    assert np.allclose(path.bandwidth(torch.tensor(nodes[1:-1], dtype=torch.float64)).numpy(), h, rtol=1e-9)


def test_sizes_against_their_definition():
    """Two tasks, written out with numpy in loops."""
    points = data(40, 2, seed=5)
    curve = effective_sizes(points, 10, [3.0, 0.4], tasks=2, queries=5, seed=7)
    rows = torch.stack([torch.randperm(40, generator=generator(7, 0, task)) for task in range(2)])
    noise = torch.randn(2, 5, 2, generator=generator(7, 1), dtype=torch.float64)
    for row, h in enumerate((3.0, 0.4)):
        sizes = []
        for task in range(2):
            support, queries = points[rows[task, :10]].numpy(), points[rows[task, 10:15]].numpy()
            for query, z in zip(queries, noise[task].numpy(), strict=True):
                w = np.exp(-((query + h * z - support) ** 2).sum(1) / (2 * h * h))
                w /= w.sum()
                sizes.append(1 / (w**2).sum())
        assert float(curve.sizes[row]) == pytest.approx(np.mean(sizes), rel=1e-12)


def test_sizes_of_gaussian_data_follow_the_population_formula():
    """n_eff ~ 1 + (m - 1) (E k)^2 / E k^2 with closed-form kernel moments of N(0, I), accurate where n_eff >> 1."""
    g = torch.Generator().manual_seed(0)
    m, d, h = 400, 2, 1.0
    curve = effective_sizes(torch.randn(20_000, d, generator=g), m, [h, 2.0], tasks=40, queries=100)
    y = torch.randn(100_000, d, generator=g).double() * math.sqrt(1 + h * h)
    square, a = y.square().sum(1), h * h
    first = (a / (a + 1)) ** (d / 2) * torch.exp(-square / (2 * (a + 1)))
    second = (a / (a + 2)) ** (d / 2) * torch.exp(-square / (a + 2))
    expected = float((1 + (m - 1) * first.square() / second).mean())
    assert float(curve.sizes[1]) == pytest.approx(expected, rel=0.03)
    assert curve.scale == pytest.approx(1.0, rel=0.02)


def test_sizes_run_from_all_examples_to_one(curve):
    assert float(curve.sizes[0]) == pytest.approx(50, rel=1e-3)
    assert float(curve.sizes[-1]) == pytest.approx(1, abs=0.05)
    assert bool((curve.sizes >= 1 - 1e-9).all() and (curve.sizes <= 50 + 1e-9).all())
    assert bool((curve.bandwidths.diff() < 0).all())


def test_the_paper_s_figure_of_shells(curve):
    """Matsui Smola 2026: 6.5 at t = .56, m = 50, d = 8."""
    h = float(fv.CondOT(0.01).bandwidth(number(0.56)))
    assert curve.size_at([h])[0] == pytest.approx(6.5, rel=0.15)


def test_inversion_returns_to_the_measured_points(curve):
    chosen = torch.tensor([20, 35, 50])
    sizes, h = curve.sizes[chosen].numpy(), curve.bandwidths[chosen].numpy()
    assert np.allclose(curve.bandwidth_at(sizes), h, rtol=1e-6)
    assert np.allclose(curve.size_at(h), sizes, rtol=1e-6)
    between = np.geomspace(40, 1.2, 60)
    assert np.allclose(curve.size_at(curve.bandwidth_at(between)), between, rtol=0.01)
    assert (np.diff(curve.bandwidth_at(between)) < 0).all()


PROFILES = {
    "geometric": geometric_sizes(50),
    "to 3": geometric_sizes(50, 3.0),
    "linear": lambda share: 50 - 47 * share,
    "late": lambda share: 2 + 46 * (1 - share**2),
}


TO_DESIGN = [Shells(8), Moons(), GaussianMixtures(4)]


@pytest.mark.slow
@pytest.mark.parametrize("family", TO_DESIGN, ids=lambda family: family.name)
@pytest.mark.parametrize("profile", [*PROFILES, "balanced"])
def test_fresh_tasks_follow_the_wanted_sizes_within_a_tenth(family, profile):
    """On a grid's nodes, measured on tasks that the design has not seen."""
    curve = effective_sizes(family, 50, tasks=1500, queries=8, seed=0)
    wanted = balanced_sizes(curve) if profile == "balanced" else PROFILES[profile]
    nodes = torch.tensor(design_grid(curve, wanted, 12)[1:-1], dtype=torch.float64)
    fresh = effective_sizes(family, 50, fv.CondOT(0.01).bandwidth(nodes), tasks=1500, queries=8, seed=1)
    expected = [wanted(k / 12) for k in range(1, 12)]
    assert np.abs(fresh.sizes.numpy() / expected - 1).max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("family", TO_DESIGN, ids=lambda family: family.name)
@pytest.mark.parametrize("profile", PROFILES)
def test_designed_paths_follow_the_wanted_sizes_within_a_tenth(family, profile):
    wanted = PROFILES[profile]
    curve = effective_sizes(family, 50, tasks=1500, queries=8, seed=0)
    path, t = design_bandwidth(curve, wanted), torch.linspace(0.02, 1, 12, dtype=torch.float64)
    along = effective_sizes(family, 50, path.bandwidth(t), tasks=1500, queries=8, seed=2)
    assert np.abs(along.sizes.numpy() / [wanted(float(each)) for each in t] - 1).max() < 0.1


def test_a_designed_path_is_a_path(curve):
    path = design_bandwidth(curve, geometric_sizes(50, 1.05))
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    h = path.bandwidth(t)
    assert bool((h[1:].diff() < 0).all()) and float(h[0]) == math.inf
    inside = t[1:-1].clone().requires_grad_()
    eps = 1e-6
    numerical = (path.h(inside.detach() + eps) - path.h(inside.detach() - eps)) / (2 * eps)
    assert torch.allclose(path.h_dot(inside.detach()), numerical, rtol=1e-3)
    assert float(path.alpha(number(0.0))) == 0 and float(path.sigma(number(0.0))) == 1
    early = torch.tensor([1e-7, 1e-6, 1e-5], dtype=torch.float64)
    assert torch.allclose(path.h(early) * early, path.h(early)[:1] * early[:1], rtol=1e-9)  # c/t
    x0 = torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    support = Shells(8).sample(20, 1, torch.Generator().manual_seed(1))[0].double()[None]
    end = fv.solve(KernelAttention(path), x0, steps=30, cond=support, method="euler").x
    rest = float(h[-1])
    assert float(torch.cdist(end, support).min(2).values.median()) < 3 * rest * math.sqrt(8)


def test_balanced_bandwidths_are_those_of_the_cosine_path():
    h = balanced_bandwidths(3.0, 10)
    t = torch.arange(1, 10, dtype=torch.float64) / 10
    assert np.allclose(h, 3 * fv.Cosine().bandwidth(t).numpy(), rtol=1e-12)
    assert balanced_bandwidths(1.0, 1) == []


@pytest.mark.parametrize("steps", [10, 20, 40])
def test_balanced_bandwidths_lose_less_spread_than_others_on_gaussian_data(steps):
    """Euler on the exact field of a Gaussian: the only error is that of the standard deviation, in closed form."""
    s = 2.5

    def lost(nodes: np.ndarray) -> float:
        h = fv.CondOT().bandwidth(torch.as_tensor(nodes)).numpy()
        y = h[1]  # the first step, from an infinite bandwidth, puts the noise around the mean
        for now, then in pairwise(h[1:]):
            y *= (s**2 + now * then) / (s**2 + now**2)
        return 1 - y / s

    balanced = lost(np.array(bandwidth_grid(balanced_bandwidths(s, steps), fv.CondOT())))
    assert balanced > 0
    others = [np.linspace(0, 1, steps + 1)]
    others += [np.array(bandwidth_grid(even_bandwidths(s, steps, *e), fv.CondOT())) for e in ((4, 0.2), (9, 0.05))]
    others += [np.array(bandwidth_grid(balanced_bandwidths(c * s, steps), fv.CondOT())) for c in (0.8, 1.25)]
    assert all(balanced < lost(nodes) for nodes in others)


def test_even_bandwidths():
    h = np.array(even_bandwidths(2.0, 6))
    assert h[0] == 12 and h[-1] == pytest.approx(0.12)
    assert np.allclose(h[1:] / h[:-1], h[1] / h[0])
    assert even_bandwidths(1.0, 1) == [] and even_bandwidths(1.0, 2, 4.0, 1.0) == [2.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: effective_sizes(data(), 1), ValueError, "m must be at least 2, got 1"),
        (lambda c: effective_sizes(data(), 5, tasks=1), ValueError, "tasks must be at least 2, got 1"),
        (lambda c: effective_sizes(data(), 5, queries=0), ValueError, "queries must be at least 1, got 0"),
        (lambda c: effective_sizes(data(12), 12), ValueError, "more than m = 12 points.*got 12"),
        (lambda c: effective_sizes(torch.zeros(20, 2), 5), ValueError, "copies of one"),
        (lambda c: effective_sizes(data()[0], 5), ValueError, r"finite floating points \(N, d\)"),
        (lambda c: effective_sizes(data(), 5, [1.0, -1.0]), ValueError, "bandwidths must be at least two different"),
        (lambda c: geometric_sizes(50, 1.0), ValueError, "floor must be between 1 and m = 50, got 1"),
        (lambda c: c.bandwidth_at([60.0]), ValueError, "sizes must lie between .* got 60"),
        (lambda c: design_grid(c, lambda s: 10 + s, 5), ValueError, "strictly decreasing function"),
        (lambda c: design_grid(c, geometric_sizes(50), 0), ValueError, "steps must be an integer of at least 1, got 0"),
        (lambda c: bandwidth_grid([1.0, 2.0]), ValueError, "strictly decreasing, got"),
        (lambda c: bandwidth_grid([1.0, 0.001]), ValueError, "within those of the path, from inf to 0.01"),
        (lambda c: balanced_bandwidths(0.0, 5), ValueError, "scale must be positive and finite, got 0"),
        (lambda c: even_bandwidths(1.0, 5, 0.1, 1.0), ValueError, "0 < last < first, got 0.1 and 1.0"),
    ],
)
def test_bad_arguments(call, error, message, curve):
    with pytest.raises(error, match=message):
        call(curve)
