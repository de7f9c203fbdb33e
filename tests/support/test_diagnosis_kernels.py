"""The kernels of a diagnosis against independent implementations, and what their gains are on known distributions."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

from fluvial.paths import CondOT
from fluvial.randomness import generator
from fluvial.support.diagnosis.draws import Draws, draw_tasks
from fluvial.support.diagnosis.geometry import best_kernel, log_density, measure_geometry
from fluvial.support.diagnosis.kernels import Kernel, isotropic, local, log_kernels, mahalanobis, posterior_mean
from fluvial.support.diagnosis.rows import ClassRows
from fluvial.support.diagnosis.thresholds import GEOMETRY_NATS
from fluvial.support.tasks import Shells

SPREAD = torch.tensor([3.0, 1.0, 0.2], dtype=torch.float64)


def points(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=generator(seed), dtype=torch.float64)


def covariances(kernel: Kernel, m: int) -> Tensor:
    matrix = kernel.basis @ torch.diag_embed(kernel.variances) @ kernel.basis.mT
    return matrix if kernel.is_local else matrix.expand(m, -1, -1)


def kernels(support: Tensor) -> list[Kernel]:
    return [isotropic(support), mahalanobis(support, 0.1), local(support, 4, 0.3), local(support, 2, 1.0)]


def geometry(draws: Draws, seed: int = 0) -> dict:
    return dict(measure_geometry(draws, CondOT(sigma_min=0.01), generator(seed)).data)


def of_rows(rows: Tensor, m: int, tasks: int, seed: int = 0) -> Draws:
    family = ClassRows(rows, None, m=m)
    return draw_tasks(family, m, tasks, len(rows), generator(seed))


@pytest.mark.parametrize("number", range(4))
def test_log_density_is_that_of_scipys_normals(number: int) -> None:
    support, x, b = points(9, 3, 0) * SPREAD, points(5, 3, 1) * SPREAD, 0.7
    kernel = kernels(support)[number]
    terms = [
        multivariate_normal(s, b**2 * c).logpdf(x.numpy())
        for s, c in zip(support.numpy(), covariances(kernel, 9).numpy(), strict=True)
    ]
    expected = logsumexp(np.stack(terms), axis=0) - math.log(9)
    np.testing.assert_allclose(log_density(kernel, x, support, (0.3, b))[1].numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("noise", [1e-3, 0.4, 5.0])
def test_posterior_mean_is_tweedies(number: int, noise: float) -> None:
    """x + h^2 times the score of the estimate with noise, by automatic differentiation."""
    support, b = points(9, 3, 2) * SPREAD, 0.5
    kernel = kernels(support)[number]
    x = (support[:6] + 0.3 * points(6, 3, 3)).requires_grad_()
    law = b**2 * covariances(kernel, 9) + noise**2 * torch.eye(3, dtype=torch.float64)
    density = torch.stack(
        [torch.distributions.MultivariateNormal(s, c).log_prob(x) for s, c in zip(support, law, strict=True)]
    ).logsumexp(0)
    (score,) = torch.autograd.grad(density.sum(), x)
    expected = (x + noise**2 * score).detach()
    torch.testing.assert_close(posterior_mean(kernel, x.detach(), support, b, noise), expected, rtol=1e-8, atol=1e-8)


def test_without_smoothing_it_is_the_exact_fields_posterior_mean() -> None:
    from fluvial.fields import ExactField

    support, x, t = points(20, 3, 4), points(7, 3, 5), 0.6
    field = ExactField(support, path=CondOT(sigma_min=0.01))
    h = float(field.path.bandwidth(torch.tensor(t, dtype=torch.float64)))
    found = posterior_mean(isotropic(support), x, support, 0.0, h)
    torch.testing.assert_close(found, field.posterior(t * x, torch.full((7,), t, dtype=torch.float64)).mean)


def test_traces_are_equal_and_equal_points_are_no_accident() -> None:
    support = points(30, 3, 6) * SPREAD
    whole = float(isotropic(support).variances.sum())
    for kernel in kernels(support):
        trace = kernel.variances.sum(-1).mean()
        assert float(trace) == pytest.approx(whole, rel=1e-10), kernel.label
    repeated = torch.cat([support[:5].repeat(6, 1), support[5:8]])
    found = local(repeated, 5, 0.1)
    assert float(found.variances.min()) > 0
    assert bool(torch.isfinite(log_kernels(found, support, repeated)[0]).all())


def test_one_example_has_the_analytic_gain() -> None:
    """About one example, kernels at their best bandwidth are Gaussians of the trace and of the covariance."""
    variances = torch.tensor([9.0, 1.0, 0.04], dtype=torch.float64)
    x, at = points(20_000, 3, 7) * variances.sqrt(), torch.zeros(1, 3, dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    both = Kernel("isotropic", variances.mean().expand(3), eye), Kernel("true", variances, eye)
    plain, shaped = (float(log_density(k, x, at, (best_kernel([k], x, at)[1],)).mean()) for k in both)
    analytic = 1.5 * math.log(float(variances.mean())) - 0.5 * float(variances.log().sum())
    assert shaped - plain == pytest.approx(analytic, abs=0.05)


def test_the_true_metric_makes_an_anisotropic_gaussian_an_isotropic_one() -> None:
    plain, x = points(40, 3, 8), points(500, 3, 9)
    unit = Kernel("unit", torch.ones(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    shaped = Kernel("true", SPREAD.square(), torch.eye(3, dtype=torch.float64))
    bandwidths = (0.2, 0.5, 1.0)
    found = log_density(shaped, x * SPREAD, plain * SPREAD, bandwidths)
    torch.testing.assert_close(found, log_density(unit, x, plain, bandwidths) - SPREAD.log().sum())


def test_a_change_of_scale_is_no_gain() -> None:
    rows = points(300, 2, 10) * torch.tensor([2.0, 0.5], dtype=torch.float64)
    found, scaled = (geometry(of_rows(x, 20, 4)) for x in (rows, 50 * rows - 7))
    for name in ("Mahalanobis", "local"):
        assert scaled["gain"][name]["value"] == pytest.approx(found["gain"][name]["value"], abs=1e-6)
    assert scaled["excess"]["value"] == pytest.approx(found["excess"]["value"], abs=1e-6)
    moved = scaled["log_density"]["isotropic"] - found["log_density"]["isotropic"]
    assert moved == pytest.approx(-2 * math.log(50), abs=1e-6)


def test_in_one_dimension_there_is_no_metric_to_choose() -> None:
    found = geometry(of_rows(points(200, 1, 11), 20, 3))
    assert found["gain"]["Mahalanobis"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.slow
def test_an_anisotropic_gaussian_gains_by_its_metric_and_an_isotropic_one_by_none() -> None:
    dim = 4
    scale = torch.logspace(0, -1, dim, dtype=torch.float64)
    plain, shaped = (geometry(of_rows(points(700, dim, 12) * s, 50, 5)) for s in (torch.ones(dim), scale))
    for gain in (plain["gain"]["Mahalanobis"], plain["whole_excess"], plain["excess"]):
        assert gain["low"] <= 0.004 * dim and abs(gain["value"]) < 0.02 * dim
    gain = shaped["whole_excess"]
    bound = float(0.5 * dim * scale.square().mean().log() - scale.log().sum())  # that of one example
    assert GEOMETRY_NATS * dim < gain["low"] and gain["value"] < bound
    assert shaped["excess"]["low"] < GEOMETRY_NATS * dim


@pytest.mark.slow
def test_a_global_metric_does_not_mend_shells() -> None:
    found = geometry(draw_tasks(Shells(8), 50, 16, None, generator(0)))
    assert found["gain"]["Mahalanobis"]["high"] < 0.01 * 8
    assert found["excess"]["low"] > GEOMETRY_NATS * 8
    assert 0 < found["excess"]["value"] < found["room"]["value"]


def test_few_examples_in_many_dimensions_are_no_mismatch_of_round_data() -> None:
    """There a Mahalanobis metric gains on round data as well, which does not count."""
    found = geometry(of_rows(points(300, 32, 13), 6, 6))
    assert found["gain"]["Mahalanobis"]["low"] > 0.01 * 32
    assert abs(found["whole_excess"]["value"]) < 0.02 * 32
