"""k nearest neighbours against a brute force in float64, on data made to mislead products."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fluvial as fv
from fluvial.metrics import candidates, neighbours
from fluvial.metrics.candidates import Chunk, Frame, rounding
from fluvial.metrics.distinct import distinct_rows
from fluvial.metrics.neighbours import k_nearest
from fluvial.progress import Progress

REAL = Path(__file__).parents[2] / "data" / "fashion-mnist"
Kind = Callable[[np.random.Generator, int, int], np.ndarray]


def brute(queries: np.ndarray, reference: np.ndarray, k: int, *, exclude_self: bool = False) -> np.ndarray:
    """Distances, ascending, from differences in float64."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (queries, reference))
    distances = np.stack([np.sqrt(((row - b) ** 2).sum(1)) for row in a])
    if exclude_self:
        np.fill_diagonal(distances, np.inf)
    return np.sort(distances, 1)[:, :k]


def check(queries: np.ndarray, reference: np.ndarray, k: int, *, exclude_self: bool = False) -> None:
    """Distances are those of the brute force, indices are k different rows at just these distances."""
    found = k_nearest(queries, reference, k, exclude_self=exclude_self)
    np.testing.assert_allclose(found.distances, brute(queries, reference, k, exclude_self=exclude_self), rtol=1e-12)
    chosen = reference[found.indices.numpy()].astype(np.float64) - queries[:, None].astype(np.float64)
    away = np.sqrt((chosen.reshape(len(queries), k, -1) ** 2).sum(2))
    np.testing.assert_allclose(found.distances, away, rtol=1e-12)
    assert all(len(set(row)) == k for row in found.indices.tolist())
    if exclude_self:
        assert not (found.indices == torch.arange(len(queries))[:, None]).any()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks of the reference, many blocks of queries, many groups."""
    monkeypatch.setattr(neighbours, "_MOST_ROWS", 100)
    monkeypatch.setattr(neighbours, "TILE_BYTES", 8 * 1024)
    monkeypatch.setattr(candidates, "_PART", 17)


def normal(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.normal(size=(n, d))


def offset(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.normal(size=(n, d)) + 1e6


def clusters(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Far apart and so narrow that float32, and at times float64, cannot tell their points apart."""
    return rng.choice([-1e3, 0.0, 2e3], size=(n, 1)) + 10.0 ** rng.uniform(-9, -2) * rng.normal(size=(n, d))


def lattice(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Ties and equal rows without number."""
    return rng.integers(0, 2, size=(n, d)).astype(np.float64)


def pixels(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return (rng.integers(0, 256, size=(n, d)) / 127.5 - 1).astype(np.float32)


def heavy(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.standard_cauchy(size=(n, d)) ** 3


def tiny(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return 1e-42 * rng.normal(size=(n, d)) + 1e-41


def equal(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return np.repeat(rng.normal(size=(1, d)), n, 0)


KINDS = [normal, offset, clusters, lattice, pixels, heavy, tiny, equal]


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(2, 250), d=st.integers(1, 20), k=st.integers(1, 6), seed=st.integers(0, 2**31))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_agrees_with_brute_force(kind: Kind, n: int, d: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    both = kind(rng, n + 30, d)
    queries, reference = both[:30], both[30:]
    check(queries, reference, min(k, n))
    check(reference, reference, min(k, n - 1), exclude_self=True)


@pytest.mark.parametrize("kind", [normal, clusters, pixels, lattice])
def test_agrees_with_brute_force_in_one_piece(kind: Kind) -> None:
    both = kind(np.random.default_rng(0), 1900, 12)
    check(both[:400], both[400:], 4)
    check(both[:700], both[:700], 3, exclude_self=True)


def test_rows_that_float32_cannot_rank_are_ranked_by_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clusters 2,000 apart, each 1e-3 wide: float32 has an error of about 1 there."""
    rng = np.random.default_rng(0)
    x = 1e3 * rng.choice([-1.0, 1.0], size=(3000, 1)) + 1e-3 * rng.normal(size=(3000, 8))
    used = []
    scores = Chunk._scores
    monkeypatch.setattr(Chunk, "_scores", lambda self, v, dtype: used.append(dtype) or scores(self, v, dtype))
    check(x[:50], x[50:], 2)
    assert used == [torch.float32, torch.float64]


def test_rounding_stays_within_its_bound() -> None:
    """Of products in float32 and in float64, against exact sums of fractions."""
    from fractions import Fraction

    rng = np.random.default_rng(0)
    reference, queries = 1.0 + rng.normal(size=(40, 30)), rng.normal(size=(5, 30)) * 3
    frame = Frame.of(torch.from_numpy(queries), torch.from_numpy(reference))
    chunk = Chunk(torch.from_numpy(reference), 0, 1, frame)
    values = frame(torch.from_numpy(queries))
    centre = [Fraction(float(c)) for c in frame.centre]

    def exactly(rows: np.ndarray) -> list[list[Fraction]]:
        return [
            [(Fraction(float(v)) - c) / Fraction(frame.scale) for v, c in zip(r, centre, strict=True)] for r in rows
        ]

    a, b = exactly(queries), exactly(reference)
    exact = [[sum(y * y - 2 * x * y for x, y in zip(p, q, strict=True)) for q in b] for p in a]
    sizes = [[float(sum(v * v for v in row)) ** 0.5 for row in rows] for rows in (a, b)]
    product = np.outer(*sizes)
    bound = 2 * product + np.square(sizes[1])
    for dtype in (torch.float32, torch.float64):
        found = chunk._scores(values, dtype)[:, :40].double().numpy()
        pairs = zip(found.flatten().tolist(), [v for row in exact for v in row], strict=True)
        error = np.array([abs(float(Fraction(f) - e)) for f, e in pairs]).reshape(bound.shape)
        assert error.max() > 0 and (error <= rounding(30, dtype) * bound).all()


def test_accepts_other_precisions_and_shapes() -> None:
    x = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        low = x.to(dtype)
        check(low[:9].double().numpy(), low.double().numpy(), 3)
        torch.testing.assert_close(k_nearest(low[:9], low, 3).distances, k_nearest(low[:9].double(), low, 3).distances)


def test_equal_rows_come_in_their_order() -> None:
    x = torch.tensor([[1.0], [0.0], [1.0], [-0.0], [1.0]])
    assert k_nearest(torch.tensor([[0.1]]), x, 5).indices.tolist() == [[1, 3, 0, 2, 4]]
    found = k_nearest(x, x, 3, exclude_self=True)
    assert found.indices.tolist() == [[2, 4, 1], [3, 0, 2], [0, 4, 1], [1, 0, 2], [0, 2, 1]]
    assert found.distances.tolist() == [[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]]


def test_distinct_rows_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).integers(-1, 2, size=(300, 4)).astype(np.float32)
    _, first, inverse = np.unique(x, axis=0, return_index=True, return_inverse=True)
    found = distinct_rows(x)
    np.testing.assert_array_equal(found.first, np.sort(first))
    np.testing.assert_array_equal(found.first[found.inverse], first[inverse])
    np.testing.assert_array_equal(found.counts.sum(), 300)
    assert len(distinct_rows(torch.tensor([[0.0], [-0.0]])).first) == 1


def test_reports_progress() -> None:
    reports: list[Progress] = []
    x = torch.randn(300, 3)
    k_nearest(x, x, 2, progress=reports.append)
    assert reports[-1].step == reports[-1].total and [r.step for r in reports] == sorted(r.step for r in reports)


@pytest.mark.parametrize(
    ("k", "exclude_self", "message"),
    [
        (0, False, r"k must be in \[1, 4\], as reference has 4 rows, got 0"),
        (5, False, r"k must be in \[1, 4\], as reference has 4 rows, got 5"),
        (4, True, r"k must be in \[1, 3\], as reference has 3 rows without the query itself, got 4"),
    ],
)
def test_bad_k(k: int, exclude_self: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_nearest(torch.zeros(4, 2), torch.zeros(4, 2), k, exclude_self=exclude_self)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="run `make data` first")
def test_fashion_mnist_against_brute_force() -> None:
    data = fv.load_dataset(f"fashion-mnist:{REAL}")
    check(data.held_out.x[:60].numpy(), data.train.x.numpy(), 3)
