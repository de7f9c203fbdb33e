"""Approximate affinities are within their bound of the exact ones, whatever the data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fluvial.smoothing import Query, Support
from fluvial.smoothing.affinities import GROUP, Affinities, Precision, coarse_precision, fine_precision
from fluvial.smoothing.products import Digits, has_fast_int8
from smoothing.direct import FLOATS, PIXELS, data_of, generator, noisy

KINDS = [*FLOATS, *(f"pixels {kind}" for kind in PIXELS)]
INT8 = pytest.mark.skipif(not has_fast_int8("cpu"), reason="no fast product of int8 here")


def question(support: Support, x: Tensor, t: Tensor, **rest: Tensor) -> Query:
    return Query(x, t, 1 - t, **rest).in_values(support)


def exact(support: Support, query: Query) -> Tensor:
    """Affinities in float64, from the points' and the rows' values as they are."""
    values = support.values(torch.arange(len(support)), torch.float64)
    found = query.precise(support) @ values.T - 0.5 * query.alpha[:, None] * values.square().sum(1)
    prior = query.log_prior if query.log_prior is not None else support.log_prior
    if prior is not None:
        found = found + (query.sigma.square() / query.alpha)[:, None] * prior.double()
    if query.labels is not None and support.labels is not None:
        other = (support.labels != query.labels[:, None]) & (query.labels >= 0)[:, None]
        found = found.masked_fill(other, -torch.inf)
    return found


def require_bound(support: Support, query: Query, precision: Precision, chunk: int) -> Tensor:
    """Compare all affinities, chunk by chunk, with the exact ones up to a constant of the row; the bound."""
    approximate, pieces = Affinities(support, query, precision), []
    for low in range(0, len(support), chunk):
        points = slice(low, min(low + chunk, len(support)))
        found, bound = approximate(points)
        assert found.shape[1] % GROUP == 0
        assert bool((found[:, points.stop - low :] == -torch.inf).all())
        pieces.append(found[:, : points.stop - low].double().clone())
    found, truth = torch.cat(pieces, 1), exact(support, query)
    excluded = truth == -torch.inf
    assert bool((found[excluded] == -torch.inf).all())
    off = (found - truth).masked_fill(excluded, torch.nan)
    low, high = off.nan_to_num(torch.inf).amin(1), off.nan_to_num(-torch.inf).amax(1)
    # What float64 loses itself in the reference.
    size = query.precise(support).norm(dim=1) * support.radius + support.radius**2
    assert bool(((high - low) / 2 <= bound + 1e-15 * (support.dim + 8) * size).all()), (high - low) / 2 / bound
    return bound


def precisions(support: Support) -> list[Precision]:
    """Those that serve the support."""
    int8 = [Precision.INT8_COARSE, Precision.INT8] if support.pixels and has_fast_int8("cpu") else []
    return [Precision.NATIVE, Precision.BFLOAT16, *int8]


@pytest.mark.parametrize("kind", KINDS)
def test_affinities_are_within_their_bound(kind: str) -> None:
    support = Support(data_of(kind, 200, 96))
    for t in (1e-3, 0.5, 0.99, 1 - 1e-6):
        x, times = noisy(data_of(kind, 200, 96), t, 8)
        query = question(support, x.float(), times)
        for precision in precisions(support):
            require_bound(support, query, precision, 200)
            require_bound(support, query, precision, 64)


@pytest.mark.parametrize("kind", ["normal", "pixels random", "offset"])
def test_priors_and_labels_are_part_of_the_affinities(kind: str) -> None:
    points, g = data_of(kind, 150, 64), generator(2)
    prior = torch.randn(150, generator=g, dtype=torch.float64) * 50
    prior[::5] = -torch.inf
    prior[:60] += 1e5  # in the first chunk alone
    labels, cond = torch.arange(150) // 50, torch.tensor([0, 1, 2, -1])
    x, times = noisy(points, 0.6, 4)
    for support, rest in (
        (Support(points, labels, prior), {}),
        (Support(points, labels, prior), {"labels": cond}),
        (Support(points), {"log_prior": prior + torch.randn(4, 150, generator=g)}),
    ):
        for precision in precisions(support):
            require_bound(support, question(support, x.float(), times, **rest), precision, 60)


@pytest.mark.parametrize("precision", [Precision.NATIVE, Precision.BFLOAT16])
def test_the_bound_is_infinite_where_products_overflow(precision: Precision) -> None:
    """Norms whose squares are beyond float32 look infinitely far away."""
    points = torch.nn.functional.normalize(torch.randn(100, 64, generator=generator(0)), dim=1)
    points *= torch.where(torch.arange(100) % 2 == 0, 2e19, 1e18)[:, None]
    query = question(Support(points), 0.5 * points[:4], torch.full((4,), 0.5, dtype=torch.float64))
    _, bound = Affinities(Support(points), query, precision)(slice(0, 100))
    assert bool(torch.isinf(bound).all())


@INT8
@pytest.mark.parametrize("counts", [[1] * 5, [2] * 5, [3] * 5, [1, 4, 2, 3, 1]])
def test_digits_stand_for_the_numbers_they_round(counts: list[int]) -> None:
    x = torch.randn(5, 300, generator=generator(0)) * torch.tensor([1e-20, 1.0, 1e6, 1e20, 0.0])[:, None]
    b = torch.randint(-128, 128, (40, 300), generator=generator(1)).to(torch.int8)
    digits, steps = Digits(x, torch.tensor(counts)), 127 * 128.0 ** (torch.tensor(counts) - 1)
    assert bool(((digits.rounded - x).abs().amax(1) <= x.double().abs().amax(1) / (2 * steps)).all())
    product = digits.rounded @ b.double().T
    size = digits.rounded.abs() @ b.double().abs().T
    assert bool(((digits.inner(b) - product).abs() <= 4 * 2.0**-24 * size).all())


@INT8
def test_int8_sums_stay_within_int32() -> None:
    """Black and white images of 256 x 256 x 3 would overflow: their products are not taken in int8."""
    longest = 2**17
    support = Support(torch.tensor([[0], [255]], dtype=torch.uint8).expand(2, longest).contiguous())
    x = torch.full((1, longest), -1.0)
    query = question(support, x, torch.full((1,), 0.5, dtype=torch.float64))
    assert fine_precision(support, query) == Precision.INT8
    require_bound(support, query, Precision.INT8, 2)
    require_bound(support, query, Precision.INT8_COARSE, 2)
    longer = Support(torch.tensor([[0], [255]], dtype=torch.uint8).expand(2, longest + 64).contiguous())
    assert longer.pixels and fine_precision(longer, query) == Precision.NATIVE


def test_one_column_is_not_taken_in_int8() -> None:
    support = Support(torch.tensor([[0], [255], [7]], dtype=torch.uint8))
    query = question(support, torch.zeros(1, 1), torch.full((1,), 0.5, dtype=torch.float64))
    assert support.pixels and fine_precision(support, query) == Precision.NATIVE


def test_only_float32_rows_take_cheap_products() -> None:
    support = Support(data_of("pixels random", 64, 16))
    query = question(support, torch.zeros(1, 16, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64))
    assert coarse_precision(support, query) == fine_precision(support, query) == Precision.NATIVE


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 70),
    d=st.integers(1, 40),
    scale=st.floats(-12, 8),
    offset=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    t=st.floats(1e-6, 1 - 1e-6),
    stretch=st.floats(-3, 3),
    pixel=st.booleans(),
    precision=st.sampled_from(list(Precision)),
)
def test_affinities_are_within_their_bound_on_random_data(
    seed: int, n: int, d: int, scale: float, offset: float, t: float, stretch: float, pixel: bool, precision: Precision
) -> None:
    g = generator(seed)
    if pixel:
        levels = torch.randint(0, 256, (2,), generator=g)
        points = torch.where(torch.rand(n, d, generator=g) < 0.5, levels[0], levels[1]).to(torch.uint8)
    else:
        points = 10**scale * (torch.randn(n, d, generator=g) * 10 ** (stretch * torch.rand(d, generator=g)) + offset)
    support = Support(points)
    x, times = noisy(points, t, 3, seed=seed, size=1.0 if pixel else 10**scale)
    query = question(support, x.float(), times)
    whole = fine_precision(support, query) == Precision.INT8
    precision = Precision.NATIVE if precision.name.startswith("INT8") and not whole else precision
    require_bound(support, query, precision, max(1, n // 2))
