"""Every way gives the same moments; neither tiles, memory nor batch mates matter; extreme input has a sane outcome."""

import itertools
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import fluvial as fv
from fluvial.smoothing import Effort, Moments, Query, Support, engine, error_bound, moments
from fluvial.smoothing.affinities import Precision
from fluvial.smoothing.attention import attention_moments
from fluvial.smoothing.candidates import allowance
from fluvial.smoothing.dense import dense_moments
from fluvial.smoothing.products import takes_int8
from fluvial.smoothing.query import Way
from fluvial.smoothing.screening import _alike, narrowed_moments, screened_moments
from smoothing.direct import Sums, data_of, direct, generator, noisy

FIELDS = ("mean", "log_density", "effective_sample_size", "entropy", "top_weight", "error")


def mean_of(support: Support, found: Moments) -> Tensor:
    return support.data(found.top_index, torch.float64) + found.offset.double() * support.unit


def require_equal(support: Support, found: Moments, truth: Sums, tolerance: float) -> None:
    """All sums, statistics included, against the direct ones."""
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(mean_of(support, found), truth.mean, **close)
    torch.testing.assert_close(1 / found.normaliser, truth.weights.amax(1), **close)
    torch.testing.assert_close(found.normaliser.square() / found.squares, truth.effective, **close)
    torch.testing.assert_close(torch.log(found.normaliser) - found.surprise / found.normaliser, truth.entropy, **close)
    torch.testing.assert_close(found.log_kernel, truth.log_kernel, **close)
    chosen = truth.weights.gather(1, found.top_index[:, None])[:, 0]
    torch.testing.assert_close(chosen, truth.weights.amax(1), **close)


@pytest.mark.parametrize("kind", ["normal", "offset", "duplicates", "near", "pixels random", "pixels flat"])
@pytest.mark.parametrize("prior", [False, True])
def test_all_ways_agree(kind: str, prior: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluvial.smoothing.screening.WORTHWHILE", 1.0)
    points, taken = data_of(kind, 60, 24), dict.fromkeys(("screened", "narrowed"), 0)
    tilt = 3 * torch.randn(60, generator=generator(6), dtype=torch.float64) if prior else None
    support = Support(points, None, tilt)
    for t in (0.05, 0.4, 0.8, 0.97):
        x, times = noisy(points, t, 6)
        query, truth = Query(x, times, 1 - times), direct(points, x, times, prior=tilt)
        inside = query.in_values(support)
        for way in (Way.PRODUCT, Way.PRODUCT_FLOAT64, Way.DISTANCE):
            require_equal(support, dense_moments(way, support, inside, Effort(), stats=True), truth, 1e-8)
        for name, (found, done) in {
            "screened": screened_moments(support, inside, Effort(), Precision.NATIVE),
            "narrowed": narrowed_moments(support, inside, Effort(1e-12), stats=True),
        }.items():
            rows = torch.nonzero(done).flatten()
            assert (
                bool((found.omitted >= allowance(support, inside.rows(rows), Effort(1e-12))).all())
                or name != "narrowed"
            )
            taken[name] += len(rows)
            part = Sums(truth.weights[rows], truth.mean[rows], truth.log_kernel[rows], truth.data)
            require_equal(support, found, part, 1e-8)
        if not prior:
            single = Query(x.float(), times, 1 - times)
            head = attention_moments(support, single.in_values(support))
            rounded = direct(points, x.float(), times)
            if t < 0.5:
                torch.testing.assert_close(mean_of(support, head), rounded.mean, rtol=2e-4, atol=2e-4)
    assert all(taken.values()), taken


@pytest.mark.parametrize("tol", [0.0, 1e-3])
@pytest.mark.parametrize("kind", ["normal", "near", "pixels random", "pixels one grey"])
def test_tiles_and_chunks_change_nothing(kind: str, tol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    support, prior = data_of(kind, 300, 24), torch.randn(300, generator=generator(1), dtype=torch.float64)
    labels, cond = torch.arange(300) // 100, torch.tensor([0, 1, 2, -1, 2, 2])
    for t in (0.0, 0.5, 0.9, 0.999, 1.0):
        x, times = noisy(support, t, 6)
        whole = fv.ExactField(support, labels=labels, log_prior=prior, tol=tol).posterior(x, times, cond)
        with monkeypatch.context() as patched:
            patched.setattr("fluvial.smoothing.support.TILE_BYTES", 1)
            patched.setattr("fluvial.smoothing.support.LEAST_TILE", 7)
            patched.setattr("fluvial.smoothing.dense._LEAST_POINTS", 14)
            patched.setattr("fluvial.smoothing.dense._MEMORY_SHARE", 2**28)
            tiled = fv.ExactField(support, labels=labels, log_prior=prior, tol=tol).posterior(x, times, cond)
        for part in FIELDS[:-1]:
            torch.testing.assert_close(getattr(tiled, part), getattr(whole, part), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(300, 24), (2304, 256)])
def test_memory_changes_nothing(n: int, d: int) -> None:
    """With 1 MiB the rows go through in blocks of their own."""
    support = data_of("normal", n, d)
    parts = [noisy(support, t, 40) for t in (0.1, 0.5, 0.99)]
    x, times = (torch.cat(column) for column in zip(*parts, strict=True))
    much, little = (fv.ExactField(support, memory=memory).posterior(x, times) for memory in (2**28, 2**20))
    for part in FIELDS[:-1]:
        torch.testing.assert_close(getattr(little, part), getattr(much, part), rtol=1e-9, atol=1e-9)
    assert torch.equal(little.top_index, much.top_index)


@pytest.mark.parametrize("tol", [0.0, 1e-3])
@pytest.mark.parametrize("kind", ["normal", "near", "pixels flat"])
def test_batch_mates_do_not_matter_beyond_rounding(kind: str, tol: float) -> None:
    support = data_of(kind, 2304, 256)
    field = fv.ExactField(support, tol=tol)
    parts = [noisy(support, t, 2) for t in (0.05, 0.3, 0.4, 0.6, 0.9, 0.999)]
    x, times = (torch.cat(column).float() for column in zip(*parts, strict=True))
    together = field.posterior(x, times).mean.double()
    alone = torch.cat([field.posterior(x[row, None], times[row, None]).mean for row in range(len(x))]).double()
    sigma = 1 - times.double()
    assert bool(((together - alone).norm(dim=1) * times / sigma / 16 <= 2 * tol + 3e-4 + 1e-6 / sigma).all())


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
@pytest.mark.parametrize(("n", "d", "tol"), [(300, 200, 0.0), (300, 8, 0.0), (2304, 256, 0.0), (2304, 256, 1e-3)])
def test_rows_that_are_not_finite_give_nan_and_leave_the_others_alone(n: int, d: int, tol: float, bad: float) -> None:
    for kind in ("normal", "pixels random"):
        support = data_of(kind, n, d)
        field = fv.ExactField(support, tol=tol)
        for t in (0.0, 0.3, 0.99):
            x, times = noisy(support, t, 6)
            x, times = x.float(), times.float()
            broken = x.clone()
            broken[1, 3], broken[4] = bad, bad
            rows = torch.tensor([0, 2, 3, 5])
            whole, part = field.posterior(x, times), field.posterior(broken, times)
            assert bool(part.mean[[1, 4]].isnan().all()) and bool(field(broken, times)[[1, 4], 3].isnan().all())
            for name in FIELDS[:-1]:
                here, there = getattr(part, name)[rows], getattr(whole, name)[rows]
                atol = max(1e-3, 10 * tol) * max(1.0, float(there.abs().max()))  # the ways may differ
                torch.testing.assert_close(here, there, rtol=1e-3, atol=atol)
            alone = field.posterior(broken[[1]], times[[1]])
            assert bool(alone.mean.isnan().all()) and bool(alone.top_weight.isnan().all())


@pytest.mark.parametrize("size", [1e18, 1e19, 2e19, 1e25, 1e30])
@pytest.mark.parametrize(("n", "d"), [(40, 6), (2304, 256)])
def test_squares_beyond_float32_are_no_obstacle(size: float, n: int, d: int) -> None:
    g = generator(0)
    unit = torch.nn.functional.normalize(torch.randn(n, d, generator=g), dim=1)
    support = unit * torch.where(torch.arange(n) % 2 == 0, size, size / 20)[:, None]
    for tol in (0.0, 1e-3):
        field = fv.ExactField(support, tol=tol)
        start = field.posterior(unit[:2], torch.zeros(()))
        torch.testing.assert_close(start.mean / size, support.mean(0).expand(2, -1) / size, rtol=1e-4, atol=1e-6)
        for t in (0.3, 0.5, 0.999):
            found = field.posterior(t * support[:6], torch.tensor(t))
            assert found.top_index.tolist() == list(range(6))
            torch.testing.assert_close(found.mean / size, support[:6] / size, rtol=1e-6, atol=0)


def test_points_far_beyond_the_data_are_no_obstacle() -> None:
    support = data_of("normal", 50, 6)
    for size in (1e10, 1e19, 1e25, 1e37):
        x = size * torch.randn(4, 6, generator=generator(1))
        start = fv.ExactField(support).posterior(x, torch.zeros(()))
        torch.testing.assert_close(start.mean, support.mean(0).expand(4, -1), rtol=1e-5, atol=1e-6)
        found = fv.ExactField(support).posterior(x, torch.tensor(0.5))
        assert torch.equal(found.top_index, (x.double() @ support.double().T).argmax(1))


@pytest.mark.parametrize("tol", [0.0, 1e-3])
@pytest.mark.parametrize("kind", ["normal", "pixels random"])
def test_the_end_among_more_copies_than_candidates(kind: str, tol: float) -> None:
    support = data_of(kind, 32, 256).repeat(100, 1)
    field = fv.ExactField(support, tol=tol, labels=torch.arange(3200) % 2)
    x, _ = noisy(support[:32], 1.0, 1)
    data = field.take(torch.arange(6))
    found = field.posterior(data + 1e-3, torch.ones(()))
    torch.testing.assert_close(found.mean, data, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.effective_sample_size, torch.full((6,), 100.0))
    only = field.posterior(data + 1e-3, torch.ones(()), torch.tensor([0, 1, 0, 1, 0, 1]))
    torch.testing.assert_close(only.mean, data, rtol=1e-6, atol=1e-6)
    assert x.shape == (1, 256)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 300), (2, 300), (2048, 1), (4100, 1), (2048, 256)])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_the_smallest_shapes(shape: tuple[int, int], rows: int) -> None:
    for kind in ("normal", "pixels random"):
        support = data_of(kind, *shape)
        for tol in (0.0, 1e-3):
            field = fv.ExactField(support, tol=tol)
            for t in (0.0, 0.5, 0.999, 1.0):
                x, times = noisy(support, t, rows)
                found = field.posterior(x, times)
                assert found.mean.shape == x.shape and found.error.shape == (rows,)
                if rows:
                    error = (found.mean - direct(support, x, times).mean).norm(dim=1)
                    assert bool((error <= found.error + 1e-13).all())
                if t < 1:
                    assert field(x, times).shape == x.shape and field.divergence(x, times).shape == (rows,)


def mpmath_mean(points: Tensor, x: list[float], alpha: float, sigma: float) -> list[mpmath.mpf]:
    """Posterior mean in 60 digits."""
    data = [[mpmath.mpf(v) for v in s] for s in points.tolist()]
    squares = [sum((mpmath.mpf(p) - mpmath.mpf(alpha) * v) ** 2 for p, v in zip(x, s, strict=True)) for s in data]
    weights = [mpmath.exp((min(squares) - square) / (2 * mpmath.mpf(sigma) ** 2)) for square in squares]
    return [sum(w * s[k] for w, s in zip(weights, data, strict=True)) / sum(weights) for k in range(len(x))]


def require_bound_in_60_digits(points: Tensor, x: Tensor, alpha: float, sigma: float) -> None:
    support, like = Support(points), torch.ones(len(x), dtype=torch.float64)
    found = moments(support, Query(x, alpha * like, sigma * like))
    own, bound = mean_of(support, found).tolist(), error_bound(support, found).tolist()
    with mpmath.workdps(60):
        for row, point in enumerate(x.tolist()):
            truth = mpmath_mean(points, point, alpha, sigma)
            error = mpmath.sqrt(sum((m - mpmath.mpf(v)) ** 2 for m, v in zip(truth, own[row], strict=True)))
            assert error <= bound[row], (sigma, row)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_near_duplicates_at_a_bandwidth_of_1e_12(offset: float) -> None:
    g, sigma = generator(0), 1e-12
    base = torch.randn(1, 3, generator=g, dtype=torch.float64) + offset
    points = torch.cat([base + sigma * torch.randn(6, 3, generator=g, dtype=torch.float64), base + 1, base - 1])
    x = (1 - sigma) * points[:6] + 0.5 * sigma * torch.randn(6, 3, generator=g, dtype=torch.float64)
    require_bound_in_60_digits(points, x, 1 - sigma, sigma)


@pytest.mark.parametrize("sigma", [1e-9, 3e-10, 1e-10])
def test_between_two_points_where_the_last_digit_decides(sigma: float) -> None:
    """The exponents' errors stem from the size of the points, which is far above their distance: the bound has to say
    so."""
    points = torch.tensor([[1.0], [1.001], [-3.0]], dtype=torch.float64)
    for alpha in (1.0, 1 - sigma, 0.7):
        middle = alpha * 1.0005
        x = middle + torch.arange(-8, 9, dtype=torch.float64)[:, None] * 2.0**-53
        require_bound_in_60_digits(points, x, alpha, sigma)
        like = torch.ones(len(x), dtype=torch.float64)
        found = moments(Support(points), Query(x, alpha * like, sigma * like))
        with mpmath.workdps(60):
            for row, (point,) in enumerate(x.tolist()):
                top, other = (mpmath.mpf(points[i, 0].item()) for i in (found.top_index[row], 1 - found.top_index[row]))
                squares = [(mpmath.mpf(point) - mpmath.mpf(alpha) * s) ** 2 for s in (top, other)]
                gap = (squares[0] - squares[1]) / (2 * mpmath.mpf(sigma) ** 2)
                if gap > -30:
                    assert abs(gap - found.runner_up[row].item()) <= 2 * found.slack[row].item()


def test_stages_are_those_that_the_module_names() -> None:
    """Cheap products with a tolerance alone, and only where there are many points of many dimensions."""
    taken: list[Precision] = []
    support = data_of("normal", 2304, 256)
    x, times = noisy(support, 0.95, 4)
    for tol in (0.0, 1e-3):
        with pytest.MonkeyPatch.context() as patched:

            def spy(*given: object) -> object:
                taken.append(given[-1])
                return screened_moments(*given)

            patched.setattr(engine, "screened_moments", spy)
            fv.ExactField(support, tol=tol).posterior(x.float(), times.float())
    expected = engine.coarse_precision(Support(support), Query(x.float(), times, times))
    assert taken == [Precision.NATIVE, expected]


@pytest.mark.skipif(not takes_int8(512, "cpu"), reason="no fast product of int8 here")
def test_pixels_are_screened_with_as_few_digits_as_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    support = data_of("pixels random", 4096, 512)
    field, taken = fv.ExactField(support, tol=1e-6), {}
    for t in torch.linspace(0.02, 0.98, 49).tolist():
        with monkeypatch.context() as patched:

            def spy(*given: Any, t: float = t) -> object:
                taken.setdefault(t, given[-1])
                return screened_moments(*given)

            patched.setattr(engine, "screened_moments", spy)
            x, times = noisy(support, t, 8)
            found = field.posterior(x.float(), times.float())
            truth = direct(support, x.float(), times.float())
            assert ((found.mean.double() - truth.mean).norm(dim=1) <= found.error).all()
    assert list(dict.fromkeys(taken.values())) == [Precision.INT8, Precision.INT8_COARSE]


def test_groups_of_rows_are_all_rows_the_busiest_in_small_ones() -> None:
    for rows in (1, 7, 16, 40, 128):
        counts = torch.randint(0, 1000, (rows,), generator=generator(rows))
        groups = _alike(counts)
        assert torch.equal(torch.cat(groups).sort().values, torch.arange(rows)) and len(groups) <= 4
        assert all(counts[a].max() <= counts[b].min() for a, b in itertools.pairwise(groups))
        assert len(groups[-1]) >= min(rows, 8)


def test_labels_of_the_support_leave_the_fused_head_where_no_row_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    g, calls = torch.Generator().manual_seed(0), []
    whole = engine.attention.attention_moments
    monkeypatch.setattr(engine.attention, "attention_moments", lambda *given: calls.append(1) or whole(*given))
    data, x = torch.randn(300, 4, generator=g), torch.randn(9, 4, generator=g)
    plain, labelled = fv.ExactField(data), fv.ExactField(data, labels=torch.arange(300) % 3)
    assert torch.equal(plain(x, 0.3), labelled(x, 0.3)) and len(calls) == 2
    labelled(x, 0.3, torch.zeros(9, dtype=torch.int64))
    assert len(calls) == 2
