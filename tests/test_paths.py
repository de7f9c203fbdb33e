"""Paths: rates against autograd, limits at both ends, conversions as identities."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fluvial as fv
from names import steady

PATHS = [
    fv.CondOT(),
    fv.CondOT(0.05),
    fv.VP(),
    fv.Cosine(),
    fv.Polynomial(1),
    fv.Polynomial(2.5),
    fv.FromBandwidth(lambda t: (1 - t) / t, lambda t: -1 / t**2),
    fv.FromBandwidth(lambda t: (1 / t - 1) ** 2, lambda t: -2 * (1 / t - 1) / t**2),
]
INSIDE = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
QUANTITIES = ("velocity", "score", "denoiser", "noise")


@pytest.mark.parametrize("path", PATHS, ids=steady)
def test_rates_are_the_derivatives_of_the_coefficients(path: fv.GaussianPath) -> None:
    for value, rate in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        derivative = torch.func.vmap(torch.func.grad(value))(INSIDE)
        torch.testing.assert_close(rate(INSIDE), derivative, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=steady)
def test_data_is_reached_and_noise_is_left(path: fv.GaussianPath) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    alpha, sigma = path.alpha(ends), path.sigma(ends)
    assert alpha[1] == 1
    assert sigma[1] == getattr(path, "sigma_min", 0.0)
    assert 0 <= alpha[0] < 0.01 and 0.9999 < sigma[0] <= 1
    assert (torch.diff(path.bandwidth(INSIDE)) < 0).all()
    torch.testing.assert_close(path.bandwidth(INSIDE), path.sigma(INSIDE) / path.alpha(INSIDE))


@pytest.mark.parametrize("path", PATHS, ids=steady)
@pytest.mark.parametrize("gap", [1e-3, 1e-6])
def test_small_numbers_near_the_end_keep_their_digits_in_float32(path: fv.GaussianPath, gap: float) -> None:
    t = torch.tensor(1 - gap, dtype=torch.float32)
    for single, double in ((f(t), f(t.double())) for f in (path.sigma, path.one_minus_alpha)):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)
    reference = 1 - path.alpha(t.double())
    torch.testing.assert_close(path.one_minus_alpha(t.double()), reference, rtol=1e-4, atol=1e-15)


def test_polynomial_of_degree_one_and_hyperbolic_bandwidth_are_condot() -> None:
    for other in (fv.Polynomial(1), PATHS[6]):
        for name in ("alpha", "sigma", "alpha_dot", "sigma_dot", "one_minus_alpha"):
            ends = torch.tensor([0.0, 1e-6, 0.3, 1 - 1e-6, 1.0], dtype=torch.float64)
            expected = getattr(fv.CondOT(), name)(ends)
            torch.testing.assert_close(getattr(other, name)(ends), expected, rtol=1e-8, atol=1e-9)


def test_variance_preserving_paths_preserve_variance() -> None:
    for path in (fv.VP(), fv.Cosine()):
        total = path.alpha(INSIDE) ** 2 + path.sigma(INSIDE) ** 2
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-14, atol=0)


def test_vp_matches_its_integral() -> None:
    t = torch.tensor(0.3, dtype=torch.float64)
    integral = 0.7 * 0.1 + 0.5 * 0.7**2 * 19.9
    assert fv.VP().alpha(t).item() == pytest.approx(math.exp(-integral / 2), rel=1e-14)


@pytest.mark.parametrize("path", PATHS, ids=steady)
def test_sample_is_the_path_and_its_derivative(path: fv.GaussianPath) -> None:
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 25, 3, 2, generator=g, dtype=torch.float64)
    found = path.sample(x0, x1, INSIDE)

    def point(t: torch.Tensor) -> torch.Tensor:
        return path.alpha(t)[:, None, None] * x1 + path.sigma(t)[:, None, None] * x0

    xt, ut = torch.func.jvp(point, (INSIDE,), (torch.ones_like(INSIDE),))
    torch.testing.assert_close(found.xt, xt)
    torch.testing.assert_close(found.ut, ut, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=steady)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**20), t=st.floats(0.001, 0.999))
def test_conversions_agree_with_the_definitions_and_invert_each_other(
    path: fv.GaussianPath, seed: int, t: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    noise, datum = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    time = torch.full((4,), t, dtype=torch.float64)
    sample = path.sample(noise, datum, time)
    truth = {
        "velocity": sample.ut,
        "denoiser": datum,
        "noise": noise,
        "score": -noise / path.sigma(time)[:, None],
    }
    for source in QUANTITIES:
        for target in QUANTITIES:
            found = path.convert(truth[source], sample.xt, time, source=source, target=target)
            scale = 1 + truth[target].norm()
            assert (found - truth[target]).norm() / scale < 1e-8, (source, target)


def test_velocity_to_denoiser_holds_at_both_ends_in_float32() -> None:
    path = fv.CondOT()
    x0, x1 = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    for t in (0.0, 1e-6, 1 - 1e-6, 1.0):
        time = torch.full((5,), t)
        point = path.sample(x0, x1, time)
        for target, truth in (("denoiser", x1), ("noise", x0)):
            found = path.convert(point.ut, point.xt, time, source="velocity", target=target)
            torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-6)


def test_undetermined_conversions_say_so() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="denoiser is not determined by the score where alpha = 0"):
        fv.CondOT().convert(x, x, torch.zeros(2), source="score", target="denoiser")
    with pytest.raises(ValueError, match="velocity is not determined by the denoiser where sigma = 0"):
        fv.CondOT().convert(x, x, torch.ones(2), source="denoiser", target="velocity")
    with pytest.raises(ValueError, match="score is not determined by the velocity where sigma = 0"):
        fv.CondOT().convert(x, x, torch.ones(2), source="velocity", target="score")


def test_time_at_sigma_inverts_sigma() -> None:
    for path in PATHS:
        for sigma in (0.9, 0.5, 0.1):
            t = torch.tensor(path.time_at_sigma(sigma), dtype=torch.float64)
            assert path.sigma(t).item() == pytest.approx(sigma, rel=1e-9)
    assert fv.CondOT(0.1).time_at_sigma(0.01) == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fv.CondOT(1.0), r"sigma_min must be in \[0, 1\), got 1.0"),
        (lambda: fv.CondOT(float("nan")), "sigma_min"),
        (lambda: fv.Polynomial(0.5), "n must be at least 1, got 0.5"),
        (lambda: fv.VP(2.0, 1.0), "beta_min <= beta_max, got 2.0 and 1.0"),
        (lambda: fv.CondOT().time_at_sigma(0.0), "sigma must be in"),
        (
            lambda: fv.CondOT().convert(
                torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), source="velocty", target="score"
            ),
            "source must be one of .* got 'velocty'; did you mean 'velocity'",
        ),
        (
            lambda: fv.CondOT().sample(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(3)),
            r"shape \(2,\), got \(3,\)",
        ),
    ],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
