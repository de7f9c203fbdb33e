"""The error that a posterior states is never below the one it has, whichever way it was computed."""

import pytest
import torch

import fluvial as fv
from fluvial.smoothing import Support, engine, error_bound
from fluvial.smoothing.query import Moments, Query
from names import steady
from smoothing.direct import FLOATS, PIXELS, data_of, direct, generator, in_data_units, noisy

Stages = dict[str, int]
KINDS = [*FLOATS, *(f"pixels {kind}" for kind in PIXELS)]
TIMES = (0.0, 0.02, 0.3, 0.6, 0.9, 0.99, 0.9999, 1 - 1e-6, 1.0)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    """How many rows each stage has settled."""
    settled: Stages = {}

    def count(name: str) -> None:
        stage = getattr(engine, name)

        def counted(*given: object, **named: object) -> object:
            found = stage(*given, **named)
            done = found[1].sum().item() if isinstance(found, tuple) else len(found.top_index)
            way = getattr(given[0], "name", "")
            last = getattr(given[-1], "name", "")
            key = " ".join(part for part in (name.removesuffix("_moments"), way or last) if part)
            settled[key] = settled.get(key, 0) + int(done)
            return found

        monkeypatch.setattr(engine, name, counted)

    for name in ("screened_moments", "narrowed_moments", "dense_moments"):
        count(name)
    return settled


def require_bound(
    field: fv.ExactField, support: torch.Tensor, x: torch.Tensor, t: torch.Tensor, tol: float, **rest: torch.Tensor
) -> torch.Tensor:
    """The stated error, after a comparison with the direct sum."""
    found, truth = field.posterior(x, t, rest.get("cond")), direct(support, x, t, field.path, rest.get("prior"))
    error = (found.mean.double().flatten(1) - truth.mean).norm(dim=1)
    size = in_data_units(support).norm(dim=1).max()
    assert found.error.dtype == torch.float64
    assert bool((error <= found.error + 1e-14 * size).all()), (error, found.error)
    sigma, alpha = (part(t.double()).expand(len(x)) for part in (field.path.sigma, field.path.alpha))
    noise = alpha * error / sigma / x[0].numel() ** 0.5
    # Rounding of the mean itself is the data's roundoff over sigma; that of exponents is held to 1.5e-4.
    allowed = tol + 3e-4 + 4 * torch.finfo(x.dtype).eps * alpha * size / sigma
    assert bool(((noise <= allowed) | (sigma == 0)).all()), (noise, allowed)
    return found.error


@pytest.mark.parametrize("tol", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_stays_below_its_bound(kind: str, tol: float) -> None:
    """Small supports: two products, what rounding unsettles, distances."""
    support = data_of(kind, 150, 48)
    scale = {"huge": 1e8, "tiny": 1e-12}.get(kind, 1.0)
    field = fv.ExactField(support, tol=tol)
    for t in TIMES:
        x, times = noisy(support, t, 6, size=scale)
        for dtype in (torch.float32, torch.float64):
            require_bound(field, support, x.to(dtype), times.to(dtype), tol)


@pytest.mark.parametrize("tol", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("kind", ["normal", "duplicates", "near", "pixels random", "pixels flat"])
def test_the_error_stays_below_its_bound_where_screening_is_taken(kind: str, tol: float, stages: Stages) -> None:
    support = data_of(kind, 2304, 256)
    field = fv.ExactField(support, tol=tol)
    for t in (0.0, 0.2, 0.35, 0.5, 0.7, 0.95, 0.999, 1 - 1e-6, 1.0):
        x, times = noisy(support, t, 4)
        require_bound(field, support, x.float(), times.float(), tol)
    require_bound(field, support, x, times, tol)
    coarse = engine.coarse_precision(Support(support), Query(x.float(), times, times)).name if tol else "NATIVE"
    assert stages.get(f"screened {coarse}", 0) > 0, stages
    assert stages.get("dense PRODUCT", 0) > 0, stages
    if tol and kind not in ("duplicates",):
        assert "narrowed" in stages, stages


def test_every_stage_is_taken_somewhere(stages: Stages) -> None:
    """If the choice of ways changes, the tests of this file may no longer be about what they say."""
    support = data_of("normal", 2304, 256)
    for tol in (0.0, 1e-3):
        field = fv.ExactField(support, tol=tol)
        for t in torch.linspace(0, 1, 21).tolist():
            x, times = noisy(support, t, 4)
            field.posterior(x.float(), times.float())
    late = data_of("constant", 300, 64)
    x, times = noisy(late, 1 - 1e-4, 16)
    fv.ExactField(late).posterior(x.float(), times.float())
    x, times = noisy(late[:1].repeat(300, 1) + 1e-4 * late, 1 - 1e-3, 16)
    fv.ExactField(late[:1].repeat(300, 1) + 1e-4 * late).posterior(x.float(), times.float())
    fv.ExactField(late[:2].repeat(100, 1)).posterior(late[:3] + 0.01, torch.ones(3))
    coarse = engine.coarse_precision(Support(support), Query(x.float(), times, times)).name
    for stage in (f"screened {coarse}", "narrowed", "dense PRODUCT", "screened NATIVE", "dense DISTANCE"):
        assert stages.get(stage, 0) > 0, (stage, stages)


@pytest.mark.parametrize("path", [fv.VP(), fv.Cosine(), fv.CondOT(0.02)], ids=steady)
@pytest.mark.parametrize("tol", [0.0, 1e-3])
def test_the_bound_holds_on_every_path_with_times_of_their_own(path: fv.GaussianPath, tol: float) -> None:
    for kind in ("normal", "pixels flat"):
        support = data_of(kind, 2304, 256)
        parts = [noisy(support, t, 2, path) for t in (0.0, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999, 1 - 1e-6, 1.0)]
        x, times = (torch.cat(column) for column in zip(*parts, strict=True))
        require_bound(fv.ExactField(support, path, tol=tol), support, x.float(), times.float(), tol)


@pytest.mark.parametrize(("level", "of_a_class"), [(0.0, 0.0), (-1e7, 0.0), (0.0, -1e7)])
@pytest.mark.parametrize("tol", [0.0, 1e-3])
@pytest.mark.parametrize(("n", "d"), [(150, 48), (2304, 256)])
def test_the_bound_holds_under_priors_and_labels(n: int, d: int, tol: float, level: float, of_a_class: float) -> None:
    """Priors are unnormalised: a constant of any size changes nothing, be it of all points or of a class."""
    g, support, labels = generator(5), data_of("normal", n, d), torch.arange(n) // (n // 3)
    prior = 5 * torch.randn(n, generator=g, dtype=torch.float64) + level
    prior[::7] = -torch.inf
    prior[labels == 1] += of_a_class
    cond = torch.tensor([0, 1, 2, -1, 0, 1])
    inside = torch.where((labels == cond[:, None]) | (cond < 0)[:, None], 0.0, -torch.inf).double()
    rows = prior + torch.randn(6, n, generator=g, dtype=torch.float64)
    for t in (0.05, 0.5, 0.9, 0.9999, 1.0) if n < 2048 else (0.35, 0.9, 1.0):
        x, times = noisy(support, t, 6)
        x, times = x.float(), times.float()
        require_bound(fv.ExactField(support, tol=tol, log_prior=prior), support, x, times, tol, prior=prior)
        require_bound(fv.ExactField(support, tol=tol), support, x, times, tol, prior=rows, cond=rows)
        both = fv.ExactField(support, tol=tol, log_prior=prior, labels=labels)
        require_bound(both, support, x, times, tol, prior=prior + inside, cond=cond)
        if t < 1:
            truth = direct(support, x, times, both.path, prior + inside)
            total = torch.logsumexp(prior + inside, 1) + 0.5 * d * torch.log(2 * torch.pi * (1 - times.double()) ** 2)
            density = both.posterior(x.double(), times.double(), cond).log_density
            torch.testing.assert_close(density, truth.log_kernel - total, rtol=1e-7, atol=1e-5 + tol)


@pytest.mark.parametrize("d", [256, 3072])
@pytest.mark.parametrize("step", [1e-4, 1e-5])
def test_images_of_one_colour_find_their_nearest(d: int, step: float) -> None:
    """Sums of equal terms round the same way each time: two hundred times what is usual, which once passed for sure."""
    support = data_of("constant", 500, d)
    x, times = noisy(support, 1 - step, 24, seed=3)
    close = torch.arange(24) % 500
    middle = times[:, None] * 0.5 * (support[close] + support[close + 1]) + 0.1 * step * torch.randn(
        24, d, generator=generator(4)
    )
    for rows in (x, middle):
        require_bound(fv.ExactField(support), support, rows.float(), times.float(), 0.0)


@pytest.mark.parametrize(("spread", "offset"), [(0.1, 1000.0), (1.0, 100.0), (1e-3, 1.0)])
def test_the_bound_knows_the_rounding_of_data_far_from_the_origin(spread: float, offset: float) -> None:
    support = (spread * torch.randn(200, 16, generator=generator(0)) + offset).float()
    for t in (0.1, 0.5, 0.9):
        x, times = noisy(support, t, 16, size=spread)
        require_bound(fv.ExactField(support), support, x.float(), times.float(), 0.0)


def test_at_the_end_a_clear_winner_is_certain() -> None:
    """Not merely true, but of use: the bound is that of rounding where nothing else is near."""
    for n in (100, 2304):
        support = data_of("normal", n, 64)
        found = fv.ExactField(support).posterior(support[:8] + 0.01, torch.ones(()))
        assert found.top_index.tolist() == list(range(8))
        assert bool((found.error < 1e-5).all()), found.error


def test_error_bound_of_an_uncertain_order_is_not_small() -> None:
    """An exponent's error beyond what separates two points makes either possible."""
    support = Support(torch.tensor([[0.0], [2.0]]))
    one = torch.ones(1, dtype=torch.float64)

    def bound(runner_up: float, slack: float, omitted: float = 0.0) -> float:
        index, none = torch.zeros(1, dtype=torch.int64), 0 * one
        found = Moments(index, torch.zeros(1, 1), one, none, index, one, none, one, runner_up * one, one, slack * one,
                        omitted * one)  # fmt: skip
        return float(error_bound(support, found))

    assert bound(-1000.0, 501.0) >= 2.0
    assert bound(-1000.0, 400.0) < 1e-5
    assert bound(-40.0, 1e-12) < 1e-5
    assert bound(-torch.inf, 1e30) < 1e-5
    assert bound(-torch.inf, 0.0, 0.25) >= 2 * 0.25 / 1.25
