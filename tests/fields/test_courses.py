"""Walks of the exact field in its span and with locked rows: the same scheme with the same result, and the proofs."""

import math
from typing import Any

import pytest
import torch

import fluvial as fv
from fluvial.fields import courses
from fluvial.fields.base import Walk
from fluvial.smoothing import running
from fluvial.smoothing.locking import Locks
from fluvial.smoothing.products import takes_int8

PATHS = [fv.CondOT(), fv.CondOT(0.02), fv.VP(), fv.Cosine(), fv.Polynomial(2)]
METHODS = ["euler", "midpoint", "heun", "rk4"]
# Every path and every method once in the fast suite; all pairs of them in the slow one.
PAIRS = [
    pytest.param(path, method, id=f"{method}-{path!r}", marks=[] if n == 0 or method == "euler" else pytest.mark.slow)
    for n, path in enumerate(PATHS)
    for method in METHODS
]


class Plain:
    """A field as any solver sees it, without its own way to walk."""

    def __init__(self, field: fv.ExactField) -> None:
        self.field, self.path, self.singular_at_end = field, field.path, field.singular_at_end

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        return self.field(x, t, cond)


def support(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return 0.7 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def start(rows: int, d: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(9), dtype=dtype)


@pytest.fixture
def locking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every walk locks rows, whatever its size."""
    monkeypatch.setattr(courses, "span_pays", lambda *_: False)
    monkeypatch.setattr(courses, "_WORTH_LOCKING", 0)
    monkeypatch.setattr(courses, "MOST_DIMENSIONS", 0)


def kind(field: fv.ExactField, x0: torch.Tensor) -> str:
    return type(field.trajectory(x0, None, Walk("euler", 100, True))).__name__


def compare(field: fv.ExactField, x0: torch.Tensor, tolerance: float, **options: Any) -> None:
    options = {"method": "euler"} | options
    found, expected = (fv.solve(f, x0, **options) for f in (field, Plain(field)))
    assert found.evaluations == expected.evaluations and torch.equal(found.t, expected.t)
    torch.testing.assert_close(found.path, expected.path, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.x, expected.x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("path", "method"), PAIRS)
def test_the_span_gives_the_result_of_the_generic_solver(path: fv.GaussianPath, method: str) -> None:
    field, x0 = fv.ExactField(support(20, 60) + 0.3, path), start(6, 60)
    assert kind(field, x0) == "SpanCourse"
    compare(field, x0, 1e-9, method=method, steps=17, save_at=[0.0, 0.13, 0.5, 0.77, 1.0])
    compare(field, x0, 1e-9, method=method, steps=17)
    compare(field, x0, 1e-9, method=method, steps=9, t0=0.2, t1=0.6)


@pytest.mark.parametrize(("path", "method"), PAIRS)
@pytest.mark.usefixtures("locking")
def test_locked_rows_give_the_result_of_the_generic_solver(path: fv.GaussianPath, method: str) -> None:
    field, x0 = fv.ExactField(support(40, 12), path), start(16, 12)
    assert kind(field, x0) == "LockingCourse"
    compare(field, x0, 1e-9, method=method, steps=40, save_at=[0.0, 0.31, 0.5, 0.9, 1.0])
    compare(field, x0, 1e-9, method=method, steps=40)


@pytest.mark.parametrize("spanning", [True, False])
def test_conditions_and_pixels(spanning: bool, request: pytest.FixtureRequest) -> None:
    if not spanning:
        request.getfixturevalue("locking")
    g = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (24, 4, 12), generator=g, dtype=torch.uint8)
    labels, prior = torch.arange(24) % 3, 3 * torch.randn(24, generator=g, dtype=torch.float64)
    prior[4] = -math.inf
    field, x0 = fv.ExactField(pixels, labels=labels, log_prior=prior), start(8, 48).reshape(8, 4, 12)
    rows = 3 * torch.randn(8, 24, generator=g, dtype=torch.float64)
    for cond in (None, torch.tensor([0, 1, 2, -1, 0, 1, 2, -1]), rows):
        compare(field, x0, 1e-9, steps=30, cond=cond, save_at=[0.5, 0.8, 1.0])
        compare(field, x0, 1e-9, steps=30, cond=cond, method="heun")


@pytest.mark.parametrize("n", [300, 1500])
def test_float32_is_as_close_to_float64_as_the_generic_solver(n: int) -> None:
    """In the span (300 data in 1,024 dimensions) and with locked rows (1,500)."""
    data, x0 = support(n, 1024, dtype=torch.float32), start(12, 1024, torch.float32)
    field, exact = fv.ExactField(data), fv.ExactField(data.double())
    assert kind(field, x0) == ("SpanCourse" if n == 300 else "LockingCourse")
    options: dict[str, Any] = {"steps": 50, "method": "euler", "save_at": [0.1, 0.3, 0.5, 1.0]}
    truth = fv.solve(Plain(exact), x0.double(), **options).path
    own = (fv.solve(field, x0, **options).path - truth).norm(dim=2)
    generic = (fv.solve(Plain(field), x0, **options).path - truth).norm(dim=2)
    # Rows near a watershed amplify either's rounding by as much as chance will have it: hence the median.
    assert (own.median(1).values <= 1.2 * generic.median(1).values + 1e-6).all()
    assert own.max() < 1e-3 * truth.norm(dim=2).max()
    assert (own[-1] <= generic[-1].max()).all()


@pytest.fixture
def following(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a walk over pixels are followed whatever its size."""
    if not takes_int8(1024, "cpu"):
        pytest.skip("no fast product of int8 here")
    monkeypatch.setattr(running, "_WORTH_FOLLOWING", (0, 0))


def images(n: int, d: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(4)
    values = 14 * torch.randn(n, 20, generator=g) @ torch.randn(20, d, generator=g) + 8 * torch.randn(n, d, generator=g)
    return (values + 127.5).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.usefixtures("following")
@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("conditioned", [False, True])
def test_pixels_in_int8_are_as_close_to_float64_as_the_generic_solver(method: str, conditioned: bool) -> None:
    """Rows are followed while many data matter to them, see smoothing/running.py."""
    data, x0 = images(1500, 1024), start(12, 1024, torch.float32)
    labels = torch.arange(1500) % 2 if conditioned else None
    field = fv.ExactField(data, labels=labels)
    cond = torch.arange(12) % 3 - 1 if conditioned else None
    course = field.trajectory(x0, cond, Walk(method, 50, True))
    assert isinstance(course, courses.LockingCourse) and course._running
    exact = fv.ExactField(data.double() / 127.5 - 1, labels=labels)
    options: dict[str, Any] = {"steps": 50, "method": method, "save_at": [0.1, 0.2, 0.3, 0.5, 1.0], "cond": cond}
    truth = fv.solve(Plain(exact), x0.double(), **options).path
    own = (fv.solve(field, x0, **options).path - truth).norm(dim=2)
    generic = (fv.solve(Plain(field), x0, **options).path - truth).norm(dim=2)
    assert (own.median(1).values <= 1.3 * generic.median(1).values + 1e-6).all()
    assert own.max() < 1e-3 * truth.norm(dim=2).max()


@pytest.mark.usefixtures("following")
def test_rows_that_following_does_not_settle_are_evaluated_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    data, x0 = images(1500, 1024), start(6, 1024, torch.float32)
    field = fv.ExactField(data)
    expected = fv.solve(field, x0, steps=20, method="euler").x

    def some(*args: Any) -> torch.Tensor:
        return torch.arange(len(args[1].x)) % 2 == 0

    monkeypatch.setattr(running, "settled", some)
    found = fv.solve(field, x0, steps=20, method="euler").x
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("following")
def test_as_many_rows_are_followed_as_fit_the_memory() -> None:
    data, x0 = images(8000, 512), start(12, 512, torch.float32)
    field, small = fv.ExactField(data), fv.ExactField(data, memory=4 * 2**20)
    course = small.trajectory(x0, None, Walk("euler", 20, True))
    assert isinstance(course, courses.LockingCourse)
    assert 0 < sum(len(group.rows) for group in course._running) < 12
    expected, found = (fv.solve(f, x0, steps=20, method="euler").x for f in (field, small))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("locking")
def test_duplicates_are_one_point_with_more_weight() -> None:
    data = support(30, 10).repeat(2, 1)
    x0, field = start(12, 10), fv.ExactField(data)
    compare(field, x0, 1e-9, steps=40, save_at=[0.4, 0.7, 1.0])
    course = field.trajectory(x0, None, Walk("euler", 40, False))
    assert isinstance(course, courses.LockingCourse)
    x = x0
    for step in range(36):
        x = x + course(x, torch.full((12,), step / 40, dtype=torch.float64)) / 40
    alpha, sigma, *_ = field.rates(torch.full((12,), 0.9, dtype=torch.float64))
    assert course._locks.hold(x, alpha, sigma).all()


@pytest.mark.usefixtures("locking")
def test_a_prior_can_lose_a_point_that_holds_nearly_all_weight() -> None:
    """Support {0, 3}, log-prior +12 on 0: weight .99999 on it at t = 0, and yet the end is 3."""
    field = fv.ExactField(
        torch.tensor([[0.0], [3.0]], dtype=torch.float64), log_prior=torch.tensor([12.0, 0.0], dtype=torch.float64)
    )
    x0 = torch.tensor([[5.0], [0.1], [-2.0]], dtype=torch.float64)
    assert field.posterior(x0, 0.0).top_weight[0] > 0.99999
    assert fv.solve(field, x0, steps=200, method="euler").x[:, 0].tolist() == [3.0, 0.0, 0.0]
    compare(field, x0, 1e-9, steps=200, save_at=[0.2, 0.6, 0.9, 1.0])


def test_odds_against_a_point_with_half_of_the_weight_never_grow() -> None:
    """The derivative in the docstring of ``locking``, at random states; single gaps do shrink at some."""
    g = torch.Generator().manual_seed(0)
    held, shrinking = 0, 0
    for trial in range(400):
        points = torch.randn(20, 2, generator=g, dtype=torch.float64)
        y, h = torch.randn(2, generator=g, dtype=torch.float64), 0.2 + 0.5 * float(torch.rand((), generator=g))
        if trial == 0:  # a point against a distant crowd, with another in between
            crowd = [[3.0, 0.1 * k - 0.9] for k in range(18)]
            points = torch.tensor([[0.0, 0.0], [2.0, 1.0], *crowd], dtype=torch.float64)
            y, h = torch.tensor([1.2, 0.0], dtype=torch.float64), 0.5
        squares = (y - points).square().sum(1)
        weights = torch.softmax(-squares / (2 * h**2), 0)
        k = int(weights.argmax())
        if weights[k] < 0.5:
            continue
        held += 1
        mean = weights @ points
        gaps = (squares - squares[k]) / (2 * h**2)
        to_mean = (mean - points).square().sum(1)
        rates = gaps + (to_mean - to_mean[k]) / (2 * h**2)
        others = torch.arange(20) != k
        assert -(torch.exp(-gaps) * rates)[others].sum() <= 1e-12
        shrinking += int((rates[others] < 0).any())
        step = 1e-6  # the formula against a step of the flow in tau = -ln h
        y_next, h_next = y + step * (mean - y), h * math.exp(-step)
        next_gaps = ((y_next - points).square().sum(1) - (y_next - points[k]).square().sum()) / (2 * h_next**2)
        torch.testing.assert_close((next_gaps - gaps) / step, rates, rtol=1e-3, atol=1e-3)
    assert held > 100 and shrinking > 0


def test_a_lock_that_holds_is_true() -> None:
    """Rows are moved at random after they locked; wherever the lock still holds, the others weigh what is allowed."""
    g = torch.Generator().manual_seed(4)
    data = support(60, 8)
    field = fv.ExactField(data)
    course = courses.LockingCourse(field, field._query(data[:40].clone(), 0.0, None), torch.Size([40, 8]), Walk(
        "euler", 10, False))  # fmt: skip
    locks: Locks = course._locks
    t0 = 0.75
    x = fv.CondOT().sample(torch.randn(40, 8, generator=g, dtype=torch.float64), data[:40], t0).xt
    course(x, torch.full((40,), t0, dtype=torch.float64))
    held = refused = 0
    for t in (0.75, 0.8, 0.9, 0.95):
        for noise in (0.0, 1e-3, 0.05, 0.3):
            time = torch.full((40,), t, dtype=torch.float64)
            alpha, sigma, *_ = field.rates(time)
            shrunk = (x - t0 * locks.points) * ((1 - t) / (1 - t0)) + t * locks.points
            moved = shrunk + noise * torch.randn(40, 8, generator=g, dtype=torch.float64)
            holds = locks.hold(moved, alpha, sigma)
            found = field.posterior(moved[holds], t)
            assert torch.equal(found.top_index, locks.index[holds])
            assert (1 - found.top_weight < 1e-14).all()
            held, refused = held + int(holds.sum()), refused + int((~holds).sum())
    assert held > 50 and refused > 50


def test_gradients_take_the_generic_way() -> None:
    x0 = start(3, 40).requires_grad_()
    end = fv.solve(fv.ExactField(support(10, 40)), x0, steps=5, t1=0.5, method="euler").x
    (gradient,) = torch.autograd.grad(end.sum(), x0)
    (expected,) = torch.autograd.grad(
        fv.solve(Plain(fv.ExactField(support(10, 40))), x0, steps=5, t1=0.5, method="euler").x.sum(), x0
    )
    torch.testing.assert_close(gradient, expected)


def test_values_that_are_not_finite_are_found() -> None:
    field = fv.ExactField(support(20, 60))
    with pytest.raises(ValueError, match="x0 must be finite"):
        fv.solve(field, torch.full((2, 60), math.nan, dtype=torch.float64), steps=5, method="euler")


@pytest.mark.usefixtures("locking")
def test_rows_are_let_go_early_where_the_end_alone_matters() -> None:
    """Before the others weigh nothing, and yet each ends where step by step it ends; Heun's stages never decide."""
    field, x0 = fv.ExactField(support(40, 12)), start(64, 12)
    course = field.trajectory(x0, None, Walk("euler", 40, True))
    assert isinstance(course, courses.LockingCourse)
    x, undecided_weight = x0, []
    for step in range(39):
        t = torch.full((64,), step / 40, dtype=torch.float64)
        before = course._locks._decided.clone()
        velocity = course(x, t)
        new = course._locks._decided & ~before
        undecided_weight += (1 - field.posterior(x[new], step / 40).top_weight).tolist() if new.any() else []
        x = x + velocity / 40
    assert len(undecided_weight) == 64 and sum(weight > 1e-6 for weight in undecided_weight) > 16
    end = fv.solve(Plain(field), x0, steps=40, method="euler").x
    torch.testing.assert_close(field.take(course._locks.index), end, rtol=1e-12, atol=1e-12)
    other = field.trajectory(x0, None, Walk("heun", 80, True))
    assert isinstance(other, courses.LockingCourse) and not other._decides
