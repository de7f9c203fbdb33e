"""The Gaussian mixture's field against autograd, scipy, scikit-learn, the exact field and the continuity equation."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture
from torch import Tensor

import fluvial as fv
from fluvial.fields.components import check_means, spectra
from fluvial.fields.divergences import exact_divergence, own_divergence
from fluvial.randomness import generator

PATHS = {
    "CondOT": fv.CondOT(),
    "CondOT, sigma_min": fv.CondOT(0.1),
    "VP": fv.VP(),
    "Cosine": fv.Cosine(),
    "Polynomial": fv.Polynomial(2),
    "FromBandwidth": fv.FromBandwidth(lambda t: (1 - t) / t, lambda t: -1 / t**2),
}
KINDS = ("full", "diagonal", "isotropic", "one number")
QUICK = ((1, 5, "exact"), (2, 5, "field"))
CASES = [("full", name) for name in PATHS] + [(kind, "CondOT") for kind in KINDS[1:]]


def covariances(kind: str, components: int, dim: int, seed: int = 0) -> Tensor | float:
    draws = generator(seed, components, dim)
    if kind == "one number":
        return 0.3
    if kind == "isotropic":
        return 0.1 + torch.rand(components, generator=draws, dtype=torch.float64)
    if kind == "diagonal":
        return 0.05 + torch.rand(components, dim, generator=draws, dtype=torch.float64)
    root = torch.randn(components, dim, dim, generator=draws, dtype=torch.float64)
    return root @ root.mT / dim + 0.05 * torch.eye(dim, dtype=torch.float64)


def mixture(
    kind: str = "full", dim: int = 2, components: int = 3, path: fv.GaussianPath | None = None
) -> fv.GaussianMixtureField:
    draws = generator(1, dim, components)
    means = 1.5 * torch.randn(components, dim, generator=draws, dtype=torch.float64)
    weights = 0.2 + torch.rand(components, generator=draws, dtype=torch.float64)
    return fv.GaussianMixtureField(means, covariances(kind, components, dim), weights, path)


def as_matrices(given: Tensor | float, components: int, dim: int) -> np.ndarray:
    identity = torch.eye(dim, dtype=torch.float64)
    if isinstance(given, float):
        return (given * identity).expand(components, dim, dim).numpy()
    if given.ndim == 1:
        return (given[:, None, None] * identity).numpy()
    return given.numpy() if given.ndim == 3 else torch.diag_embed(given).numpy()


def points(rows: int, dim: int, seed: int = 2) -> Tensor:
    return 1.5 * torch.randn(rows, dim, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_densities_at_all_times_are_scipy_s(kind: str, name: str) -> None:
    path, components, dim = PATHS[name], 3, 3
    field = mixture(kind, dim, components, path)
    matrices, x = as_matrices(covariances(kind, components, dim), components, dim), points(5, dim)
    for t in (0.0, 0.4, 1.0):
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
        density = sum(
            float(field.weights[k])
            * stats.multivariate_normal(
                alpha * field.means[k].numpy(), alpha**2 * matrices[k] + sigma**2 * np.eye(dim)
            ).pdf(x.numpy())
            for k in range(components)
        )
        np.testing.assert_allclose(field.log_prob(x, t).numpy(), np.log(density), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_densities_of_a_fitted_mixture_are_scikit_learn_s(kind: str) -> None:
    data = mixture("full", 4, 3).sample(300, generator(0)).numpy()
    fitted = GaussianMixture(3, covariance_type=kind, random_state=0).fit(data)
    parts = (torch.from_numpy(part) for part in (fitted.means_, fitted.covariances_, fitted.weights_))
    found = fv.GaussianMixtureField(*parts).log_prob(torch.from_numpy(data[:50]))
    np.testing.assert_allclose(found.numpy(), fitted.score_samples(data[:50]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_scores_and_velocities_are_gradients_of_the_log_density(kind: str, name: str) -> None:
    """v = (alpha'/alpha) x + (sigma / alpha) (sigma alpha' - alpha sigma') grad log p."""
    path = PATHS[name]
    field, x = mixture(kind, 3, 4, path), points(8, 3).requires_grad_()
    t = torch.linspace(0.05, 0.95, 8, dtype=torch.float64)
    (score,) = torch.autograd.grad(field.log_prob(x, t).sum(), x)
    x = x.detach()
    torch.testing.assert_close(field.score(x, t), score, rtol=1e-9, atol=1e-9)
    alpha = path.alpha(t)
    gain = path.sigma(t) * path.wronskian(t) / alpha
    expected = (path.alpha_dot(t) / alpha)[:, None] * x + gain[:, None] * score
    torch.testing.assert_close(field(x, t), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", PATHS)
def test_the_continuity_equation_holds(name: str) -> None:
    """d p / dt + d (p v) / dx = 0, by differences of second order: halving the step divides what is left by 4."""
    field = mixture("isotropic", 1, 3, PATHS[name])
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]

    def density(x: Tensor, t: float) -> Tensor:
        return field.log_prob(x, t).exp()

    def flux(x: Tensor, t: float) -> Tensor:
        return density(x, t) * field(x, t)[:, 0]

    for t in (0.3, 0.8):
        left = []
        for step in (2e-3, 1e-3):
            by_time = (density(x, t + step) - density(x, t - step)) / (2 * step)
            by_place = (flux(x + step, t) - flux(x - step, t)) / (2 * step)
            left.append(float((by_time + by_place).abs().max()))
        assert left[1] < 1e-4 and left[0] / left[1] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_divergences_are_traces_at_both_ends_and_between(kind: str, name: str) -> None:
    field, x = mixture(kind, 3, 4, PATHS[name]), points(8, 3)
    t = torch.tensor([0.0, 1e-6, 0.2, 0.5, 0.8, 0.99, 1 - 1e-6, 1.0], dtype=torch.float64)
    with torch.no_grad():
        v, expected = exact_divergence(field, x, t)
        same, own = own_divergence(field, x, t)
    assert torch.equal(v, same) and bool(torch.isfinite(v).all())
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_velocities_at_the_ends_are_the_limits(name: str) -> None:
    """At t = 0 all data pull alike; at t = 1 the velocity is the limit from before, VP's infinite rate of sigma too."""
    path = PATHS[name]
    field, x = mixture("full", 2, 3, path), points(6, 2)
    for end, near in ((0.0, 1e-7), (1.0, 1 - 1e-7)):
        torch.testing.assert_close(field(x, end), field(x, near), rtol=1e-5, atol=1e-5)
    if not isinstance(path, fv.VP):
        start = torch.zeros((), dtype=torch.float64)
        mean = (field.weights[:, None] * field.means).sum(0)
        expected = path.alpha_dot(start) * mean + path.sigma_dot(start) * x
        torch.testing.assert_close(field(x, 0.0), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["CondOT, sigma_min", "CondOT", "Cosine"])
def test_without_width_it_is_the_exact_field(name: str) -> None:
    path, support = PATHS[name], points(12, 3, seed=5)
    exact, field = fv.ExactField(support, path), fv.GaussianMixtureField(support, 0.0, path=path)
    assert field.singular_at_end == exact.singular_at_end == (path.last_sigma == 0)
    x, t = points(9, 3), torch.linspace(0, 1 if path.last_sigma else 0.999, 9, dtype=torch.float64)
    for mine, theirs in ((field, exact), (field.score, exact.score), (field.divergence, exact.divergence)):
        torch.testing.assert_close(mine(x, t), theirs(x, t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(field.log_prob(x, t), exact.posterior(x, t).log_density, rtol=1e-9, atol=1e-9)


def test_solvers_land_where_a_component_has_no_width() -> None:
    """A plane in 3 dimensions: samples end on it, and spread in it as they should."""
    covariance = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    field = fv.GaussianMixtureField(torch.zeros(1, 3, dtype=torch.float64), covariance[None])
    assert (
        field.singular_at_end
        and not fv.GaussianMixtureField(torch.zeros(1, 3), covariance[None, :2, :2].sum()).singular_at_end
    )
    x0 = torch.randn(4, 3, generator=generator(0), dtype=torch.float64)
    end = fv.solve(field, x0, method="dopri5", rtol=1e-9, atol=1e-9).x
    values, vectors = torch.linalg.eigh(covariance)
    torch.testing.assert_close(end, x0 @ (vectors * values.clamp_min(0).sqrt()) @ vectors.T, rtol=1e-6, atol=1e-6)
    for call in (field, field.divergence, field.log_prob):
        with pytest.raises(ValueError, match="has no value at t = 1"):
            call(x0, 1.0)
    with pytest.raises(ValueError, match="which have no density"):
        fv.log_prob(field, x0)


@pytest.mark.parametrize(
    ("dim", "components", "divergence"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in product((1, 2, 10), (1, 5), ("field", "exact"))
    ],
)
def test_log_densities_through_the_solver(dim: int, components: int, divergence: str) -> None:
    field = mixture("full", dim, components)
    x = field.sample(4, generator(3))
    found = fv.log_prob(field, x, divergence=divergence, method="dopri5", rtol=1e-9, atol=1e-9)
    assert (found.log_prob - field.log_prob(x)).abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_moments_of_samples_at_any_time(kind: str) -> None:
    path, dim, n = fv.CondOT(0.2), 2, 40_000
    field = mixture(kind, dim, 3, path)
    weights, means = field.weights, field.means
    inner = torch.from_numpy(as_matrices(covariances(kind, 3, dim), 3, dim))
    centre = (weights[:, None] * means).sum(0)
    spread = (weights[:, None, None] * (inner + means[:, :, None] * means[:, None])).sum(0) - torch.outer(
        centre, centre
    )
    for t in (0.6, 1.0):
        x = field.sample(n, generator(4), t)
        sigma = 1 - 0.8 * t
        error = 5 * (t**2 * spread.diagonal().max() + sigma**2).sqrt() / math.sqrt(n)
        torch.testing.assert_close(x.mean(0), t * centre, rtol=0, atol=float(error))
        expected = t**2 * spread + sigma**2 * torch.eye(dim, dtype=torch.float64)
        torch.testing.assert_close(x.T.cov(), expected, rtol=0, atol=float(0.04 * expected.max()))
    again = field.sample(n, generator(4), 1.0)
    assert torch.equal(again, x)


def test_samples_of_full_covariances_lie_in_their_own_component_s_directions() -> None:
    """Whitened with the component's covariance, the squares of samples are chi-square: Kolmogorov-Smirnov accepts."""
    covariance = covariances("full", 2, 3)
    means = torch.tensor([[-40.0, 0, 0], [40.0, 0, 0]], dtype=torch.float64)
    field = fv.GaussianMixtureField(means, covariance, torch.tensor([0.3, 0.7]))
    x = field.sample(4000, generator(6))
    which = (x[:, 0] > 0).long()
    assert float(which.double().mean()) == pytest.approx(0.7, abs=0.03)
    residual = x - means[which]
    squares = (residual * torch.linalg.solve(covariance[which], residual)).sum(1)
    assert stats.kstest(squares.numpy(), stats.chi2(3).cdf).pvalue > 1e-3


def test_float32_points_lose_only_their_own_rounding() -> None:
    """Narrow components far from the origin, late in time: the field's parts are taken in float64."""
    field = fv.GaussianMixtureField(torch.tensor([[30.0, -20.0], [31.0, -20.0]]), 1e-6)
    x, t = field.sample(16, generator(0)), torch.linspace(0, 1, 16)
    assert x.dtype == torch.float32
    for call in (field, field.score, field.divergence):
        found = call(x, t)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, call(x.double(), t.double()).float(), rtol=1e-6, atol=1e-6)
    assert field.log_prob(x).dtype == torch.float64


def test_images_scalar_times_and_derivatives() -> None:
    means = torch.randn(3, 1, 2, 2, generator=generator(0), dtype=torch.float64)
    field = fv.GaussianMixtureField(means, covariances("full", 3, 4))
    flat = fv.GaussianMixtureField(means.flatten(1), covariances("full", 3, 4))
    x = torch.randn(5, 1, 2, 2, generator=generator(1), dtype=torch.float64)
    for t in (0.3, torch.tensor(0.3, dtype=torch.float64), torch.full((5,), 0.3, dtype=torch.float64)):
        assert torch.equal(field(x, t).flatten(1), flat(x.flatten(1), t))
    assert field.divergence(x, 0.3).shape == field.log_prob(x).shape == (5,)
    assert field.sample(2, generator(0)).shape == (2, 1, 2, 2)
    x, t = x[:2].requires_grad_(), torch.tensor([0.3, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(field, (x, t), check_forward_ad=True)
    assert torch.autograd.gradcheck(field.divergence, (x, t))


def test_it_keeps_what_it_was_given() -> None:
    means, covariance, weights = (
        torch.zeros(2, 1, dtype=torch.float64),
        torch.ones(2, dtype=torch.float64),
        torch.ones(2),
    )
    field = fv.GaussianMixtureField(means, covariance, weights)
    before = field.log_prob(torch.ones(1, 1))
    means += 1
    covariance += 1
    weights[0] = 9
    assert torch.equal(field.log_prob(torch.ones(1, 1)), before)
    moved = field.to("cpu")
    assert torch.equal(moved.log_prob(torch.ones(1, 1)), before) and moved is not field


MEANS = torch.zeros(2, 3)
FIELD = fv.GaussianMixtureField(MEANS, 1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_means([[0.0]]), TypeError, "means must be a tensor, got list"),
        (lambda: fv.GaussianMixtureField(torch.zeros(3), 1.0), ValueError, r"means must have shape \(K, \*D\)"),
        (lambda: fv.GaussianMixtureField(MEANS.long(), 1.0), ValueError, "means must be float32 or float64"),
        (lambda: fv.GaussianMixtureField(MEANS / 0, 1.0), ValueError, "means must be finite, got NaN or infinity in 6"),
        (lambda: spectra("1", MEANS.double()), TypeError, "covariances must be a tensor or a number, got str"),
        (lambda: fv.GaussianMixtureField(MEANS, torch.ones(3)), ValueError, r"\(2, 3, 3\), \(2, 3\) or \(2,\)"),
        (lambda: fv.GaussianMixtureField(MEANS, -0.5), ValueError, "covariances must not be negative, got -0.5"),
        (lambda: fv.GaussianMixtureField(MEANS, math.nan), ValueError, "covariances must be finite"),
        (lambda: fv.GaussianMixtureField(MEANS, torch.ones(2, 3, 3).triu()), ValueError, "must be symmetric, got one"),
        (
            lambda: fv.GaussianMixtureField(MEANS, torch.ones(2, 3, 3) - torch.eye(3)),
            ValueError,
            "positive semidefinite, got an eigenvalue of -1",
        ),
        (lambda: fv.GaussianMixtureField(MEANS, 1.0, torch.ones(3)), ValueError, r"weights must have shape \(2,\)"),
        (lambda: fv.GaussianMixtureField(MEANS, 1.0, torch.zeros(2)), ValueError, "not negative and not all 0"),
        (lambda: fv.GaussianMixtureField(MEANS, 1.0, torch.tensor([2.0, -1.0])), ValueError, "weights must be finite"),
        (lambda: FIELD(torch.zeros(2, 2), 0.5), ValueError, r"x must have shape \(B, 3\), got \(2, 2\)"),
        (lambda: FIELD(torch.zeros(2, 3), 1.5), ValueError, r"t must be in \[0, 1\], got values from 1.5"),
        (lambda: FIELD(torch.zeros(2, 3), torch.zeros(3)), ValueError, r"t must be a scalar or have shape \(2,\)"),
        (lambda: FIELD(torch.zeros(2, 3).half(), 0.5), ValueError, "x must be float32 or float64"),
        (lambda: FIELD(torch.zeros(2, 3), 0.5, torch.zeros(2)), ValueError, "cond must be None"),
        (lambda: FIELD.sample(0, generator(0)), ValueError, "n must be at least 1, got 0"),
        (lambda: FIELD.sample(1, generator(0), 2.0), ValueError, r"t must be in \[0, 1\], got 2.0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
