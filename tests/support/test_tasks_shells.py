"""Shells: Bessel functions against mpmath, density and velocity against independent integrals."""

import dataclasses
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import ncx2

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support.tasks import Shells
from fluvial.support.tasks.bessel import approximate_log_bessel, von_mises_fisher


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 33, 64, 101, 102, 103, 300])
def test_bessel_functions_are_those_of_mpmath(dim):
    mpmath.mp.dps = 40
    kappa = np.concatenate([[0.0], 10.0 ** np.linspace(-12, 14, 40), [1e-2, 9.99e-3]])
    log_bessel, length = von_mises_fisher(dim, kappa)
    order = mpmath.mpf(dim) / 2 - 1
    for k, found, a in zip(kappa, log_bessel, length, strict=True):
        k = mpmath.mpf(float(k)) + mpmath.mpf("1e-60")
        low, high = (_scaled(nu, k) for nu in (order, order + 1))
        expected = float(mpmath.log(low) - order * mpmath.log(k))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert a == pytest.approx(float(high / low), rel=2e-9, abs=1e-60)


def _scaled(order, k):
    """``I_order(k) e^-k``; by its own asymptotic series where mpmath would take long."""
    if k < 1e5 * max(1, order**2):
        return mpmath.besseli(order, k) * mpmath.exp(-k)
    term = total = mpmath.mpf(1)
    for j in range(1, 12):
        term *= -(4 * order**2 - (2 * j - 1) ** 2) / (8 * k * j)
        total += term
    return total / mpmath.sqrt(2 * mpmath.pi * k)


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 64, 300])
def test_the_cheap_approximation_is_off_by_less_than_a_nat(dim):
    kappa = 10.0 ** np.linspace(-6, 12, 200)
    gap = von_mises_fisher(dim, kappa)[0] - approximate_log_bessel(dim, kappa)
    assert np.ptp(gap) < 1


@pytest.mark.parametrize("dim", [1, 3, 8, 32])
def test_density_of_the_norm_integrates_to_one(dim):
    truth = Shells(dim).draw(20, generator(0, dim))
    radius = torch.linspace(1e-9, 9, 6001, dtype=torch.float64)
    direction = torch.randn(20, 1, dim, generator=generator(1)).double()
    direction = direction / direction.norm(dim=-1, keepdim=True)
    log_area = math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
    log_norm = truth.log_density(radius[:, None] * direction) + log_area + (dim - 1) * torch.log(radius)
    mass = torch.trapezoid(log_norm.exp(), radius, dim=1)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-6)


def test_samples_have_the_norms_and_the_even_directions_of_the_law():
    truth = Shells(5).draw(3, generator(2))
    x = truth.sample(40_000, generator(3)).double()
    norm = x.norm(dim=-1)
    for task in range(3):
        radii = truth.radius[task, : int(truth.count[task])].double()
        z = torch.linspace(-6, 6, 1001, dtype=torch.float64)
        law = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * 0.012
        for power in (1, 2):
            expected = float(((radii[:, None] + 0.3 * z).abs() ** power * law).sum(1).mean())
            assert float((norm[task] ** power).mean()) == pytest.approx(expected, rel=0.01)
    direction = x / norm[..., None]
    torch.testing.assert_close(direction.mean(1), torch.zeros(3, 5).double(), rtol=0, atol=0.012)
    second = torch.einsum("bni,bnj->bij", direction, direction) / 40_000
    torch.testing.assert_close(second, (torch.eye(5).double() / 5).expand(3, 5, 5), rtol=0, atol=0.008)


def marginal_score(truth, task, radius, alpha, sigma):
    """Radial derivative of the log-marginal: |x| given the datum's norm is noncentral chi, as scipy has it."""
    rho = np.linspace(0, 9, 6001)
    radii = truth.radius[task, : int(truth.count[task])].double().numpy()[:, None]
    q = (np.exp(-0.5 * ((rho - radii) / 0.3) ** 2) + np.exp(-0.5 * ((rho + radii) / 0.3) ** 2)).mean(0)

    def log_marginal(r):
        chi = ncx2.pdf((r / sigma) ** 2, truth.dim, (alpha * rho / sigma) ** 2) * 2 * r / sigma**2
        return math.log(np.trapezoid(q * chi, rho)) - (truth.dim - 1) * math.log(r)

    step = 2e-4 * sigma
    return (log_marginal(radius + step) - log_marginal(radius - step)) / (2 * step)


@pytest.mark.parametrize("dim", [2, 3, 8, 32])
def test_velocity_and_score_of_the_marginal_agree(dim):
    path, batch = fv.CondOT(0.01), Shells(dim).batch(2, 1, 5, generator(4, dim))
    t = torch.tensor([0.05, 0.3, 0.56, 0.8, 0.95], dtype=torch.float64)
    x0 = torch.randn(2, 5, dim, generator=generator(5)).double()
    x = t[:, None] * batch.targets.double() + path.sigma(t)[:, None] * x0
    found = batch.truth.velocity(x, t.expand(2, 5), path)
    for task in range(2):
        norms = x[task].norm(dim=1)
        scores = [
            marginal_score(batch.truth, task, float(r), float(s), float(path.sigma(s)))
            for r, s in zip(norms, t, strict=True)
        ]
        score = torch.tensor(scores, dtype=torch.float64)[:, None] * x[task] / norms[:, None]
        expected = path.convert(score, x[task], t, source="score", target="velocity")
        torch.testing.assert_close(found[task], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", [fv.CondOT(0.01), fv.CondOT(), fv.Cosine(), fv.VP()], ids=lambda p: type(p).__name__)
def test_twice_the_nodes_change_nothing_at_any_time(path):
    for dim in (1, 2, 8, 32, 130):
        batch = Shells(dim).batch(7, 1, 10, generator(6, dim))
        times = torch.tensor([0.0, 1e-6, 0.2, 0.5, 0.7, 0.9, 0.99, 0.999, 1 - 1e-5, 1 - 1e-6], dtype=torch.float64)
        t = times.expand(7, 10)
        x0 = torch.randn(7, 10, dim, generator=generator(7)).double()
        x = path.alpha(times)[:, None] * batch.targets.double() + path.sigma(times)[:, None] * x0
        # also where no datum is: far outside, between the shells, at the origin
        x = torch.cat([x, 3 * x, 0.3 * x, 0 * x], 1)
        t = t.repeat(1, 4)
        found = batch.truth.velocity(x, t, path)
        finer = dataclasses.replace(batch.truth, nodes=300).velocity(x, t, path)
        scale = 1 + finer.norm(dim=-1, keepdim=True)
        assert bool(torch.isfinite(found).all()) and float(((found - finer).abs() / scale).max()) < 2e-6


def test_far_from_the_shells_late_in_time_the_posterior_is_found():
    # d = 1 has no directions: a mixture of Gaussians at plus and minus the radii, whose field is known
    truth = Shells(1).draw(6, generator(8))
    path = fv.CondOT(0.01)
    t = torch.tensor([0.0, 0.5, 0.9, 0.95, 0.98, 0.999, 1.0], dtype=torch.float64).expand(6, 7)
    x = torch.tensor([-9.0, 1.0, 7.0, 9.0, 0.0, 12.0, -3.0], dtype=torch.float64).expand(6, 7)[..., None]
    found = truth.velocity(x, t, path)
    radii, sign = truth.radius.double(), torch.tensor([1.0, -1.0], dtype=torch.float64)
    centre = (radii[:, :, None] * sign).flatten(1)[:, None, :]
    used = (torch.arange(5) < truth.count[:, None])[:, :, None].expand(6, 5, 2).flatten(1)[:, None, :]
    sigma = path.sigma(t)[..., None]
    variance = t[..., None] ** 2 * 0.09 + sigma**2
    logit = torch.where(used, -0.5 * (x - t[..., None] * centre) ** 2 / variance, -torch.inf)
    slope = (t[..., None] * 0.09 + sigma * path.sigma_dot(t)[..., None]) / variance
    each = centre + slope * (x - t[..., None] * centre)
    expected = (torch.softmax(logit, -1) * each).sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_in_three_dimensions_the_velocity_is_a_fine_sum_of_elementary_functions():
    # there I_1/2(k) ~ sinh(k) / sqrt(k), and A(k) = coth(k) - 1 / k; far outside and between the shells, too
    truth, path = Shells(3).draw(2, generator(16)), fv.CondOT()
    norms = torch.tensor([0.01, 0.7, 2.0, 4.0, 7.0, 12.0, 30.0], dtype=torch.float64)
    times = torch.tensor([0.02, 0.3, 0.6, 0.8, 0.9, 0.97, 0.995], dtype=torch.float64)
    length, t = norms.repeat_interleave(7).expand(2, -1), times.repeat(7).expand(2, -1)
    x = length[..., None] * torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    found = truth.velocity(x, t, path)
    rho = torch.linspace(1e-9, 32, 20_001, dtype=torch.float64)
    for task in range(2):
        radii = truth.radius[task, : int(truth.count[task])].double()[:, None]
        gaps = torch.stack([-0.5 * ((rho - radii) / 0.3) ** 2, -0.5 * ((rho + radii) / 0.3) ** 2])
        prior = torch.logsumexp(gaps, (0, 1))
        prior[0] -= math.log(2)  # half an interval belongs to the end
        for row in range(49):
            alpha, sigma, r = float(t[task, row]), 1 - float(t[task, row]), float(length[task, row])
            kappa = alpha * r * rho / sigma**2
            bessel = torch.log(-torch.expm1(-2 * kappa) / kappa)
            weight = torch.softmax(prior - 0.5 * ((r - alpha * rho) / sigma) ** 2 + bessel, 0)
            resultant = torch.where(kappa > 1e-3, 1 / torch.tanh(kappa) - 1 / kappa, kappa / 3)
            mean = float((weight * rho * resultant).sum())
            expected = (mean - r) / sigma * x[task, row] / r
            torch.testing.assert_close(found[task, row], expected, rtol=1e-6, atol=1e-6)


def test_the_velocity_turns_with_the_point():
    truth = Shells(6).draw(2, generator(9))
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator(10)).double())[0]
    x, t = torch.randn(2, 9, 6, generator=generator(11)).double(), torch.full((2, 9), 0.6).double()
    found = truth.velocity(x @ rotation.T, t, fv.CondOT())
    torch.testing.assert_close(found, truth.velocity(x, t, fv.CondOT()) @ rotation.T, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "time"), [(3, 0.7), (8, 0.45), (32, 0.25)])
def test_the_field_of_many_samples_is_the_same(dim, time):
    batch = Shells(dim).batch(1, 1, 50, generator(12, dim))
    path, t = fv.CondOT(0.01), torch.full((50,), time)
    x = path.sample(torch.randn(50, dim, generator=generator(13)), batch.targets[0], t).xt
    field = fv.ExactField(batch.truth.sample(200_000, generator(14))[0], path)
    true = batch.truth.velocity(x[None], t[None], path)[0]
    error = (field(x, t) - true).norm(dim=1)
    few = field.posterior(x, t).effective_sample_size
    assert float(few.median()) > 100
    # the mean of n draws is off by their spread over sqrt(n); the velocity by that over sigma
    spread = dim**0.5 * torch.minimum(path.bandwidth(t), torch.tensor(5 / dim**0.5))
    assert bool((error < 4 * spread / path.sigma(t) / few.sqrt()).all())


def test_numbers_and_radii_are_those_announced():
    truth = Shells(2).draw(4000, generator(15))
    assert torch.bincount(truth.count, minlength=6)[2:].min() > 850
    assert truth.count.min() == 2 and truth.count.max() == 5
    assert (
        truth.radius.min() >= 0
        and truth.radius.max() <= 5
        and truth.radius.mean().item() == pytest.approx(2.5, abs=0.03)
    )


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Shells(0)
    with pytest.raises(ValueError, match=r"largest_radius and noise must be positive, got 5\.0 and 0"):
        Shells(2, noise=0)
