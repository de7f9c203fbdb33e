import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from fluvial.metrics.authentic import authenticity, local_ratios


def brute(samples: np.ndarray, train: np.ndarray) -> float:
    """The definition, sample by sample."""
    authentic = 0
    for g in samples:
        away = np.linalg.norm(train - g, axis=1)
        nearest = int(away.argmin())
        others = np.delete(train, nearest, 0)
        authentic += away[nearest] > np.linalg.norm(others - train[nearest], axis=1).min()
    return authentic / len(samples)


@given(n=st.integers(1, 40), m=st.integers(2, 40), d=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_is_the_definition(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, train = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    samples[: n // 4] = train[rng.integers(m, size=n // 4)]
    train[: m // 5] = train[rng.integers(m, size=m // 5)]  # doubles
    assert authenticity(samples, train) == brute(samples, train)


def test_ratios_are_those_of_all_pairs(digits: tuple[np.ndarray, ...]) -> None:
    train, held_out = (x.reshape(len(x), -1).astype(np.float64) for x in digits[:2])
    away, own = cdist(held_out, train), cdist(train, train)
    np.fill_diagonal(own, np.inf)
    expected = away.min(1) / own.min(1)[away.argmin(1)]
    np.testing.assert_allclose(local_ratios(held_out, train), expected, rtol=1e-6)


def test_copies_are_not_authentic_and_noise_is(digits: tuple[np.ndarray, ...]) -> None:
    train, held_out = digits[:2]
    assert authenticity(train[:100], train) == 0
    assert authenticity(np.random.default_rng(0).normal(size=(50, 1, 8, 8)), train) == 1
    assert 0.3 < authenticity(held_out, train) < 0.8


def test_a_double_hides_copies_as_the_definition_says() -> None:
    train = torch.tensor([[0.0], [0.0], [5.0], [9.0]])
    assert local_ratios(torch.tensor([[0.1], [0.0]]), train).tolist() == [torch.inf, 1.0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="train must have at least 2 rows, got 1"):
        authenticity(torch.zeros(3, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="same number of features"):
        authenticity(torch.zeros(3, 2), torch.zeros(4, 3))
