"""Grey levels, units, the choice of a divergence, and samples with densities in batches."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import fluvial as fv
from fluvial.data import Standardization
from fluvial.densities import Trace, dequantized, draw_with_log_prob, in_original_units
from fluvial.levels import bits_per_dim
from fluvial.randomness import generator
from fluvial.solvers.sampling import Solver, draw_samples

RK4 = Solver("rk4", 20)


def _net(dim: int) -> nn.Module:
    torch.manual_seed(0)
    return fv.nn.MLP((dim,), 16, depth=1).eval().requires_grad_(False)


def _bent(dim: int):
    """A field whose Jacobian is neither diagonal nor symmetric, evaluated as float32."""
    mixing = torch.randn(dim, dim, generator=generator(3)) / dim**0.5
    return lambda x, t, cond=None: torch.tanh(x @ mixing.T) * (1 + t[:, None])


def test_noise_fills_a_level_s_bin_evenly_and_belongs_to_the_datum() -> None:
    levels, count = 17, 4000
    grey = torch.arange(count) % levels
    x = (2 * grey.double() / (levels - 1) - 1)[:, None]
    noisy = dequantized(x, levels, torch.arange(count), seed=5)
    assert torch.equal(((noisy + 1) * (levels - 1) / 2).round(), ((x + 1) * (levels - 1) / 2).round())
    assert stats.kstest(((noisy - x) * (levels - 1) / 2 + 0.5)[:, 0].numpy(), "uniform").pvalue > 0.01
    some = torch.tensor([40, 3, 3])
    assert torch.equal(dequantized(x[some], levels, some, seed=5), noisy[some])
    assert not torch.equal(dequantized(x[some], levels, some, seed=6), noisy[some])


def test_bits_of_dequantized_data_bound_those_of_the_grey_levels() -> None:
    """Against the probability of each bin under a normal distribution; the bound is strict for a density that bends."""
    levels, scale, count = 5, 0.7, 3000
    for grey in range(levels):
        x = torch.full((count, 1), 2 * grey / (levels - 1) - 1.0, dtype=torch.float64)
        noisy = dequantized(x, levels, torch.arange(count))
        bits = bits_per_dim(torch.distributions.Normal(0.0, scale).log_prob(noisy[:, 0]), 1, levels)
        half = 1 / (levels - 1)
        exact = -math.log2(np.diff(stats.norm.cdf([float(x[0]) - half, float(x[0]) + half], scale=scale))[0])
        assert float(bits.mean()) > exact + (0.002 if grey != levels // 2 else -0.002)
        assert float(bits.mean()) == pytest.approx(exact, abs=0.1)


def test_units_of_a_table_against_a_change_of_variables_by_hand() -> None:
    table = Standardization(("a", "b", "c"), (5.0, -2.0, 0.1), (2.0, 1e-3, 40.0))
    rows = np.random.default_rng(0).normal(table.mean, table.std, (20, 3))
    z = torch.from_numpy(table.forward(rows))
    own = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    found = in_original_units(own, table).numpy()
    expected = stats.norm.logpdf(rows, table.mean, table.std).sum(1)
    assert np.abs(found - expected).max() < 1e-10
    jacobian = torch.autograd.functional.jacobian(
        lambda v: (v - torch.tensor(table.mean, dtype=torch.float64)) / torch.tensor(table.std, dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
    )
    assert np.abs(found - (own + torch.linalg.slogdet(jacobian)[1]).numpy()).max() < 1e-10
    assert in_original_units(own, None) is own


def test_which_divergence_by_default() -> None:
    assert Trace.of(32) == Trace("exact", 1) and Trace.of(33) == Trace("hutchinson", 8)
    assert Trace.of(784, "exact") == Trace("exact", 1) and Trace.of(2, probes=3) == Trace("hutchinson", 3)
    assert Trace.of(2).directions(0) is None
    with pytest.raises(ValueError, match="probes are for divergence 'hutchinson', got 2 for 'exact'"):
        Trace.of(2, "exact", 2)


@pytest.mark.parametrize("trace", [Trace(), Trace("hutchinson", 3)])
def test_neither_batches_nor_the_number_of_samples_change_densities(trace: Trace) -> None:
    field = _bent(5)
    whole = draw_with_log_prob(field, 21, (5,), trace=trace, solver=RK4)
    parts = draw_with_log_prob(field, 21, (5,), trace=trace, solver=RK4, batch_size=8)
    few = draw_with_log_prob(field, 9, (5,), trace=trace, solver=RK4)
    for other, count in ((parts, 21), (few, 9)):
        assert (other.x - whole.x[:count]).abs().max() < 1e-6
        assert (other.density.log_prob - whole.density.log_prob[:count]).abs().max() < 1e-5
    error = whole.density.standard_error
    assert (error is None) == (trace.divergence == "exact") and (error is None or error.shape == (21,))


@pytest.mark.parametrize("probes", [1, 3])
def test_batches_change_no_random_direction_of_data(probes: int) -> None:
    x, field = torch.randn(11, 5, generator=generator(1)), _bent(5)
    options = {"divergence": "hutchinson", "probes": probes, "steps": 10, "method": "rk4"}
    whole, parts = (fv.log_prob(field, x, batch_size=size, generator=generator(2), **options) for size in (11, 4))
    assert (whole.log_prob - parts.log_prob).abs().max() < 1e-5
    other = fv.log_prob(field, x, generator=generator(3), **options)
    assert (whole.log_prob - other.log_prob).abs().max() > 1e-2


@pytest.mark.parametrize("solver", [Solver("heun", 10), RK4, Solver("dopri5", None)])
def test_samples_are_those_of_plain_sampling(solver: Solver) -> None:
    net = _net(6)
    plain, evaluations = draw_samples(net, 13, (6,), seed=4, solver=solver)
    found = draw_with_log_prob(net, 13, (6,), seed=4, solver=solver, trace=Trace())
    assert found.x.dtype == torch.float32
    assert (found.x - plain).abs().max() < (1e-3 if solver.steps is None else 1e-5)
    if solver.steps is not None:
        assert found.density.evaluations == evaluations


def test_density_of_a_sample_is_that_of_the_data_it_is() -> None:
    field = _bent(4)
    found = draw_with_log_prob(field, 7, (4,), trace=Trace(), solver=Solver("rk4", 60))
    back = fv.log_prob(field, found.x, rtol=1e-6, atol=1e-6)
    assert (found.density.log_prob - back.log_prob).abs().max() < 1e-4
    assert torch.allclose(found.density.bits_per_dim, -found.density.log_prob / (4 * math.log(2)))


def test_hybrids_have_a_density() -> None:
    """The exact field is smooth before tau, whatever it becomes at the end."""
    support = torch.randn(5, 3, generator=generator(7))
    field = fv.Hybrid(fv.ExactField(support), _net(3), 0.6)
    x0 = torch.randn(1, 3, generator=generator(8)).double()
    found = fv.sample_with_log_prob(field, x0.float(), steps=10, method="rk4")
    smooth = fv.Hybrid(fv.ExactField(support.double()), _net(3).double(), 0.6)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: fv.solve(smooth, x[None], steps=10, method="rk4").x[0], x0[0]
    )
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x0).sum() - torch.linalg.slogdet(jacobian)[1]
    assert float(found.density.log_prob) == pytest.approx(float(expected), abs=3e-3)


def test_conditions_and_progress() -> None:
    reports: list[int] = []
    shift = lambda x, t, cond: 0 * x + cond[:, None]  # noqa: E731
    cond = torch.arange(10.0)
    found = draw_with_log_prob(
        shift, 10, (2,), trace=Trace(), solver=RK4, cond=cond, batch_size=8, progress=lambda r: reports.append(r.step)
    )
    plain = draw_with_log_prob(lambda x, t: 0 * x, 10, (2,), trace=Trace(), solver=RK4)
    assert (found.x - plain.x - cond[:, None]).abs().max() < 1e-5
    assert reports == sorted(reports) and reports[-1] == 10
    with pytest.raises(ValueError, match="cond must have 9 rows, one for each sample, got 10"):
        draw_with_log_prob(shift, 9, (2,), trace=Trace(), solver=RK4, cond=cond)
