import numpy as np
import pytest
import torch

from fluvial.metrics import CLASSIFIERS, classifier_two_sample


def ring(rng: np.random.Generator, n: int) -> np.ndarray:
    """A circle with the mean and the covariance of a standard Gaussian."""
    return np.sqrt(2) * (v := rng.normal(size=(n, 2))) / np.linalg.norm(v, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_one_half_on_equal_distributions(kind: str) -> None:
    rng = np.random.default_rng(0)
    scores = [classifier_two_sample(*rng.normal(size=(2, 100, 3)), kind, seed=k) for k in range(4)]
    assert abs(np.mean(scores) - 0.5) < 3 * 0.5 / np.sqrt(200 * len(scores)) * 1.3


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_one_on_separate_sets(kind: str) -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 80, 3))
    assert classifier_two_sample(a, b + 20, kind) == 1


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_only_the_linear_one_is_blind_to_shape(kind: str) -> None:
    """A ring and a Gaussian of equal mean and covariance."""
    rng = np.random.default_rng(2)
    score = classifier_two_sample(ring(rng, 250), rng.normal(size=(250, 2)), kind)
    assert score < 0.58 if kind == "linear" else score > 0.7


def test_a_shift_gives_the_accuracy_of_the_best_classifier() -> None:
    """Gaussians a distance of 2 apart: the best accuracy is Phi(1) = .841."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 1500, 2))
    assert classifier_two_sample(a, b + np.array([2, 0]), "linear") == pytest.approx(0.8413, abs=3 * 0.366 / 3000**0.5)


def test_unequal_sizes_do_not_move_chance() -> None:
    rng = np.random.default_rng(4)
    scores = [classifier_two_sample(rng.normal(size=(300, 2)), rng.normal(size=(60, 2)), seed=k) for k in range(10)]
    assert abs(np.mean(scores) - 0.5) < 0.06


def test_units_change_nothing_and_the_seed_decides() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 60, 2))
    scale = np.array([1.0, 1024.0])
    for kind in ("linear", "knn"):
        assert classifier_two_sample(a * scale, b * scale, kind) == classifier_two_sample(a, b, kind)
    assert classifier_two_sample(a, b, "mlp", seed=3) == classifier_two_sample(a, b, "mlp", seed=3)
    assert len({classifier_two_sample(a, b, "knn", seed=seed) for seed in range(5)}) > 1


def test_bad_input() -> None:
    a = torch.zeros(10, 2)
    with pytest.raises(ValueError, match="kind must be one of linear, knn, mlp, got 'mpl'; did you mean 'mlp'"):
        classifier_two_sample(a, a, "mpl")
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        classifier_two_sample(a, a, folds=1)
    with pytest.raises(ValueError, match="b must have at least 5 rows, got 4"):
        classifier_two_sample(a, a[:4])
    with pytest.raises(ValueError, match="a must be finite"):
        classifier_two_sample(a * torch.nan, a)
