"""Rows that are followed: against exponents and means in float64, whatever moves they make."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fluvial as fv
from fluvial.smoothing import Effort, Query, Support
from fluvial.smoothing import running as module
from fluvial.smoothing.products import has_fast_int8
from fluvial.smoothing.running import RunningRows, WholeSums, rows_to_follow
from smoothing.direct import direct, exponents

pytestmark = pytest.mark.skipif(not has_fast_int8("cpu"), reason="no fast product of int8 here")
PATH = fv.CondOT()


def pixels(n: int, d: int, seed: int = 0, dark: bool = False) -> Tensor:
    """Images of a few directions and noise; dark ones are mostly 0."""
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(n, 20, generator=g) @ torch.randn(20, d, generator=g) * 12 + torch.randn(n, d, generator=g) * 8
    return (values if dark else values + 127.5).round().clamp(0, 255).to(torch.uint8)


def query(support: Support, x: Tensor, t: float, **conditions: Tensor | None) -> Query:
    """In the support's values."""
    times = torch.full((len(x),), t, dtype=torch.float64)
    return Query(x, PATH.alpha(times), PATH.sigma(times), **conditions).in_values(support)


def means(support: Support, found: module.Moments) -> Tensor:
    """Means in data units, float64."""
    top = support.data(found.top_index, torch.float64)
    return top + found.offset.double() * support.unit


def euler(data: Tensor, x: Tensor, t: float) -> Tensor:
    return x + 0.02 * (direct(data, x, torch.tensor(t)).mean - x.double()).float() / (1 - t)


def jump(data: Tensor, x: Tensor, t: float) -> Tensor:
    """To somewhere else, and every third row not at all."""
    g = torch.Generator().manual_seed(int(1000 * t))
    new = t * data[torch.randint(len(data), (len(x),), generator=g)].float().div(127.5).sub(1)
    new += (1 - t) * torch.randn(x.shape, generator=g)
    new[::3] = x[::3]
    return new


def scale(data: Tensor, x: Tensor, t: float) -> Tensor:
    """Along itself, where state and move are parallel."""
    return x * 0.98


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("move", [euler, jump, scale])
def test_exponents_are_within_their_bound_and_means_as_accurate_as_in_float32(
    move: Callable[[Tensor, Tensor, float], Tensor], dark: bool
) -> None:
    data = pixels(900, 300, dark=dark)
    support, rows = Support(data), torch.arange(12)
    x = torch.randn(12, 300, generator=torch.Generator().manual_seed(1))
    running, settled = RunningRows(support, torch.arange(12)), 0
    for step in range(30):
        t = step / 50
        asked = query(support, x, t)
        sigma = asked.sigma * support.unit
        found, sound = running.moments(rows, asked)
        truth = direct(data, x, torch.tensor(t))
        settled += int(sound.sum())
        expected = exponents(data, x, asked.alpha, sigma)
        own = running._products.double() - 0.5 * asked.alpha[:, None] * support.squared_norms
        off = own * asked.gain[:, None] - expected
        off -= off.mean(1, keepdim=True)  # exponents are known up to a constant of the row
        residue = (asked.precise(support) - running._state).norm(dim=1) * support.reach
        assert (off.abs().amax(1) <= 2 * asked.gain * (running._error + residue) + 1e-9).all()
        if not len(found.offset):
            continue
        ratio = (1 + asked.alpha / sigma)[sound]
        error = ratio * (means(support, found) - truth.mean[sound]).norm(dim=1) / 300**0.5
        assert error.max() < 1e-5 and error.median() < 3e-6
        assert (found.normaliser * truth.weights.amax(1)[sound] - 1).abs().max() < 1e-4
        x = move(data, x, t)
    assert settled == 12 * 30


def test_conditions_tilt_the_weights() -> None:
    data = pixels(600, 260)
    g = torch.Generator().manual_seed(3)
    labels, prior = torch.arange(600) % 3, 3 * torch.randn(600, generator=g, dtype=torch.float64)
    prior[5] = -torch.inf
    x = torch.randn(6, 260, generator=g)
    rows = torch.arange(6)
    asked = torch.tensor([0, 1, 2, -1, 0, 1])
    allowed = (labels == asked[:, None]) | (asked < 0)[:, None]
    own = 2 * torch.randn(6, 600, generator=g, dtype=torch.float64)
    cases = [
        (Support(data, labels, prior), {"labels": asked}, prior + torch.where(allowed, 0.0, -torch.inf)),
        (Support(data), {"log_prior": own}, own),
    ]
    for support, condition, expected in cases:
        running = RunningRows(support, torch.arange(6))
        for t in (0.0, 0.1, 0.2):
            found, sound = running.moments(rows, query(support, x, t, **condition))
            assert sound.all()
            truth = direct(data, x, torch.tensor(t), prior=expected)
            torch.testing.assert_close(means(support, found), truth.mean, rtol=0, atol=2e-5)
            x = 0.95 * x + 0.05 * truth.mean.float()


def test_one_datum_that_may_be_is_the_mean() -> None:
    data = pixels(300, 256)
    support = Support(data, labels=(torch.arange(300) == 7).long())
    running = RunningRows(support, torch.arange(2))
    found, sound = running.moments(
        torch.arange(2), query(support, torch.randn(2, 256), 0.1, labels=torch.ones(2).long())
    )
    assert sound.all() and found.top_index.tolist() == [7, 7]
    assert found.offset.abs().max() == 0 and found.normaliser.tolist() == [1, 1]


def test_rows_are_forgotten_and_others_do_not_notice() -> None:
    data = pixels(500, 256)
    support, x = Support(data), torch.randn(8, 256, generator=torch.Generator().manual_seed(5))
    whole, part = RunningRows(support, torch.arange(8)), RunningRows(support, torch.arange(8))
    whole.moments(torch.arange(8), query(support, x, 0.1))
    part.moments(torch.arange(8), query(support, x, 0.1))
    x = x * 0.97
    some = torch.tensor([1, 4, 6])
    expected, _ = whole.moments(torch.arange(8), query(support, x, 0.12))
    found, sound = part.moments(some, query(support, x[some], 0.12))
    assert sound.all()
    torch.testing.assert_close(found.offset, expected.offset[some], rtol=1e-5, atol=1e-4)
    assert torch.equal(found.top_index, expected.top_index[some])
    assert part.rows.tolist() == [1, 4, 6]
    found, sound = part.moments(torch.tensor([], dtype=torch.long), query(support, x[:0], 0.13))
    assert not len(sound) and not len(found.top_index) and not len(part.rows)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_a_row_without_a_value_is_left_open_and_harms_no_other(bad: float) -> None:
    data = pixels(500, 256)
    support, x = Support(data), torch.randn(4, 256, generator=torch.Generator().manual_seed(5))
    spoilt = x.clone()
    spoilt[2, 3] = bad
    good, other = RunningRows(support, torch.arange(4)), RunningRows(support, torch.arange(4))
    for t in (0.1, 0.2):
        expected, _ = good.moments(torch.arange(4), query(support, x, t))
        found, sound = other.moments(torch.arange(4), query(support, spoilt, t))
        assert sound.tolist() == [True, True, False, True]
        assert torch.equal(found.offset, expected.offset[[0, 1, 3]])


def test_rows_whose_errors_add_up_begin_anew() -> None:
    data = pixels(400, 256)
    support, x = Support(data), torch.randn(5, 256, generator=torch.Generator().manual_seed(6))
    running, largest = RunningRows(support, torch.arange(5)), []
    for step in range(300):
        x = x + 1e-3 * torch.randn(5, 256, generator=torch.Generator().manual_seed(step))
        running.moments(torch.arange(5), query(support, x, 0.2))
        largest.append(float(running._error.max()))
    limit = 0.5 * (256 + 8) * 2.0**-24 * float(x.norm(dim=1).max()) * 127.5 * support.radius
    assert 0.5 * limit < max(largest) < 1.2 * limit and (torch.tensor(largest).diff() < 0).any()
    exact = running._state @ support.values(torch.arange(400), torch.float64).T
    assert ((running._products - exact).abs().amax(1) <= running._error).all()


def test_whole_sums_are_exact_however_many_digits_and_summands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SUMMANDS", 500)  # several flushes
    g = torch.Generator().manual_seed(0)
    digits = torch.tensor([1, 3, 2, 4, 4])
    sums, expected = WholeSums(digits, 40), torch.zeros(5, 40, dtype=torch.int64)
    total = torch.zeros(5, dtype=torch.int64)
    for n, share in ((400, 1.0), (300, 0.01), (128, 0.0), (450, 1.0)):
        values = torch.randint(-128, 128, (n, 40), generator=g, dtype=torch.int8)
        values[0], values[1] = -128, 127
        weights = (torch.rand(5, n, generator=g).double() * (127 * 256.0 ** (digits - 1))[:, None]).long()
        weights[:, 0] = 127 * 256 ** (digits - 1)
        weights[:, torch.rand(n, generator=g) >= share] = 0
        expected += weights @ values.long()
        total += weights.sum(1)
        sums.add(weights.int(), values)
    assert torch.equal(sums.total.long(), expected) and torch.equal(sums.count.long(), total)


def test_many_small_weights_count_for_what_they_weigh_together() -> None:
    """20,000 data that weigh a fifth of a unit each: rounded to nearest, they would all be lost."""
    data = torch.randint(0, 256, (20_000, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    support = Support(data)
    running, weights = RunningRows(support, torch.arange(1)), torch.full((1, 20_000), 5e-11)
    weights[0, :2] = torch.tensor([0.0, 0.5])  # none of the top point's
    running._exponents, half = weights, torch.full((1,), 0.5, dtype=torch.float64)
    offset = running._offset(Query(torch.zeros(1, 256), half, half), torch.tensor([0]), half, 1 + half)
    values = support.values(torch.arange(20_000), torch.float64)
    apart = values - values[0]
    expected, tail = (weights.double()[:, part] @ apart[part] / 1.5 for part in (slice(None), slice(2, None)))
    assert (offset - expected).norm() < 0.1 * tail.norm()


def test_which_rows_are_followed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    support, floats = Support(pixels(8192, 512)), Support(torch.randn(8192, 512))
    assert len(rows_to_follow(support, 64, torch.float32, Effort())[0]) == 64
    assert rows_to_follow(support, 65, torch.float32, Effort()) == []  # products of many rows are fast enough
    assert rows_to_follow(Support(pixels(8000, 512)), 64, torch.float32, Effort()) == []
    monkeypatch.setattr(module, "_WORTH_FOLLOWING", (0, 0))
    groups = rows_to_follow(support, 130, torch.float32, Effort())
    assert [len(rows) for rows in groups] == [64, 64, 2] and torch.equal(torch.cat(groups), torch.arange(130))
    reserve = 64 * 96 * 512
    assert len(rows_to_follow(support, 130, torch.float32, Effort(memory=reserve + 16 * 8704 * 5))[0]) == 5
    assert rows_to_follow(support, 130, torch.float32, Effort(memory=reserve)) == []
    assert rows_to_follow(floats, 130, torch.float32, Effort()) == []
    assert rows_to_follow(support, 130, torch.float64, Effort()) == []
    assert rows_to_follow(Support(pixels(8192, 500)), 130, torch.float32, Effort()) == []


def test_the_default_type_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WORTH_FOLLOWING", (0, 0))
    field, x = fv.ExactField(pixels(2100, 512), tol=1e-3), torch.randn(3, 512)
    expected = fv.solve(field, x, steps=5, method="euler").x
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(fv.solve(field, x, steps=5, method="euler").x, expected)
    finally:
        torch.set_default_dtype(torch.float32)
