"""The exact field: identities, derivatives, posterior, labels and priors, bad input."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity

import fluvial as fv
from names import steady

PATHS = [fv.CondOT(0.02), fv.VP(), fv.Cosine(), fv.Polynomial(2)]


def problem(n: int = 20, d: int = 3, rows: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    support = torch.randn(n, d, generator=g, dtype=torch.float64)
    x = torch.randn(rows, d, generator=g, dtype=torch.float64)
    return support, x, torch.rand(rows, generator=g, dtype=torch.float64) * 0.9 + 0.05


@pytest.mark.parametrize("path", PATHS, ids=steady)
def test_velocity_score_and_denoiser_are_one_quantity(path: fv.GaussianPath) -> None:
    support, x, t = problem()
    field = fv.ExactField(support, path)
    truth = {"velocity": field(x, t), "score": field.score(x, t), "denoiser": field.posterior(x, t).mean}
    for source, value in truth.items():
        for target, expected in truth.items():
            found = path.convert(value, x, t, source=source, target=target)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=steady)
def test_score_is_the_gradient_of_the_log_density(path: fv.GaussianPath) -> None:
    support, x, t = problem()
    field = fv.ExactField(support, path)
    step = 1e-5
    for k in range(3):
        move = torch.zeros_like(x)
        move[:, k] = step
        slope = (field.posterior(x + move, t).log_density - field.posterior(x - move, t).log_density) / (2 * step)
        torch.testing.assert_close(slope, field.score(x, t)[:, k], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=steady)
def test_marginal_is_a_kernel_density_estimate(path: fv.GaussianPath) -> None:
    """alpha^d p_t(alpha y) is the kernel density of the support at y with the path's bandwidth."""
    support, y, _ = problem()
    for t in (0.2, 0.5, 0.8):
        time = torch.tensor(t, dtype=torch.float64)
        alpha = path.alpha(time)
        estimate = KernelDensity(bandwidth=path.bandwidth(time).item(), rtol=1e-12).fit(support.numpy())
        density = fv.ExactField(support, path).posterior(alpha * y, time).log_density + 3 * torch.log(alpha)
        np.testing.assert_allclose(density.numpy(), estimate.score_samples(y.numpy()), rtol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=steady)
def test_derivatives_match_finite_differences_in_both_modes(path: fv.GaussianPath) -> None:
    support, x, t = problem()
    field = fv.ExactField(support + 40.0, path)
    inputs = ((x + 40.0 * path.alpha(t)[:, None]).requires_grad_(), t.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: field(a, b), inputs, check_forward_ad=True, check_batched_grad=True)


def test_jacobian_is_symmetric_and_its_trace_is_the_divergence() -> None:
    support, x, t = problem()
    field = fv.ExactField(support)
    for row in range(len(x)):

        def velocity(z: torch.Tensor, row: int = row) -> torch.Tensor:
            return field(z[None], t[row : row + 1])[0]

        reverse, forward = torch.func.jacrev(velocity)(x[row]), torch.func.jacfwd(velocity)(x[row])
        torch.testing.assert_close(reverse, forward)
        torch.testing.assert_close(reverse, reverse.T)
        torch.testing.assert_close(reverse.trace(), field.divergence(x[row : row + 1], t[row : row + 1])[0])


def test_a_second_derivative_fails_instead_of_being_wrong() -> None:
    support, x, t = problem()
    field = fv.ExactField(support)
    for second in (torch.func.jacfwd(torch.func.jacrev(field)), torch.func.jacrev(torch.func.jacfwd(field))):
        with pytest.raises(RuntimeError, match="differentiated once, not twice"):
            second(x[:1], t[:1])


def test_posterior_statistics_are_those_of_its_weights() -> None:
    support, x, t = problem()
    prior = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = fv.ExactField(support, log_prior=prior).posterior(x, t)
    exponents = prior - (x[:, None] - t[:, None, None] * support).square().sum(2) / (2 * (1 - t[:, None]) ** 2)
    weights = torch.softmax(exponents, 1)
    torch.testing.assert_close(found.mean, weights @ support)
    torch.testing.assert_close(found.effective_sample_size, 1 / weights.square().sum(1))
    torch.testing.assert_close(found.entropy, -(weights * weights.log()).sum(1))
    torch.testing.assert_close(found.top_weight, weights.max(1).values)
    assert torch.equal(found.top_index, weights.argmax(1))
    normal = -1.5 * torch.log(2 * math.pi * (1 - t) ** 2)
    torch.testing.assert_close(found.log_density, torch.logsumexp(exponents, 1) - torch.logsumexp(prior, 0) + normal)


def test_at_the_end_the_velocity_refuses_and_the_posterior_is_the_nearest_point() -> None:
    support, x, _ = problem()
    field = fv.ExactField(support)
    one = torch.tensor(1.0, dtype=torch.float64)
    nearest = torch.cdist(x, support).argmin(1)
    for operation in (field, field.score, field.divergence):
        with pytest.raises(ValueError, match="no value at t = 1, where sigma = 0"):
            operation(x, one)
    found = field.posterior(x, one)
    assert torch.equal(found.top_index, nearest)
    assert torch.equal(found.mean, support[nearest])
    assert torch.equal(found.log_density, torch.full((5,), -torch.inf, dtype=torch.float64))
    assert torch.equal(field.posterior(support[:4], one).log_density, torch.full((4,), torch.inf, dtype=torch.float64))
    assert field.singular_at_end and not fv.ExactField(support, fv.CondOT(0.1)).singular_at_end


def test_duplicates_and_ties_share_the_weight() -> None:
    support = torch.tensor([[1.0], [1.0], [-1.0]])
    field = fv.ExactField(support)
    for t in (0.5, 0.999, 1.0):
        found = field.posterior(torch.tensor([[0.9 * t + 0.1]]), torch.tensor(t))
        if t > 0.9:
            assert found.mean.item() == 1.0
            assert found.effective_sample_size.item() == pytest.approx(2.0)
    tie = fv.ExactField(support[1:]).posterior(torch.zeros(1, 1), torch.tensor(1.0))
    assert (tie.mean.item(), tie.top_weight.item()) == (0.0, 0.5)


def test_labels_restrict_the_support_row_by_row() -> None:
    support, x, t = problem()
    labels = torch.arange(20) % 3
    field = fv.ExactField(support, labels=labels)
    cond = torch.tensor([0, 1, 2, -1, 0])
    together, posterior = field(x, t, cond), field.posterior(x, t, cond)
    for row, label in enumerate(cond.tolist()):
        part = fv.ExactField(support if label < 0 else support[labels == label])
        one = slice(row, row + 1)
        torch.testing.assert_close(together[one], part(x[one], t[one]))
        torch.testing.assert_close(posterior.log_density[one], part.posterior(x[one], t[one]).log_density)
        torch.testing.assert_close(field.divergence(x, t, cond)[one], part.divergence(x[one], t[one]))


def test_a_prior_as_condition_equals_one_at_construction_and_may_exclude_points() -> None:
    support, x, t = problem()
    prior = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    prior[::4] = -torch.inf
    inside = fv.ExactField(support, log_prior=prior)
    outside = fv.ExactField(support)
    torch.testing.assert_close(outside(x, t, prior.expand(5, -1)), inside(x, t))
    torch.testing.assert_close(
        outside.posterior(x, t, prior.expand(5, -1)).log_density, inside.posterior(x, t).log_density
    )
    kept = prior > -torch.inf
    torch.testing.assert_close(fv.ExactField(support[kept], log_prior=prior[kept])(x, t), inside(x, t))


def test_one_datum_gives_its_conditional_velocity() -> None:
    datum = torch.full((1, 2, 2), 3.0)
    x, t = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 0.3, 0.9, 0.999])
    torch.testing.assert_close(fv.ExactField(datum)(x, t), (datum - x) / (1 - t)[:, None, None])


def test_gaussian_data_has_its_analytic_marginal_velocity() -> None:
    """For data N(0, s^2) the velocity is x (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2); quantiles stand in for the
    data."""
    s = 0.5
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    field = fv.ExactField(s * torch.special.ndtri(grid)[:, None])
    x = torch.tensor([[-1.0], [0.2], [0.7]], dtype=torch.float64)
    for t in (0.0, 0.2, 0.5, 0.7):
        variance = (1 - t) ** 2 + t**2 * s**2
        truth = x * (t * s**2 - (1 - t)) / variance
        torch.testing.assert_close(field(x, torch.tensor(t, dtype=torch.float64)), truth, rtol=2e-3, atol=1e-5)


def test_following_the_field_reproduces_the_data() -> None:
    support, _, _ = problem(12, 4)
    x0 = torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for method in ("euler", "midpoint", "heun", "rk4", "dopri5"):
        end = fv.solve(fv.ExactField(support), x0, method=method, steps=None if method == "dopri5" else 60).x
        assert torch.cdist(end, support).min(1).values.max() < 1e-3


def test_float32_support_serves_float64_points() -> None:
    support, x, t = problem()
    field = fv.ExactField(support.float())
    assert field(x, t).dtype == torch.float64
    torch.testing.assert_close(field(x, t), fv.ExactField(support.float().double())(x, t), rtol=1e-10, atol=1e-10)


def test_derivatives_and_divergence_are_the_same_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    support, x, t = problem(40, 3, 7)
    direction = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    late = torch.full_like(t, 0.97)
    labels = torch.arange(40) // 20  # class 1 is in the last tiles alone
    cond = torch.tensor([1, 1, 0, -1, 1, 0, 1])

    def everything(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        field = fv.ExactField(support, labels=labels)
        value, moved = torch.func.jvp(lambda x, t: field(x, t, cond), (x, t), (direction, torch.ones_like(t)))
        return value, moved, field.divergence(x, t, cond), field.posterior(x, t, cond).log_density

    for times in (t, late):
        whole = everything(times)
        with monkeypatch.context() as patched:
            patched.setattr("fluvial.smoothing.support.TILE_BYTES", 1)
            patched.setattr("fluvial.smoothing.support.LEAST_TILE", 6)
            patched.setattr("fluvial.smoothing.dense._LEAST_POINTS", 12)
            patched.setattr("fluvial.smoothing.dense._MEMORY_SHARE", 2**28)
            tiled = everything(times)
        for a, b in zip(tiled, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [2, 64])
@pytest.mark.parametrize("jitter", [0.0, 1e-4])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_float32_keeps_its_digits_late_among_near_duplicates(d: int, jitter: float, offset: float) -> None:
    g = torch.Generator().manual_seed(0)
    base = torch.randn(60, d, generator=g).repeat(5, 1)
    support = base + jitter * torch.randn(base.shape, generator=g) + offset
    for t in (0.99, 0.999, 0.9999, 1 - 1e-6):
        time = torch.full((20,), t)
        x = fv.CondOT().sample(torch.randn(20, d, generator=g), support[:20], time).xt
        truth = fv.ExactField(support.double())(x.double(), time.double())
        found = fv.ExactField(support)(x, time)
        assert (found - truth).norm() / truth.norm() < 1e-4, t


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_any_scale_of_the_data(scale: float) -> None:
    support, _, t = problem(rows=5)
    g = torch.Generator().manual_seed(3)
    x = fv.CondOT().sample(torch.randn(5, 3, generator=g, dtype=torch.float64), scale * support[:5], t).xt
    truth = fv.ExactField(scale * support)(x, t)
    found = fv.ExactField((scale * support).float())(x.float(), t.float())
    assert (found - truth).norm() / truth.norm() < 1e-4


def test_one_point_has_a_posterior_at_the_end_and_no_row_is_no_error() -> None:
    field = fv.ExactField(torch.tensor([[3.0, 4.0]]))
    assert field.posterior(torch.ones(1, 2), torch.tensor(1.0)).mean.tolist() == [[3.0, 4.0]]
    assert field(torch.zeros(0, 2), torch.zeros(0)).shape == (0, 2)
    prior = torch.log(torch.full((3,), 1 / 3))
    ended = fv.ExactField(torch.eye(3), log_prior=prior).posterior(torch.eye(3)[:1], 1.0)
    assert ended.log_density.item() == math.inf


def test_a_number_is_a_time_and_float64_times_serve_float32_points() -> None:
    support, x, _ = problem()
    field, x = fv.ExactField(support.float()), x.float()
    assert torch.equal(field(x, 0.5), field(x, torch.tensor(0.5)))
    found = field(x, torch.full((5,), 0.3, dtype=torch.float64))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, field(x, 0.3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fv.ExactField(torch.zeros(3, 2))(torch.zeros(1, 2), 1.5),
            r"t must be in \[0, 1\], got values from 1.5 to 1.5",
        ),
        (lambda: fv.ExactField(torch.zeros(3, 2))(torch.zeros(1, 2), torch.zeros(1).long()), "t must be floating"),
        (
            lambda: fv.ExactField(
                torch.zeros(2, 2), labels=torch.tensor([0, 1]), log_prior=torch.tensor([0.0, -math.inf])
            )(torch.zeros(1, 2), 0.5, torch.tensor([1])),
            "label 1 has no point",
        ),
        (
            lambda: fv.ExactField(torch.zeros(3, 2))(torch.zeros(1, 2), 0.5, torch.full((1, 3), math.inf)),
            "below infinity",
        ),
        (lambda: fv.ExactField(torch.zeros(0, 2)), "at least one point, got \\(0, 2\\)"),
        (lambda: fv.ExactField(torch.tensor([[1.0], [math.nan]])), "NaN or infinity in 1 of 2 points"),
        (
            lambda: fv.ExactField(torch.zeros(3, 2), labels=torch.zeros(2, dtype=torch.int64)),
            r"labels must have shape \(3,\)",
        ),
        (lambda: fv.ExactField(torch.zeros(2, 2), labels=torch.tensor([0, -1])), "must not be negative"),
        (lambda: fv.ExactField(torch.zeros(2, 2), log_prior=torch.full((2,), -math.inf)), "finite somewhere"),
        (lambda: fv.ExactField(torch.zeros(3, 2))(torch.zeros(4, 3), torch.zeros(4)), r"x must have shape \(B, 2\)"),
        (
            lambda: fv.ExactField(torch.zeros(3, 2))(torch.zeros(4, 2), torch.zeros(3)),
            r"t must be a scalar or have shape \(4,\)",
        ),
        (
            lambda: fv.ExactField(torch.zeros(3, 2))(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2).long()),
            "support has none",
        ),
        (
            lambda: fv.ExactField(torch.zeros(2, 2), labels=torch.tensor([0, 1]))(
                torch.zeros(1, 2), torch.zeros(1), torch.tensor([7])
            ),
            "label 7 has no point in the support",
        ),
        (
            lambda: fv.ExactField(torch.zeros(3, 2))(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2, 4)),
            r"\(2, 3\), got \(2, 4\)",
        ),
    ],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
