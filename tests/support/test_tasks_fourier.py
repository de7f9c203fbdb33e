"""Fourier densities: normaliser, sampler and velocity against independent quadratures."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.integrate import simpson

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support.tasks import FourierDensities
from fluvial.support.tasks.fourier import FourierTruth


def energies(truth, x):
    """The sum of cosines, written out."""
    angle = (
        np.einsum("bnd,bjd->bnj", x.numpy(), truth.frequency.double().numpy()) + truth.phase.double().numpy()[:, None]
    )
    return (np.cos(angle) * truth.amplitude.double().numpy()[:, None]).sum(-1)


def test_density_in_one_dimension_is_normalised_on_the_box_and_zero_outside():
    truth = FourierDensities(1).draw(5, generator(0))
    x = torch.linspace(-3.5, 3.5, 20_001, dtype=torch.float64)[None, :, None].expand(5, -1, 1)
    p = truth.log_density(x).exp()
    torch.testing.assert_close(torch.trapezoid(p, x[..., 0]), torch.ones(5).double(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(
        np.log(p.numpy()) + energies(truth, x), -truth.log_normaliser[:, None].numpy().repeat(20_001, 1)
    )
    assert bool((truth.log_density(torch.full((5, 1, 1), 3.6)) == -torch.inf).all())


def test_normaliser_in_two_dimensions_is_exact():
    truth = FourierDensities(2).draw(3, generator(1))
    at = np.linspace(-3.5, 3.5, 141)
    x = torch.cartesian_prod(torch.from_numpy(at), torch.from_numpy(at))[None].expand(3, -1, -1)
    density = np.exp(-energies(truth, x)).reshape(3, 141, 141)
    mass = simpson(simpson(density, x=at), x=at)
    np.testing.assert_allclose(truth.log_normaliser.numpy(), np.log(mass), atol=2e-6)


def test_normaliser_above_two_dimensions_is_right_to_its_stated_accuracy():
    truth = FourierDensities(3).draw(4, generator(2))
    at, weight = np.polynomial.legendre.leggauss(32)
    x = torch.cartesian_prod(*[torch.from_numpy(3.5 * at)] * 3)
    weights = np.prod(np.meshgrid(*[3.5 * weight] * 3, indexing="ij"), 0).ravel()
    exact = [math.log((np.exp(-energies(_task(truth, b), x[None])[0]) * weights).sum()) for b in range(4)]
    np.testing.assert_allclose(truth.log_normaliser.numpy(), exact, atol=1e-4)
    assert np.abs(np.array(exact) - 3 * math.log(7)).max() > 0.01  # or the volume alone would do


@pytest.mark.parametrize("dim", [4, 32])
def test_normaliser_does_not_depend_on_the_points(dim):
    from scipy.stats import qmc

    truth = FourierDensities(dim).draw(2, generator(14, dim))
    x = torch.from_numpy(7 * qmc.Halton(dim, rng=1).random(20_000) - 3.5).expand(2, -1, -1)
    energy = energies(truth, x)
    np.testing.assert_allclose(energy.mean(1), truth.mean_energy.numpy(), atol=8e-3)
    found = truth.log_normaliser.numpy() - dim * math.log(7)
    np.testing.assert_allclose(found, np.log((np.exp(-energy) + energy).mean(1) - truth.mean_energy.numpy()), atol=1e-3)
    np.testing.assert_allclose(found, np.log(np.exp(-energy).mean(1)), atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [8, 16])
def test_normaliser_in_many_dimensions_agrees_with_plain_monte_carlo(dim):
    truth = FourierDensities(dim).draw(2, generator(3))
    total, squares, count = np.zeros(2), np.zeros(2), 10
    for part in range(count):
        x = 7 * torch.rand(2, 50_000, dim, generator=generator(4, part)).double() - 3.5
        mean = np.exp(-energies(truth, x)).mean(1)
        total, squares = total + mean, squares + mean**2
    mean = total / count
    error = np.sqrt((squares / count - mean**2) / count) / mean
    gap = truth.log_normaliser.numpy() - np.log(mean) - dim * math.log(7)
    assert (np.abs(gap) < 1e-3 + 4 * error).all() and (error < 5e-4).all()


@pytest.mark.parametrize("dim", [2, 6])
def test_samples_have_the_energies_of_the_density(dim):
    truth = FourierDensities(dim).draw(4, generator(5, dim))
    x = truth.sample(6000, generator(6)).double()
    assert float(x.abs().max()) <= 3.5
    uniform = 7 * torch.rand(4, 25_000, dim, generator=generator(7)).double() - 3.5
    energy = energies(truth, uniform)
    weight = np.exp(-energy)
    weight /= weight.sum(1, keepdims=True)
    found = energies(truth, x)
    expected = (weight * energy).sum(1)
    assert (np.abs(found.mean(1) - expected) < 5 * found.std(1) * (1 / 6000 + 1 / 25_000) ** 0.5).all()
    assert (energy.mean(1) - found.mean(1) > 8 * found.std(1) / 77).all()  # uniform points have others


def test_velocity_in_one_dimension_is_a_fine_sum():
    truth, path = FourierDensities(1).draw(4, generator(8)), fv.CondOT()
    t = torch.tensor([0.0, 1e-6, 0.3, 0.6, 0.9, 0.99, 0.999], dtype=torch.float64).expand(4, 7)
    x = torch.cat([2 * torch.randn(4, 7, 1, generator=generator(9)).double(), torch.full((4, 7, 1), 5.0).double()], 1)
    t = t.repeat(1, 2)
    found = truth.velocity(x, t, path)[..., 0].numpy()
    # points crowd at the ends, where the posterior of a point beyond the box is thin
    u = np.linspace(-1, 1, 20_001)
    s, spacing = 3.5 * np.sin(np.pi / 2 * u), np.cos(np.pi / 2 * u)
    energy = energies(truth, torch.from_numpy(s)[None, :, None].expand(4, -1, 1))
    for task in range(4):
        for row in range(14):
            time = float(t[task, row])
            noise = (float(x[task, row]) - time * s) / (1 - time)
            weight = spacing * np.exp(-energy[task] - 0.5 * (noise**2 - (noise**2).min()))
            expected = (weight * (s - noise)).sum() / weight.sum()
            assert found[task, row] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("dim", [1, 2])
def test_twice_the_nodes_change_nothing(dim):
    batch = FourierDensities(dim).batch(4, 1, 11, generator(10))
    t = torch.tensor([0, 1e-9, 1e-3, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999, 1 - 1e-6, 1], dtype=torch.float64).expand(4, 11)
    x0 = torch.randn(4, 11, dim, generator=generator(11)).double()
    x = t[..., None] * batch.targets.double() + (1 - t[..., None]) * x0
    x[:2] *= 1.5  # beyond the box, too
    for path in (fv.CondOT(0.01), fv.Cosine()):
        found = batch.truth.velocity(x, t, path)
        finer = dataclasses.replace(batch.truth, nodes=120).velocity(x, t, path)
        torch.testing.assert_close(found, finer, rtol=1e-8, atol=1e-8)


def test_above_two_dimensions_the_velocity_is_refused():
    truth = FourierDensities(3).draw(2, generator(12))
    assert truth.has_density and not truth.has_velocity
    with pytest.raises(ValueError, match="the velocity of FourierTruth is not known"):
        truth.velocity(torch.zeros(2, 1, 3), torch.zeros(2, 1), fv.CondOT())


def test_same_seed_same_bits_and_bad_arguments_are_named():
    a, b = (FourierDensities(4).batch(3, 4, 5, generator(13)) for _ in range(2))
    assert torch.equal(a.support, b.support) and torch.equal(a.targets, b.targets)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        FourierDensities(0)
    with pytest.raises(ValueError, match="strength must be positive, got -1"):
        FourierDensities(2, strength=-1)


def _task(truth, index):
    part = slice(index, index + 1)
    return FourierTruth(truth.frequency[part], truth.amplitude[part], truth.phase[part])
