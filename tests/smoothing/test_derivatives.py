"""Derivatives late in time, where rows rest on few candidates, and those of pixels, whose values have another unit."""

import pytest
import torch
from torch import Tensor

import fluvial as fv
from fluvial.smoothing import Effort, Query, Support, moments, spread
from fluvial.smoothing.query import Way
from smoothing.direct import data_of, direct, generator, in_data_units, noisy


def neighbours(kind: str, n: int, d: int) -> Tensor:
    """Data in groups of four whose members differ by little: late in time, posteriors that are not one point."""
    if kind == "floats":
        return data_of("near", n, d).double()
    base = data_of("pixels random", max(1, n // 4), d)[torch.arange(n) % max(1, n // 4)]
    change = torch.randint(0, 3, base.shape, generator=generator(9))
    return (base.int() + change - 1).clamp(0, 255).to(torch.uint8)


def late_rows(kind: str, support: Tensor) -> tuple[Tensor, Tensor]:
    """Points at which some of a group's members share the weight."""
    size = {"floats": 2e-3, "pixels": 2 / 127.5}[kind]
    x, times = noisy(support, 1 - size, 6)
    return x[::2].contiguous(), times[::2]


def jacobian(support: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Of the CondOT field, ``(B, d, d)``: ``(t / s^2 Cov - I) / s`` with ``s = 1 - t``."""
    sums, data = direct(support, x, t), in_data_units(support)
    rows = []
    for w, mean, time in zip(sums.weights, sums.mean, t.double(), strict=True):
        apart = data - mean
        covariance = (w[:, None] * apart).T @ apart
        sigma = 1 - time
        rows.append((time / sigma**2 * covariance - torch.eye(len(mean), dtype=torch.float64)) / sigma)
    return torch.stack(rows)


@pytest.mark.parametrize("n", [200, 2304])
@pytest.mark.parametrize("kind", ["floats", "pixels"])
def test_the_jacobian_in_both_modes_and_the_divergence_are_analytic(kind: str, n: int) -> None:
    support = neighbours(kind, n, 12)
    x, times = late_rows(kind, support)
    field = fv.ExactField(support)
    truth = jacobian(support, x, times)
    trivial = -1 / (1 - times)
    assert bool(((truth.diagonal(dim1=1, dim2=2) - trivial[:, None]).abs().amax(1) > 1e-3 / (1 - times)).any())
    if n >= 2048:
        found = moments(Support(support), Query(x, times, 1 - times))
        assert bool((found.way == int(Way.CANDIDATES)).all()), "no longer about candidates"
    close = {"rtol": 1e-6, "atol": 1e-6 * float(truth.abs().max())}
    for row in range(len(x)):

        def velocity(z: Tensor, row: int = row) -> Tensor:
            return field(z[None], times[row : row + 1])[0]

        torch.testing.assert_close(torch.func.jacrev(velocity)(x[row]), truth[row], **close)
        torch.testing.assert_close(torch.func.jacfwd(velocity)(x[row]), truth[row], **close)
    trace = truth.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(field.divergence(x, times), trace, **close)


@pytest.mark.parametrize("kind", ["floats", "pixels"])
def test_derivatives_equal_finite_differences(kind: str) -> None:
    support = neighbours(kind, 2304, 8)
    x, times = late_rows(kind, support)
    field, g = fv.ExactField(support), generator(4)
    direction = torch.randn(x.shape, generator=g, dtype=torch.float64)
    step = 1e-4 * float(1 - times[0])
    slope = (field(x + step * direction, times) - field(x - step * direction, times)) / (2 * step)
    _, along = torch.func.jvp(lambda z: field(z, times), (x,), (direction,))
    torch.testing.assert_close(along, slope, rtol=1e-5, atol=1e-5 * float(slope.abs().max()))
    moved = torch.full_like(times, step)
    slope = (field(x, times + moved) - field(x, times - moved)) / (2 * step)
    _, along = torch.func.jvp(lambda t: field(x, t), (times,), (torch.ones_like(times),))
    torch.testing.assert_close(along, slope, rtol=1e-5, atol=1e-5 * float(slope.abs().max()))


@pytest.mark.parametrize("kind", ["normal", "offset", "near", "pixels random", "pixels flat"])
@pytest.mark.parametrize("tol", [0.0, 1e-3])
def test_the_spread_is_that_of_the_weights(kind: str, tol: float) -> None:
    points = data_of(kind, 2304, 256)
    support, effort = Support(points), Effort(tol)
    for t in (0.05, 0.3, 0.45, 0.6, 0.9, 0.999):
        x, times = noisy(points, t, 4)
        query = Query(x, times, 1 - times)
        found = spread(support, query, moments(support, query, effort), effort) * support.unit**2
        truth = direct(points, x, times).spread
        # tol bounds the mean's error; the spread's is that times the diameter.
        allowed = tol * 16 * (1 - t) / t * 4 * support.reach * support.unit + 1e-6
        assert bool(((found - truth).abs() <= allowed + 1e-6 * truth).all()), (t, found, truth)


def test_labels_and_priors_restrict_late_derivatives_too() -> None:
    support = neighbours("floats", 2304, 6)
    x, times = late_rows("floats", support)
    labels, cond = torch.arange(2304) // 1152, torch.tensor([0, 1, -1])
    prior = torch.randn(2304, dtype=torch.float64, generator=generator(2)) - 1e6
    field = fv.ExactField(support, labels=labels, log_prior=prior)
    for row, label in enumerate(cond.tolist()):
        kept = labels == label if label >= 0 else labels >= 0
        part = fv.ExactField(support[kept], log_prior=prior[kept])
        one = slice(row, row + 1)
        torch.testing.assert_close(
            field.divergence(x, times, cond)[one], part.divergence(x[one], times[one]), rtol=1e-7, atol=1e-7
        )
