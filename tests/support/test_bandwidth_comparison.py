"""Fields on several grids: pairing, the baseline, counting, and what is refused."""

import pytest
import torch

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support import KernelAttention
from fluvial.support.design import (
    balanced_bandwidths,
    bandwidth_grid,
    compare_grids,
    effective_sizes,
)
from fluvial.support.tasks import GaussianMixtures, Moons

UNIFORM = [k / 10 for k in range(11)]


def test_figures_are_those_of_separate_samples():
    """The same draws, solved and scored one task at a time."""
    family = GaussianMixtures(2)
    grids = {"uniform": UNIFORM, "short": [0.0, 0.4, 0.8, 1.0]}
    found = compare_grids(KernelAttention(), family, grids, m=10, tasks=3, points=40, reference=UNIFORM, seed=4)
    drawn = family.batch(3, 10, 40, generator(4, 0))
    x0 = torch.randn(drawn.targets.shape, generator=generator(4, 1))
    assert found.evaluations == {"uniform": 10, "short": 3}
    for name, grid in grids.items():
        for task in range(3):
            field = fv.ExactField(drawn.support[task], fv.CondOT(0.01))
            x = fv.solve(field, x0[task], grid=grid, method="euler").x
            width = fv.metrics.median_distance(drawn.targets[task])
            expected = fv.metrics.mmd2(x, drawn.targets[task], width)
            assert float(found.mmd2[name][task]) == pytest.approx(expected, abs=2e-5)
            energy = fv.metrics.energy_distance(x, drawn.targets[task])
            assert float(found.energy[name][task]) == pytest.approx(energy, abs=1e-3)


def test_a_grid_differs_from_itself_by_nothing():
    found = compare_grids(
        KernelAttention(), Moons(), {"a": UNIFORM, "b": UNIFORM}, m=10, tasks=3, points=20, reference=UNIFORM
    )
    for figure in ("mmd2", "energy", "distance"):
        difference = found.difference("b", figure)
        assert difference.low == difference.value == difference.high == 0
    assert [row["grid"] for row in found.rows()] == ["a", "b"]


def test_a_designed_grid_beats_the_uniform_one_on_wide_data():
    family = GaussianMixtures(4)
    scale = effective_sizes(family, 50, tasks=40, queries=20, seed=1).scale
    grids = {"uniform": UNIFORM, "designed": bandwidth_grid(balanced_bandwidths(0.85 * scale, 10))}
    fine = bandwidth_grid(balanced_bandwidths(scale, 60))
    found = compare_grids(KernelAttention(), family, grids, tasks=20, points=100, reference=fine, seed=2)
    assert found.difference("designed").high < 0
    assert found.difference("designed", "distance").high < 0


def test_any_field_of_a_support_is_compared_in_evaluation_mode():
    net = fv.nn.SupportNet(2, width=16, blocks=1, heads=2)
    seen = []
    net.register_forward_hook(lambda module, *_: seen.append(module.training))
    found = compare_grids(net, Moons(), {"uniform": UNIFORM}, m=5, tasks=2, points=4, method="heun", seed=0)
    assert found.evaluations == {"uniform": 20}
    assert seen and not any(seen) and net.training


def test_arguments():
    head = KernelAttention()
    with pytest.raises(ValueError, match="grids must hold at least one grid"):
        compare_grids(head, Moons(), {})
    with pytest.raises(ValueError, match="tasks must be at least 2, got 1"):
        compare_grids(head, Moons(), {"a": UNIFORM}, tasks=1)
    with pytest.raises(ValueError, match="m must be at least 1, got 0"):
        compare_grids(head, Moons(), {"a": UNIFORM}, m=0)
    found = compare_grids(head, Moons(), {"a": UNIFORM}, m=5, tasks=2, points=4, reference=UNIFORM)
    with pytest.raises(ValueError, match="name must be one of a, got 'b'"):
        found.difference("b")
    with pytest.raises(ValueError, match="figure must be one of mmd2, energy, distance, got 'kid'"):
        found.difference("a", "kid")
