"""The smoothed field: limits that are the exact field, a direct sum in float64, bounds, landing, new points, bad
input."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fluvial as fv
from fluvial.data.toys import make_toy
from fluvial.fields import ExactField, SmoothedField, breakpoints, singular_at_end
from names import steady

PATHS = [fv.CondOT(), fv.CondOT(0.02), fv.VP(), fv.Cosine(), fv.Polynomial(2)]
TIMES = (0.0, 1e-6, 0.3, 0.7, 0.97, 1 - 1e-6)
SMALL_TILES = (8 * 3 * 5 * 2, 4)


def problem(n: int = 20, d: int = 3, rows: int = 7, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    support = torch.randn(n, d, generator=g, dtype=torch.float64)
    x = torch.randn(rows, d, generator=g, dtype=torch.float64)
    return support, x, torch.rand(rows, generator=g, dtype=torch.float64) * 0.9 + 0.05


def direct(field: SmoothedField, x: Tensor, t: Tensor, prior: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Denoiser by its definition, and the weight beyond the nearest data; ``(B, M, N, d)`` and all."""
    path, support, k = field.path, field.support, field.neighbours or len(field.support)
    alpha, sigma = (part[:, None, None] for part in (path.alpha(t), path.sigma(t)))
    offsets = field._offsets.flatten(1)
    z = x[:, None] + field.smoothing * (alpha + sigma) * offsets
    prior = torch.zeros(len(support), dtype=torch.float64) if prior is None else prior
    exponents = prior - (z[:, :, None] - alpha[..., None] * support).square().sum(3) / (2 * sigma**2)
    nearest = ((z @ support.T) - alpha / 2 * support.square().sum(1)).masked_fill(prior == -torch.inf, -torch.inf)
    hidden = torch.ones_like(exponents, dtype=torch.bool).scatter(2, nearest.topk(k, 2).indices, False)
    omitted = (torch.softmax(exponents, 2) * hidden).sum(2).mean(1)
    mean = (torch.softmax(exponents.masked_fill(hidden, -torch.inf), 2) @ support).mean(1)
    return mean, omitted


def velocity(path: fv.GaussianPath, mean: Tensor, x: Tensor, t: Tensor) -> Tensor:
    return path.convert(mean, x, t, source="denoiser", target="velocity")


@pytest.mark.parametrize("path", PATHS, ids=steady)
def test_without_smoothing_it_is_the_exact_field(path: fv.GaussianPath) -> None:
    support, x, t = problem()
    exact = ExactField(support, path)
    plain = SmoothedField(ExactField(support, path), smoothing=0.0)
    whole = SmoothedField(ExactField(support, path), smoothing=0.0, neighbours=20)
    for times in (*TIMES, t):
        time = torch.as_tensor(times, dtype=torch.float64)
        assert torch.equal(plain(x, time), exact(x, time))
        assert torch.equal(plain.divergence(x, time), exact.divergence(x, time))
        torch.testing.assert_close(whole(x, time), exact(x, time), rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(whole.divergence(x, time), exact.divergence(x, time), rtol=1e-8, atol=1e-9)
        assert not whole.omitted(x, time).any() and not plain.omitted(x, time).any()
    one = torch.tensor(1.0, dtype=torch.float64)
    for field in (plain, whole):
        torch.testing.assert_close(field.denoiser(x, one), exact.posterior(x, one).mean, rtol=1e-14, atol=0)


@pytest.mark.parametrize("path", PATHS, ids=steady)
@pytest.mark.parametrize("neighbours", [None, 1, 4, 20])
def test_it_is_its_definition_at_both_ends_of_time(path: fv.GaussianPath, neighbours: int | None) -> None:
    support, x, _ = problem()
    prior = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    prior[::5] = -torch.inf
    for log_prior in (None, prior):
        field = SmoothedField(ExactField(support, path, log_prior=log_prior), smoothing=0.4, neighbours=neighbours)
        for time in TIMES:
            t = torch.full((7,), time, dtype=torch.float64)
            mean, _ = direct(field, x, t, log_prior)
            torch.testing.assert_close(field.denoiser(x, t), mean, rtol=1e-9, atol=1e-9)
            found, truth = field(x, t), velocity(path, mean, x, t)
            assert (found - truth).norm() <= 1e-9 * max(1.0, float(truth.norm())), time


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 30),
    d=st.integers(1, 6),
    share=st.floats(0.01, 1.0),
    smoothing=st.floats(0.0, 3.0),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    offset=st.sampled_from([0.0, 100.0]),
)
def test_it_is_its_definition_on_any_data(
    seed: int, n: int, d: int, share: float, smoothing: float, scale: float, offset: float
) -> None:
    support, x, t = problem(n, d, 5, seed)
    support = scale * support + offset
    count = max(1, round(share * n))
    x = fv.CondOT().sample(x, support[torch.arange(5) % n], t).xt
    field = SmoothedField(
        ExactField(support), smoothing=smoothing * scale, neighbours=count, perturbations=4, seed=seed
    )
    mean, omitted = direct(field, x, t)
    torch.testing.assert_close(field.denoiser(x, t), mean, rtol=1e-9, atol=1e-9 * scale)
    assert (omitted <= field.omitted(x, t) + 1e-12).all()


def test_float32_keeps_the_digits_of_its_inputs() -> None:
    support, x, _ = problem()
    support, x = support.float(), x.float()
    for neighbours in (None, 5):
        field = SmoothedField(ExactField(support), smoothing=0.4, neighbours=neighbours)
        truth = SmoothedField(ExactField(support.double()), smoothing=0.4, neighbours=neighbours)
        for t in (0.0, 0.3, 0.9, 0.99):
            found, expected = field(x, t), truth(x.double(), t)
            assert found.dtype == torch.float32
            assert (found - expected).norm() / expected.norm() < 1e-4


def test_velocity_and_score_are_the_averages_of_the_exact_ones() -> None:
    support, x, t = problem()
    for path in PATHS:
        field = SmoothedField(ExactField(support, path), smoothing=0.3, perturbations=6)
        width = 0.3 * (path.alpha(t) + path.sigma(t))
        points = [x + width[:, None] * offset for offset in field._offsets]
        assert field._offsets.sum(0).abs().max() == 0
        torch.testing.assert_close(field(x, t), torch.stack([field.exact(z, t) for z in points]).mean(0))
        score = path.convert(field(x, t), x, t, target="score")
        torch.testing.assert_close(score, torch.stack([field.exact.score(z, t) for z in points]).mean(0))


def test_all_paths_share_one_smoothed_flow() -> None:
    support, y, t = problem()
    straight, cosine = fv.CondOT(), fv.Cosine()
    same = 2 / math.pi * torch.atan2(straight.alpha(t), straight.sigma(t))  # where the cosine path has that bandwidth
    found = []
    for path, time in ((straight, t), (cosine, same)):
        field = SmoothedField(ExactField(support, path), smoothing=0.5, neighbours=8)
        found.append(field.denoiser(path.alpha(time)[:, None] * y, time))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("path", PATHS, ids=steady)
@pytest.mark.parametrize("neighbours", [1, 2, 5, 19])
def test_the_nearest_data_are_within_the_bound_of_all_data(path: fv.GaussianPath, neighbours: int) -> None:
    support, x, _ = problem(rows=40)
    diameter = torch.cdist(support, support).max()
    whole = SmoothedField(ExactField(support, path), smoothing=0.3)
    field = SmoothedField(ExactField(support, path), smoothing=0.3, neighbours=neighbours)
    for time in TIMES:
        t = torch.full((40,), time, dtype=torch.float64)
        bound = field.omitted(x, t)
        assert (direct(field, x, t)[1] <= bound + 1e-12).all()
        assert (bound <= 1 - neighbours / 20 + 1e-12).all()
        gap = (field.denoiser(x, t) - whole.denoiser(x, t)).norm(dim=1)
        assert (gap <= bound * diameter + 1e-10).all()
        gain = path.wronskian(t) / path.sigma(t)
        assert ((field(x, t) - whole(x, t)).norm(dim=1) <= gain * (bound * diameter + 1e-10)).all()
    late = torch.tensor(0.97, dtype=torch.float64)
    if neighbours > 1 and path.bandwidth(late) < 0.1:
        assert field.omitted(x, late).median() < 1e-2  # where the bandwidth is small the bound says something


def test_derivatives_match_finite_differences_in_both_modes() -> None:
    support, x, t = problem(rows=3)
    for neighbours in (None, 6):
        field = SmoothedField(ExactField(support, fv.Cosine()), 0.3, neighbours=neighbours, perturbations=4)
        inputs = (x.clone().requires_grad_(), t.clone().requires_grad_())
        assert torch.autograd.gradcheck(lambda a, b, f=field: f(a, b), inputs, check_forward_ad=True)
        jacobian = torch.autograd.functional.jacobian(lambda z, f=field: f(z, t).sum(0), x)  # (d, B, d)
        trace = jacobian.diagonal(dim1=0, dim2=2).sum(1)
        torch.testing.assert_close(trace, field.divergence(x, t))


def test_conditions_restrict_the_data_row_by_row() -> None:
    support, x, t = problem()
    labels, cond = torch.arange(20) % 3, torch.tensor([2, 0, 1, -1, 0, 2, 2])
    prior = torch.randn(7, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    prior[:, ::4] = -torch.inf
    for neighbours in (None, 4, 9):  # a class has fewer than 9 data
        field = SmoothedField(ExactField(support, labels=labels), smoothing=0.3, neighbours=neighbours)
        together, bound = field(x, t, cond), field.omitted(x, t, cond)
        weighted, spread = field(x, t, prior), field.divergence(x, t, prior)
        for row, label in enumerate(cond.tolist()):
            one = slice(row, row + 1)
            data = support if label < 0 else support[labels == label]
            count = None if neighbours is None else min(neighbours, len(data))
            part = SmoothedField(ExactField(data), smoothing=0.3, neighbours=count)
            torch.testing.assert_close(together[one], part(x[one], t[one]))
            torch.testing.assert_close(bound[one], part.omitted(x[one], t[one]))
            seen = prior[row] > -torch.inf
            exact = ExactField(support[seen], log_prior=prior[row, seen])
            part = SmoothedField(exact, smoothing=0.3, neighbours=neighbours)
            torch.testing.assert_close(weighted[one], part(x[one], t[one]))
            torch.testing.assert_close(spread[one], part.divergence(x[one], t[one]))
        assert field(x[:0], t[:0], cond[:0]).shape == (0, 3)


def test_tiles_do_not_change_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    support, x, t = problem(40)
    prior = torch.randn(7, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    field = SmoothedField(ExactField(support), smoothing=0.4, neighbours=5, perturbations=6)
    dense = SmoothedField(ExactField(support), smoothing=0.4, perturbations=6)
    whole = [f(x, t, cond) for f in (field, dense) for cond in (None, prior)]
    monkeypatch.setattr("fluvial.fields.nearest._TILE_BYTES", SMALL_TILES[0])
    monkeypatch.setattr("fluvial.fields.nearest._LEAST_DATA", SMALL_TILES[1])
    monkeypatch.setattr("fluvial.fields.smoothed._ROWS", 14)
    for a, b in zip([f(x, t, cond) for f in (field, dense) for cond in (None, prior)], whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_perturbations_depend_on_the_seed_alone() -> None:
    support, x, t = problem()
    few, more, other = (
        SmoothedField(ExactField(support), smoothing=0.4, perturbations=m, seed=seed)
        for m, seed in ((4, 0), (8, 0), (4, 1))
    )
    assert torch.equal(few._offsets, more._offsets[:4])
    assert not torch.equal(few(x, t), other(x, t))
    again = SmoothedField(ExactField(support), smoothing=0.4, perturbations=4).to("cpu")
    assert torch.equal(few(x, t), again(x, t))
    torch.testing.assert_close(few(x, t)[2:3], few(x[2:3], t[2:3]))


def test_it_declares_what_the_exact_field_declares() -> None:
    support, x, _ = problem()
    field = SmoothedField(ExactField(support), smoothing=0.4, neighbours=3)
    assert singular_at_end(field) and not singular_at_end(SmoothedField(ExactField(support, fv.CondOT(0.1)), 0.4))
    assert isinstance(field.path, fv.CondOT) and breakpoints(field) == ()
    for operation in (field, field.divergence):
        with pytest.raises(ValueError, match="no value at t = 1, where sigma = 0"):
            operation(x, 1.0)


@pytest.mark.parametrize("neighbours", [None, 6])
@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "rk4", "dopri5"])
def test_every_solver_lands_on_means_of_few_data(method: str, neighbours: int | None) -> None:
    """A sample is a mean of M data, ties aside: M times it is a sum of data with whole numbers of times."""
    support, _, _ = problem(8, 4)
    x0 = torch.randn(32, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    field = SmoothedField(ExactField(support), smoothing=0.6, neighbours=neighbours, perturbations=4)
    steps = {"dopri5": None, "euler": 200}.get(method, 80)
    end = fv.solve(field, x0, method=method, steps=steps).x
    pairs = torch.combinations(torch.arange(8), 4, with_replacement=True)
    means = support[pairs].mean(1)
    assert torch.cdist(end, means).min(1).values.max() < 1e-3
    assert torch.cdist(end, support).min(1).values.max() > 0.1  # some are no data
    # and it is a fixed point: the mean of the data nearest to its own perturbations
    assert ((field.denoiser(end, 1.0) - end).norm(dim=1) < 1e-3).double().mean() > 0.9


def test_a_smoothing_without_bound_ends_on_means_of_far_data() -> None:
    """As the smoothing grows the nearest datum is that furthest along each perturbation, whatever the point."""
    support, x, _ = problem()
    field = SmoothedField(ExactField(support), smoothing=1e6)
    ends = support[(field._offsets @ support.T).argmax(1)].mean(0)
    torch.testing.assert_close(field.denoiser(x, 1.0), ends.expand(7, 3))


@pytest.mark.slow
def test_it_makes_new_points_nearer_to_held_out_data() -> None:
    """Two moons of 50 data: the exact field copies them; smoothed, it fills the gaps between them."""
    train, held_out = make_toy("moons", 0, 50).x.float(), make_toy("moons", 1, 1000).x.float()
    x0 = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    ends = [fv.solve(SmoothedField(ExactField(train), s), x0, method="heun", steps=50).x for s in (0, 0.1)]
    copied, new = (fv.metrics.nearest_neighbour_ratio(end, train, held_out) for end in ends)
    assert copied < 0.05 and 0.4 < new < 1.2
    missed = [fv.metrics.nearest_neighbours(held_out, end).distance.mean() for end in ends]
    assert missed[1] < 0.8 * missed[0]
    off = [fv.metrics.nearest_neighbours(end, held_out).distance.mean() for end in ends]
    assert off[1] < 1.2 * off[0]


def test_digits_are_new_and_inside_the_convex_hull_of_few() -> None:
    digits = fv.load_dataset("digits")
    train, held_out = digits.train.x, digits.held_out.x
    x0 = torch.randn(100, *digits.shape, generator=torch.Generator().manual_seed(0))
    field = SmoothedField(ExactField(train), smoothing=0.4, perturbations=4)
    end = fv.solve(field, x0, method="heun", steps=25).x
    plain = fv.solve(ExactField(train), x0, method="heun", steps=25).x
    assert fv.metrics.nearest_neighbour_ratio(plain, train, held_out) < 0.01
    assert 0.4 < fv.metrics.nearest_neighbour_ratio(end, train, held_out) < 1.0
    assert end.min() >= train.min() - 1e-4 and end.max() <= train.max() + 1e-4
    last = field.denoiser(end, 1.0)
    fixed = (last - end).flatten(1).norm(dim=1) < 1e-3
    nearest = [fv.metrics.nearest_neighbours(end + 0.4 * o.float(), train).index for o in field._offsets]
    torch.testing.assert_close(end[fixed], torch.stack([train[i] for i in nearest]).mean(0)[fixed], rtol=0, atol=1e-3)
    assert fixed.double().mean() > 0.7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda s: SmoothedField(ExactField(s), -0.1),
            "smoothing must be finite and not negative, got -0.1",
        ),
        (
            lambda s: SmoothedField(ExactField(s), math.nan),
            "smoothing must be finite and not negative, got nan",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1, neighbours=0),
            "integer from 1 to the 3 data, got 0",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1, neighbours=4),
            "integer from 1 to the 3 data, got 4",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1, perturbations=3),
            "even integer of at least 2, got 3",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1, perturbations=0),
            "even integer of at least 2, got 0",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1, seed=-1),
            "seed must be a non-negative integer, got -1",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1)(torch.zeros(2, 3), 0.5),
            r"x must have shape \(B, 2\)",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1)(s, 1.5),
            r"t must be in \[0, 1\], got values from 1.5",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1)(s.half(), 0.5),
            "x must be float32 or float64, got torch.float16",
        ),
        (
            lambda s: SmoothedField(ExactField(s), 1)(s, 0.5, torch.zeros(3).long()),
            "the support has none",
        ),
    ],
)
def test_bad_input(make: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(torch.eye(3)[:, :2])


def test_data_are_wrapped_in_an_exact_field_first() -> None:
    with pytest.raises(TypeError):
        SmoothedField(torch.eye(3), smoothing=1.0)


def test_pixels_and_files_are_data_too(tmp_path: Path) -> None:
    pixels = torch.randint(256, (30, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    truth = ExactField(pixels.float() / 127.5 - 1)
    x = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for data in (pixels, np.load(tmp_path / "pixels.npy", mmap_mode="r")):
        for neighbours in (None, 4):
            field = SmoothedField(ExactField(data), smoothing=0.3, neighbours=neighbours)
            expected = SmoothedField(truth, smoothing=0.3, neighbours=neighbours)(x, 0.8)
            torch.testing.assert_close(field(x, 0.8), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        (torch.tensor([0, 1, 7]), "label 7 has no point"),
        (torch.tensor([0, 1]), r"labels must have shape \(3,\), got \(2,\)"),
        (torch.zeros(3, 4), r"log-prior must have shape \(3, 3\), got \(3, 4\)"),
        (torch.full((3, 3), -math.inf), "below infinity and finite somewhere"),
    ],
)
@pytest.mark.parametrize("neighbours", [None, 2])
def test_bad_conditions(cond: Tensor, message: str, neighbours: int | None) -> None:
    data = torch.eye(3)[:, :2]
    exact = ExactField(data, labels=torch.tensor([0, 1, 1]))
    field = SmoothedField(exact, smoothing=0.5, neighbours=neighbours)
    with pytest.raises(ValueError, match=message):
        field(data, 0.5, cond)
