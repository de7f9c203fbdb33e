"""The exact field against a direct sum: float64 up to t = .99, mpmath beyond, on every path and far from the origin."""

import mpmath
import pytest
import torch

import fluvial as fv

PATHS = {
    "condot": fv.CondOT(),
    "condot-rest": fv.CondOT(0.01),
    "vp": fv.VP(),
    "cosine": fv.Cosine(),
    "polynomial": fv.Polynomial(3),
    "bandwidth": fv.FromBandwidth(lambda t: (1 - t) / t, lambda t: -1 / t**2),
}
EARLY = (0.0, 1e-6, 0.1, 0.5, 0.9, 0.99)
LATE = 1 - 1e-6


def points(path: fv.GaussianPath, d: int, offset: float, t: float, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Support of 40 points, six rows x drawn from the path, and their times."""
    g = torch.Generator().manual_seed(d)
    support = (torch.randn(40, d, generator=g, dtype=torch.float64) + offset).to(dtype)
    x0 = torch.randn(6, d, generator=g, dtype=torch.float64).to(dtype)
    x1 = support[torch.randint(40, (6,), generator=g)]
    times = torch.full((6,), t, dtype=dtype)
    return support, path.sample(x0, x1, times).xt, times


def direct_sum(support: torch.Tensor, x: torch.Tensor, t: torch.Tensor, path: fv.GaussianPath) -> torch.Tensor:
    s, x, t = support.double(), x.double(), t.double()[:, None]
    alpha, sigma = path.alpha(t), path.sigma(t)
    weights = torch.softmax(-(x[:, None] - alpha[:, None] * s).square().sum(2) / (2 * sigma**2), 1)
    mean = weights @ s
    return path.alpha_dot(t) * mean + path.sigma_dot(t) / sigma * (x - alpha * mean)


def schedule(name: str, t: mpmath.mpf) -> tuple[mpmath.mpf, ...]:
    """alpha, sigma and their rates in arbitrary precision, written out again independently of the package."""
    one, half_pi = mpmath.mpf(1), mpmath.pi / 2
    if name in ("condot", "bandwidth"):
        return t, one - t, one, -one
    if name == "condot-rest":
        rest = mpmath.mpf(0.01)
        return t, one - (one - rest) * t, one, rest - one
    if name == "cosine":
        return (
            mpmath.sin(half_pi * t),
            mpmath.cos(half_pi * t),
            half_pi * mpmath.cos(half_pi * t),
            -half_pi * mpmath.sin(half_pi * t),
        )
    if name == "polynomial":
        return t**3, one - t**3, 3 * t**2, -3 * t**2
    low, high = mpmath.mpf(0.1), mpmath.mpf(20.0)
    s = one - t
    integral, rate = low * s + (high - low) * s**2 / 2, low + (high - low) * s
    alpha = mpmath.exp(-integral / 2)
    sigma = mpmath.sqrt(one - alpha**2)
    return alpha, sigma, rate * alpha / 2, -rate * alpha**2 / (2 * sigma)


def mpmath_sum(support: torch.Tensor, x: torch.Tensor, t: float, name: str) -> torch.Tensor:
    rows = []
    with mpmath.workdps(60):
        alpha, sigma, alpha_dot, sigma_dot = schedule(name, mpmath.mpf(t))
        data = [[mpmath.mpf(v) for v in s] for s in support.tolist()]
        for row in x.tolist():
            point = [mpmath.mpf(v) for v in row]
            exponents = [
                -sum((p - alpha * v) ** 2 for p, v in zip(point, s, strict=True)) / (2 * sigma**2) for s in data
            ]
            top = max(exponents)
            weights = [mpmath.exp(e - top) for e in exponents]
            total = sum(weights)
            mean = [sum(w * s[k] for w, s in zip(weights, data, strict=True) if w) / total for k in range(len(point))]
            field = [alpha_dot * m + sigma_dot / sigma * (p - alpha * m) for p, m in zip(point, mean, strict=True)]
            rows.append([float(v) for v in field])
    return torch.tensor(rows, dtype=torch.float64)


def relative_error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return (
        float((found.double() - truth).norm() / truth.norm().clamp_min(1e-300))
        if truth.norm() > 0
        else float(found.norm())
    )


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("d", [1, 2, 64, 3072])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_equals_the_direct_sum_up_to_t_099(
    name: str, d: int, offset: float, dtype: torch.dtype, tolerance: float
) -> None:
    path = PATHS[name]
    for t in EARLY:
        support, x, times = points(path, d, offset, t, dtype)
        found = fv.ExactField(support, path)(x, times)
        assert found.dtype == dtype
        assert relative_error(found, direct_sum(support, x, times, path)) < tolerance, t


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("d", [1, 2, 64, pytest.param(3072, marks=pytest.mark.slow)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_equals_the_sum_in_arbitrary_precision_near_the_end(
    name: str, d: int, offset: float, dtype: torch.dtype, tolerance: float
) -> None:
    path = PATHS[name]
    support, x, times = points(path, d, offset, LATE, dtype)
    rows = 1 if d >= 64 else 6
    found = fv.ExactField(support, path)(x[:rows], times[:rows])
    assert relative_error(found, mpmath_sum(support, x[:rows], times[0].item(), name)) < tolerance


@pytest.mark.parametrize("name", PATHS)
def test_tiles_and_online_softmax_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = PATHS[name]
    for t in (0.0, 0.3, 0.7, 0.97):
        support, x, times = points(path, 5, 3.0, t, torch.float64)
        whole = fv.ExactField(support, path).posterior(x, times)
        with monkeypatch.context() as patched:
            patched.setattr("fluvial.smoothing.support.TILE_BYTES", 1)
            patched.setattr("fluvial.smoothing.support.LEAST_TILE", 7)
            patched.setattr("fluvial.smoothing.dense._LEAST_POINTS", 14)
            patched.setattr("fluvial.smoothing.dense._MEMORY_SHARE", 2**28)
            tiled = fv.ExactField(support, path).posterior(x, times)
        for part in ("mean", "log_density", "effective_sample_size", "entropy", "top_weight"):
            torch.testing.assert_close(getattr(tiled, part), getattr(whole, part), rtol=1e-10, atol=1e-12)
        assert torch.equal(tiled.top_index, whole.top_index)
