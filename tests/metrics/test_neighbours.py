import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from fluvial.metrics import nearest_neighbour_ratio, nearest_neighbours, neighbours


def brute(queries: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = [x.reshape(len(x), -1).astype(np.float64) for x in (queries, reference)]
    found = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(flat[1]).kneighbors(flat[0])
    return found[0][:, 0], found[1][:, 0]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of few rows, so that small sets take many."""
    monkeypatch.setattr(neighbours, "TILE_BYTES", 8 * 1024)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_agrees_with_sklearn(dtype: str, offset: float) -> None:
    rng = np.random.default_rng(0)
    queries = (rng.normal(size=(70, 3, 5)) + offset).astype(dtype)
    reference = (rng.normal(size=(900, 3, 5)) + offset).astype(dtype)
    distance, index = brute(queries, reference)
    found = nearest_neighbours(queries, reference)
    np.testing.assert_array_equal(found.index, index)
    # scikit-learn's own product form, about the origin, keeps fewer digits off centre than ours
    np.testing.assert_allclose(found.distance, distance, rtol=1e-6 if offset == 0 else 1e-4)
    direct = np.linalg.norm((queries - reference[index]).astype(np.float64).reshape(70, -1), axis=1)
    np.testing.assert_allclose(found.distance, direct, rtol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.usefixtures("narrow")
def test_distances_to_near_duplicates_are_exact_off_centre() -> None:
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(400, 20)) + 1e3
    queries = reference[:50] + 1e-7 * rng.normal(size=(50, 20))
    found = nearest_neighbours(queries, reference)
    np.testing.assert_array_equal(found.index, np.arange(50))
    np.testing.assert_allclose(found.distance, np.linalg.norm(queries - reference[:50], axis=1), rtol=1e-12)


def test_a_large_offset_costs_no_digits() -> None:
    """At an offset of 1e8 the squares are 1e17 and float64 rounds them by 16: products must be centred."""
    rng = np.random.default_rng(2)
    reference, queries = rng.normal(size=(300, 10)) + 1e8, rng.normal(size=(40, 10)) + 1e8
    direct = np.linalg.norm(queries[:, None] - reference, axis=2)
    found = nearest_neighbours(queries, reference)
    np.testing.assert_array_equal(found.index, direct.argmin(1))
    np.testing.assert_allclose(found.distance, direct.min(1), rtol=1e-12)


def test_ranks_twins_closer_together_than_the_product_form_can_tell() -> None:
    """Reference points 1e-9 to 3e-9 from the query: squares 1e-18 apart under products of 1e4."""
    query = torch.zeros(1, 3, dtype=torch.float64)
    query[0, 0] = 100
    far = torch.tensor([[-100.0, 0, 0], [-100.0, 1, 0]], dtype=torch.float64)
    twins = query + torch.tensor([[0, 2e-9, 0], [0, 1e-9, 0], [0, 0, 3e-9]], dtype=torch.float64)
    found = nearest_neighbours(query, torch.cat([far, twins]))
    assert found.index.item() == 3 and found.distance.item() == pytest.approx(1e-9, rel=1e-12)


def test_copies_are_at_distance_zero(digits: tuple[np.ndarray, ...]) -> None:
    train = digits[0]
    found = nearest_neighbours(train[100:200], train)
    assert found.distance.max().item() == 0
    np.testing.assert_array_equal(found.index, np.arange(100, 200))


@pytest.mark.usefixtures("narrow")
@given(n=st.integers(2, 40), d=st.integers(1, 4), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_excluding_self_is_the_second_neighbour(n: int, d: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d))
    distances, _ = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(x).kneighbors(x)
    found = nearest_neighbours(x, x, exclude_self=True)
    np.testing.assert_allclose(found.distance, distances[:, 1], rtol=1e-6)
    assert not (found.index == torch.arange(n)).any()


@pytest.mark.usefixtures("narrow")
def test_excluding_self_across_many_tiles() -> None:
    x = np.random.default_rng(0).normal(size=(1000, 6))
    distances, indices = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(x).kneighbors(x)
    found = nearest_neighbours(x, x, exclude_self=True)
    np.testing.assert_array_equal(found.index, indices[:, 1])
    np.testing.assert_allclose(found.distance, distances[:, 1], rtol=1e-6)


def test_ratio_is_zero_for_copies_and_one_for_held_out_data(digits: tuple[np.ndarray, ...]) -> None:
    train, held_out = digits[:2]
    assert nearest_neighbour_ratio(train[:300], train, held_out) == 0
    assert nearest_neighbour_ratio(held_out, train, held_out) == 1
    halves = nearest_neighbour_ratio(held_out[::2], train, held_out[1::2])
    assert 0.9 < halves < 1.1


def test_ratio_grows_with_noise(digits: tuple[np.ndarray, ...]) -> None:
    train, held_out = digits[:2]
    rng = np.random.default_rng(0)
    copies = [train[:300] + s * rng.normal(size=(300, 1, 8, 8)) for s in (0, 0.05, 0.1, 0.3)]
    ratios = [nearest_neighbour_ratio(x, train, held_out) for x in copies]
    assert ratios == sorted(ratios) and ratios[2] < 0.5 < ratios[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(0, 2), torch.zeros(4, 2)), "queries must have at least 1 row, got 0"),
        ((torch.zeros(3, 2), torch.zeros(4, 3)), "same number of features, got 2 and 3"),
        ((torch.zeros(3, 2), torch.full((4, 2), torch.nan)), "reference must be finite"),
        ((torch.zeros(1, 2), torch.zeros(1, 2), True), "got 1 queries and 1 reference rows"),
        ((torch.zeros(3, 2), torch.zeros(4, 2), True), "got 3 queries and 4 reference rows"),
    ],
)
def test_bad_input(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(*arguments[:2], exclude_self=len(arguments) == 3)


def test_ratio_names_what_is_wrong() -> None:
    x = torch.randn(5, 2)
    with pytest.raises(ValueError, match="held_out must differ from train"):
        nearest_neighbour_ratio(x, x, x[:3])
    with pytest.raises(ValueError, match="held_out and train must have the same number of features"):
        nearest_neighbour_ratio(x, x, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="samples must be finite, got NaN or infinity in 1 of 2 rows"):
        nearest_neighbour_ratio(torch.tensor([[0.0, torch.nan], [0, 0]]), x, x + 1)
