"""The four figures are those of their definitions, ties and duplicates included, whatever the tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances

from fluvial.metrics import manifolds as module
from fluvial.metrics.manifolds import PRDC, Manifold, compare_manifolds, prdc
from fluvial.progress import Progress


def by_definition(samples: np.ndarray, reference: np.ndarray, k: int) -> PRDC:
    """Whole distance matrices in float64, as the authors of density and coverage define the figures."""

    def radii(x: np.ndarray) -> np.ndarray:
        return np.sort(((x[:, None] - x[None]) ** 2).sum(2), axis=1)[:, k]  # the first is the point itself

    gap = ((reference[:, None] - samples[None]) ** 2).sum(2)
    inside, reached = gap < radii(reference)[:, None], gap < radii(samples)[None]
    return PRDC(
        precision=inside.any(0).mean(),
        recall=reached.any(1).mean(),
        density=inside.sum(0).mean() / k,
        coverage=(gap.min(1) < radii(reference)).mean(),
    )


def figures(found: PRDC) -> np.ndarray:
    return np.array([found.precision, found.recall, found.density, found.coverage])


@given(
    n=st.integers(7, 60),
    m=st.integers(7, 60),
    d=st.integers(1, 40),
    k=st.integers(1, 6),
    offset=st.sampled_from([0.0, 1e4]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_brute_force(n: int, m: int, d: int, k: int, offset: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = scale * (rng.normal(size=(n, d)) * rng.uniform(0.5, 1.5) + rng.uniform(0, 1) + offset)
    reference = scale * (rng.normal(size=(m, d)) + offset)
    np.testing.assert_allclose(
        figures(prdc(samples, reference, k=k)), figures(by_definition(samples, reference, k)), atol=1e-6
    )


@given(seed=st.integers(0, 2**31), d=st.integers(1, 3), k=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_ties_and_duplicates_are_decided_exactly(seed: int, d: int, k: int) -> None:
    """Whole numbers have exact distances, many of them equal, many points the same."""
    rng = np.random.default_rng(seed)
    samples, reference = (rng.integers(0, 4, size=(size, d)).astype(float) for size in (50, 40))
    np.testing.assert_allclose(
        figures(prdc(samples, reference, k=k)), figures(by_definition(samples, reference, k)), atol=1e-12
    )


def test_agrees_with_scikit_learn_distances_on_digits(digits: tuple[np.ndarray, ...]) -> None:
    train, held_out = (x.reshape(len(x), -1).astype(float) for x in digits[:2])
    rng = np.random.default_rng(0)
    train, held_out = (x + 0.01 * rng.normal(size=x.shape) for x in (train, held_out))
    within, across = pairwise_distances(held_out), pairwise_distances(held_out, train)
    radius = np.sort(within, 1)[:, 5]
    found = prdc(train, held_out)
    assert found.precision == pytest.approx((across < radius[:, None]).any(0).mean(), abs=1e-6)
    assert found.density == pytest.approx((across < radius[:, None]).sum() / 5 / len(train), abs=1e-6)
    assert found.coverage == pytest.approx((across.min(1) < radius).mean(), abs=1e-6)


def test_copies_of_the_reference_fill_it(digits: tuple[np.ndarray, ...]) -> None:
    """Each ball holds its centre and, being open, the nearer four of five neighbours; few digits are tied."""
    x = digits[1]
    found = prdc(x, x.copy())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(1, abs=0.01)
    assert found == compare_manifolds(Manifold.of(x), Manifold.of(x))


def test_far_samples_and_missing_modes_show() -> None:
    rng = np.random.default_rng(0)
    two = rng.normal(size=(400, 2)) + np.repeat([[0, 0], [50, 0]], 200, axis=0)
    one = rng.normal(size=(400, 2))
    assert figures(prdc(one + 1000, two)).sum() == 0
    found = prdc(one, two)
    assert found.precision > 0.9 and 0.4 < found.recall < 0.51 and 0.4 < found.coverage < 0.51


def test_tiles_and_precision_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70, 9)).astype(np.float32), rng.normal(size=(50, 9)).astype(np.float32)
    whole = prdc(a, b)
    monkeypatch.setattr(module, "TILE_BYTES", 16 * 50 * 3)
    steps: list[Progress] = []
    assert prdc(a, b, progress=steps.append) == whole
    assert len([step for step in steps if step.task == "precision and recall"]) > 20 and steps[-1].fraction == 1
    monkeypatch.setattr(module, "FEATURES_IN_FLOAT32", 1)
    assert prdc(a, b) == whole == prdc(torch.from_numpy(a).double(), b)


def test_constant_data_have_no_balls() -> None:
    assert figures(prdc(torch.ones(20, 3), torch.ones(30, 3))).sum() == 0


@pytest.mark.parametrize(
    ("n", "m", "k", "message"),
    [
        (5, 9, 5, "samples must have more than k = 5 rows, got 5"),
        (9, 5, 5, "reference must have more than k = 5 rows, got 5"),
        (9, 9, 0, "k must be at least 1, got 0"),
    ],
)
def test_bad_input(n: int, m: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prdc(torch.randn(n, 2), torch.randn(m, 2), k=k)


def test_other_features_and_other_balls_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of features, got 2 and 3"):
        prdc(torch.randn(9, 2), torch.randn(9, 3))
    with pytest.raises(ValueError, match="balls of the same k, got 1 and 2"):
        compare_manifolds(Manifold.of(torch.randn(9, 2), 1), Manifold.of(torch.randn(9, 2), 2))
    with pytest.raises(ValueError, match="reference must be finite"):
        prdc(torch.randn(9, 2), torch.full((9, 2), torch.nan))
