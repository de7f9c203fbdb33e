"""What the search leaves out weighs no more than it says."""

import pytest
import torch
from torch import Tensor

from fluvial.smoothing import Effort, Query, Support
from fluvial.smoothing.affinities import Precision
from fluvial.smoothing.candidates import MOST, allowance, candidates, close_points
from fluvial.smoothing.products import has_fast_int8
from smoothing.direct import FLOATS, PIXELS, data_of, exponents, generator, noisy

KINDS = [*FLOATS, *(f"pixels {kind}" for kind in PIXELS)]
TIMES = (0.02, 0.5, 0.9, 0.999, 1 - 1e-6)


def weights(points: Tensor, query: Query, prior: Tensor | None = None) -> Tensor:
    """Weights of all points relative to the top one, float64 ``(B, N)``."""
    found = exponents(points, query.x, query.alpha, query.sigma, prior)
    return torch.exp(found - found.amax(1, keepdim=True))


def precisions(support: Support) -> list[Precision]:
    int8 = [Precision.INT8_COARSE, Precision.INT8] if support.pixels and has_fast_int8("cpu") else []
    return [Precision.NATIVE, Precision.BFLOAT16, *int8]


def scale(kind: str) -> float:
    return {"huge": 1e8, "tiny": 1e-12}.get(kind, 1.0)


@pytest.mark.parametrize("tol", [0.0, 1e-6, 1e-2])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_weighs_no_more_than_allowed(kind: str, tol: float) -> None:
    points, effort = data_of(kind, 300, 64), Effort(tol)
    support = Support(points)
    for t in TIMES:
        x, times = noisy(points, t, 8, size=scale(kind))
        given = Query(x.float(), times, (1 - times) * scale(kind))
        query, truth = given.in_values(support), weights(points, given)
        allowed = allowance(support, query, effort)
        for precision in precisions(support):
            found = candidates(support, query, effort, precision)
            inside = torch.zeros_like(truth, dtype=torch.bool)
            inside[found.rows, found.points] = True
            outside = truth.masked_fill(inside, 0.0).sum(1)
            assert bool((outside[found.few] <= found.omitted[found.few]).all()), (t, precision)
            assert bool((inside.sum(1)[found.few] <= MOST).all())
            assert bool((inside.sum(1)[~found.few] == 0).all())
            assert bool((torch.diff(found.rows) >= 0).all())
            close = close_points(support, query, effort, precision)
            assert bool((truth.masked_fill(close, 0.0).sum(1) <= allowed).all()), (t, precision)


def test_the_search_finds_few_where_few_matter() -> None:
    """So that the tests above are about something."""
    points = data_of("normal", 300, 64)
    support = Support(points)
    x, times = noisy(points, 0.8, 8)
    query = Query(x.float(), times, 1 - times).in_values(support)
    for precision in precisions(support):
        found = candidates(support, query, Effort(1e-2), precision)
        assert bool(found.few.all()) and len(found.rows) < 8 * 20
    assert float(close_points(support, query, Effort(1e-2), Precision.NATIVE).double().mean()) < 0.1


def test_chunks_may_raise_the_bar_or_hold_nothing_of_a_class() -> None:
    """1 MiB makes a first chunk of 8192 points, in which class 2 has none."""
    points, g = data_of("normal", 9000, 16), generator(3)
    labels = torch.where(torch.arange(9000) < 8192, torch.arange(9000) % 2, 2)
    prior = torch.randn(9000, generator=g, dtype=torch.float64)
    prior[:8192] += 1e5  # rounding of the first chunk's priors concerns what was found there to the end
    cond = torch.tensor([0, 1, 2, -1])
    index = torch.tensor([int(torch.nonzero(labels == c)[7]) if c >= 0 else 5 for c in cond.tolist()])
    times = torch.full((4,), 0.99, dtype=torch.float64)
    x = (0.99 * points[index] + 0.01 * torch.randn(4, 16, generator=g)).float()
    excluded = torch.where((labels == cond[:, None]) | (cond < 0)[:, None], 0.0, -torch.inf).double()
    for support, tilt in ((Support(points, labels), excluded), (Support(points, labels, prior), excluded + prior)):
        query, effort = Query(x, times, 1 - times, cond), Effort(1e-3, 2**20)
        truth = weights(points, query, tilt)
        found = candidates(support, query.in_values(support), effort, Precision.NATIVE)
        assert bool(found.few.all()), "a chunk without points of a class made its rows many"
        inside = torch.zeros_like(truth, dtype=torch.bool)
        inside[found.rows, found.points] = True
        assert bool((truth.masked_fill(inside, 0.0).sum(1) <= found.omitted).all())


def test_rows_that_are_not_finite_have_no_candidates_and_take_none_from_others() -> None:
    points = data_of("normal", 300, 64)
    x, times = noisy(points, 0.9, 4)
    support, bad = Support(points), x.float()
    bad[1, 3], bad[2, 0] = torch.nan, torch.inf
    whole, part = (
        candidates(support, Query(rows, times, 1 - times).in_values(support), Effort(1e-3), Precision.NATIVE)
        for rows in (x.float(), bad)
    )
    assert part.few.tolist() == [True, False, False, True]
    for row in (0, 3):
        assert torch.equal(whole.points[whole.rows == row], part.points[part.rows == row])


def test_a_bandwidth_beyond_float32_leaves_the_nearest_point_in() -> None:
    """sigma = 1e-30, as at the end of time: the gain is beyond float32."""
    points = data_of("duplicates", 300, 64)
    support, times = Support(points), torch.ones(4, dtype=torch.float64)
    query = Query(points[:4] + 0.01, times, 1e-30 * times).in_values(support)
    for precision in precisions(support):
        close = close_points(support, query, Effort(1e-3), precision)
        assert bool(close[torch.arange(4), torch.arange(4)].all())
    prior = Support(points, torch.arange(300) % 2, torch.zeros(300).masked_fill(torch.arange(300) % 3 == 0, -torch.inf))
    found = candidates(prior, query, Effort(), Precision.NATIVE)
    assert bool((found.points % 3 != 0).all())
    assert bool(found.few.all())
