import warnings

import numpy as np
import pytest
import torch

from fluvial.metrics import ClassifierFeatures, features, frechet_distance

Digits = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def classifier(digits: Digits) -> ClassifierFeatures:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no ConvergenceWarning may escape
        return ClassifierFeatures.fit(torch.from_numpy(digits[0]), torch.from_numpy(digits[2]))


def test_recognises_held_out_digits(classifier: ClassifierFeatures, digits: Digits) -> None:
    assert classifier.accuracy(digits[1], digits[3]) >= 0.96
    assert classifier.accuracy(digits[0], digits[2]) >= 0.99
    shuffled = np.random.default_rng(0).permutation(digits[3])
    assert classifier.accuracy(digits[1], shuffled) < 0.2


def test_shape_is_64_128_64_10_and_features_are_the_penultimate_relu(
    classifier: ClassifierFeatures, digits: Digits
) -> None:
    assert [tuple(w.shape) for w in classifier.weights] == [(64, 128), (128, 64), (64, 10)]
    x = digits[1].reshape(360, 64).astype(np.float64)
    for weight, bias in zip(classifier.weights[:2], classifier.biases[:2], strict=True):
        x = np.maximum(x @ weight.numpy() + bias.numpy(), 0)
    found = classifier(digits[1])
    assert found.shape == (360, 64) and found.dtype == torch.float64
    np.testing.assert_allclose(found, x, atol=1e-12)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training for ten epochs only, where how well it went does not matter."""
    monkeypatch.setattr(features, "UPDATES", 1)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("classes", [2, 10])
def test_predicts_as_the_classifier_it_came_from(digits: Digits, classes: int) -> None:
    """The forward pass here and scikit-learn's own agree, for two classes as for ten."""
    from sklearn.neural_network import MLPClassifier

    keep = digits[2] < classes
    x, y = digits[0][keep].reshape(keep.sum(), 64), digits[2][keep]
    ours = ClassifierFeatures.fit(x, y, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MLPClassifier((128, 64), batch_size=200, max_iter=10, random_state=3, tol=0.0).fit(x, y)
    noise = np.random.default_rng(0).normal(size=(360, 64)).astype(np.float32)
    noisy = digits[1].reshape(360, 64) + noise
    assert ours.accuracy(noisy, theirs.predict(noisy)) >= 0.997  # float32 there, float64 here


@pytest.mark.usefixtures("brief")
def test_seed_fixes_the_weights() -> None:
    x, y = torch.randn(60, 3), torch.arange(60) % 3
    one, two, other = (ClassifierFeatures.fit(x, y, seed=s) for s in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.weights, two.weights, strict=True))
    assert not torch.equal(one.weights[0], other.weights[0])


def test_frechet_distance_in_features_sees_noise(classifier: ClassifierFeatures, digits: Digits) -> None:
    rng = np.random.default_rng(0)
    reference = classifier(digits[1])
    noisy = [digits[0] + s * rng.normal(size=digits[0].shape) for s in (0, 0.2, 0.4, 0.8)]
    scores = [frechet_distance(classifier(x), reference) for x in noisy]
    assert scores == sorted(scores)


def test_labels_may_be_any_integers() -> None:
    x = torch.tensor([[-1.0], [1.0]]).repeat(30, 1)
    fitted = ClassifierFeatures.fit(x, torch.tensor([-5, 40]).repeat(30))
    assert fitted.classes.tolist() == [-5, 40]
    assert fitted.accuracy(x, torch.tensor([-5, 40]).repeat(30)) == 1


def test_bad_input(classifier: ClassifierFeatures) -> None:
    x = torch.randn(10, 4)
    with pytest.raises(ValueError, match=r"one entry for each of the 10 rows, got shape \(9,\)"):
        ClassifierFeatures.fit(x, torch.arange(9))
    with pytest.raises(ValueError, match="at least 2 classes, got only 7"):
        ClassifierFeatures.fit(x, torch.full((10,), 7))
    with pytest.raises(ValueError, match="x must be finite"):
        ClassifierFeatures.fit(x / 0, torch.arange(10))
    with pytest.raises(ValueError, match="x must have at least 2 rows, got 1"):
        ClassifierFeatures.fit(x[:1], torch.arange(1))
    with pytest.raises(ValueError, match="x must have 64 values per row, as in training, got 4"):
        classifier(x)
