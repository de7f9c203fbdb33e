"""Gaussian mixtures against scipy, against the closed form with matrix inverses, and against their own samples."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support.tasks import GaussianMixtures
from fluvial.support.tasks.rates import check_points

PATHS = [fv.CondOT(0.01), fv.CondOT(), fv.Cosine(), fv.VP()]


def laws(truth, task):
    """Means and covariances of the components in use."""
    number = int(truth.count[task])
    factor = truth.factor[task, :number].double().numpy()
    eye = truth.ridge * np.eye(factor.shape[1])
    return truth.mean[task, :number].double().numpy(), factor @ factor.transpose(0, 2, 1) + eye


@pytest.mark.parametrize("dim", [1, 3, 16])
def test_density_is_that_of_scipy(dim):
    batch = GaussianMixtures(dim).batch(6, 1, 20, generator(0, dim))
    x = torch.cat([batch.targets, 20 * torch.randn(6, 5, dim, generator=generator(1))], 1)
    for task, found in enumerate(batch.truth.log_density(x).numpy()):
        parts = [
            multivariate_normal(m, c).logpdf(x[task].double().numpy())
            for m, c in zip(*laws(batch.truth, task), strict=True)
        ]
        np.testing.assert_allclose(found, logsumexp(parts, axis=0) - np.log(len(parts)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_velocity_is_the_posterior_mean_with_inverses(path):
    truth = GaussianMixtures(4).draw(5, generator(2))
    times = [0.0, 1e-6, 0.3, 0.9, 1 - 1e-6] + ([] if isinstance(path, fv.VP) else [1.0])
    x = 4 * torch.randn(5, len(times), 4, generator=generator(3)).double()
    t = torch.tensor(times, dtype=torch.float64).expand(5, -1)
    found = truth.velocity(x, t, path).numpy()
    for task in range(5):
        for row in range(len(times)):
            alpha, sigma, up, down = (
                float(f(t[0, row])) for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot)
            )
            point, weights, velocities = x[task, row].numpy(), [], []
            for mean, cov in zip(*laws(truth, task), strict=True):
                total = alpha**2 * cov + sigma**2 * np.eye(4)
                weights.append(multivariate_normal(alpha * mean, total).logpdf(point))
                solved = np.linalg.solve(total, point - alpha * mean)
                velocities.append(up * (mean + alpha * cov @ solved) + down * sigma * solved)
            weight = np.exp(weights - logsumexp(weights))
            np.testing.assert_allclose(found[task, row], weight @ np.array(velocities), rtol=1e-7, atol=1e-7)


def test_velocity_and_score_of_the_marginal_agree():
    # the marginal of a mixture is one whose factors are widened by alpha and whose ridge is that of the noise
    path, truth = fv.Cosine(), GaussianMixtures(3).draw(4, generator(4))
    t = torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
    marginal = type(truth)(alpha * truth.mean.double(), alpha * truth.factor.double(), truth.count,
                           alpha**2 * truth.ridge + sigma**2)  # fmt: skip
    x = (2 * torch.randn(4, 10, 3, generator=generator(5)).double()).requires_grad_()
    (score,) = torch.autograd.grad(marginal.log_density(x).sum(), x)
    x = x.detach()
    velocity = truth.velocity(x, t.expand(4, 10), path)
    expected = path.convert(score.flatten(0, 1), x.flatten(0, 1), t, source="score", target="velocity")
    torch.testing.assert_close(velocity.flatten(0, 1), expected, rtol=1e-9, atol=1e-9)


def test_samples_have_the_mixture_s_mean_and_covariance():
    truth = GaussianMixtures(2).draw(4, generator(6))
    x = truth.sample(60_000, generator(7)).double().numpy()
    for task in range(4):
        means, covs = laws(truth, task)
        centre = means.mean(0)
        cov = covs.mean(0) + np.cov(means.T, bias=True)
        scale = np.sqrt(np.diag(cov))
        assert (np.abs(x[task].mean(0) - centre) < 5 * scale / 244).all()
        np.testing.assert_allclose(np.cov(x[task].T), cov, atol=0.05 * scale.max() ** 2)


def test_numbers_of_components_and_covariances_are_those_announced():
    truth = GaussianMixtures(3).draw(4000, generator(8))
    assert (
        torch.bincount(truth.count, minlength=9)[2:].min() > 450 and truth.count.min() == 2 and truth.count.max() == 8
    )
    assert truth.mean.std().item() == pytest.approx(5, rel=0.02)
    assert truth.factor.std().item() == pytest.approx(1, rel=0.02)


def test_a_batch_is_the_field_of_many_samples():
    batch = GaussianMixtures(2).batch(1, 1, 40, generator(9))
    path, t = fv.CondOT(0.01), torch.full((40,), 0.6)
    x = path.sample(torch.randn(40, 2, generator=generator(10)), batch.targets[0], t).xt
    field = fv.ExactField(batch.truth.sample(20_000, generator(11))[0], path)
    error = (field(x, t) - batch.truth.velocity(x[None], t[None], path)[0]).norm(dim=1)
    few = field.posterior(x, t).effective_sample_size
    # the mean of n posterior draws is off by their spread, at most h, over sqrt(n), and 1 / sigma times that
    assert bool((error < 6 * path.bandwidth(t) / path.sigma(t) / few.sqrt()).all())


def test_same_seed_same_bits_and_other_seed_other_bits():
    a, b = (GaussianMixtures(5).batch(3, 4, 5, generator(12)) for _ in range(2))
    other = GaussianMixtures(5).batch(3, 4, 5, generator(13))
    assert torch.equal(a.support, b.support) and torch.equal(a.targets, b.targets)
    assert not torch.equal(a.support, other.support)


def test_bad_arguments_are_named():
    truth = GaussianMixtures(2).draw(3, generator(0))
    t = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        GaussianMixtures(0)
    with pytest.raises(ValueError, match="m must be at least 1, got 0"):
        GaussianMixtures(2).batch(3, 0, 5, generator(0))
    with pytest.raises(ValueError, match=r"x must have shape \(3, n, 2\), points of 3 tasks, got \(3, 4, 5\)"):
        truth.velocity(torch.zeros(3, 4, 5), t, fv.CondOT())
    with pytest.raises(ValueError, match=r"t must have shape \(3, 4\), one time for each point, got \(3, 5\)"):
        check_points(torch.zeros(3, 4, 2), 3, 2, torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"t must be in \[0, 1\], got values from 2 to 2"):
        truth.velocity(torch.zeros(3, 4, 2), t + 2, fv.CondOT())
    with pytest.raises(ValueError, match="infinite rate at some t: move t below 1"):
        truth.velocity(torch.zeros(3, 4, 2), t + 1, fv.VP())
