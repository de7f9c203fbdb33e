"""Features of a small classifier of the training data's own labels, trained on the spot and kept for the next time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.metrics.extractors.base import UINT8_RULE, quantised, settings_hash
from fluvial.metrics.extractors.cache import FeatureCache, content_hash
from fluvial.metrics.features import BATCH, EPOCHS, HIDDEN, UPDATES, ClassifierFeatures, Labels


@dataclass(frozen=True)
class Classifier:
    """Penultimate layer of a perceptron that was trained on the training split.

    Args:
        net: The trained classifier.
        images: Whether data are images, which are rounded to 256 grey levels first.
        held_out_accuracy: Share of held-out data that it classifies rightly, where there were any with labels.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]]).repeat(20, 1)
        >>> Classifier.fit(x, torch.arange(2).repeat(20), images=False)(x).shape
        torch.Size([40, 64])
    """

    net: ClassifierFeatures
    images: bool
    held_out_accuracy: float | None = None

    @classmethod
    def fit(
        cls,
        x: Float[Tensor, "n ..."],
        labels: Labels,
        *,
        images: bool,
        held_out: tuple[Float[Tensor, "M ..."], Labels] | None = None,
        seed: int = 0,
        cache: FeatureCache | None = None,
    ) -> "Classifier":
        """Trains the classifier, or takes it from the cache if the same was trained before.

        Args:
            x: Training data, shape (n, *D).
            labels: Their classes, shape (n,).
            images: Whether they are images in [-1, 1].
            held_out: Data that were not trained on, shape (M, *D), and their classes.
            seed: Of the training.
            cache: Where trained classifiers are kept; None keeps none.

        Raises:
            ValueError: As of :meth:`fluvial.metrics.ClassifierFeatures.fit`.
        """
        values = quantised(x) if images else x
        schedule = settings_hash("classifier", HIDDEN, BATCH, UPDATES, EPOCHS, images, seed)
        key = f"classifier-{schedule[:16]}-{content_hash(values, torch.as_tensor(labels))[:32]}" if cache else ""
        known = cache.load(key) if cache else None
        net = None if known is None else _unpacked(known)
        if net is None:
            net = ClassifierFeatures.fit(values, labels, seed=seed)
            if cache:
                cache.store(key, _packed(net))
        made = cls(net, images)
        return made if held_out is None else replace(made, held_out_accuracy=made.accuracy(*held_out))

    @property
    def costly(self) -> bool:
        """No: taking features is quick, and the trained classifier is kept instead."""
        return False

    @property
    def name(self) -> str:
        """``classifier``."""
        return "classifier"

    @property
    def hash(self) -> str:
        """SHA-256 of weights and settings."""
        return settings_hash(self._protocol(), content_hash(*self.net.weights, *self.net.biases, self.net.classes))

    def describe(self) -> Mapping[str, str]:
        """The protocol, and how well it classifies held-out data, which is the worth of its features."""
        if self.held_out_accuracy is None:
            return self._protocol()
        return {**self._protocol(), "accuracy": f"{self.held_out_accuracy:.1%} of held-out data"}

    def _protocol(self) -> dict[str, str]:
        hidden = "-".join(map(str, HIDDEN))
        return {
            "features": f"last hidden layer of a {hidden} perceptron trained on the training split's labels",
            "resize": "none",
            "range": "[-1, 1]" if self.images else "as the data",
            "uint8": UINT8_RULE if self.images else "none",
        }

    def accuracy(self, x: Float[Tensor, "n ..."], labels: Labels) -> float:
        """Share of data, shape (n, *D), whose most likely class is their label, in [0, 1]."""
        return self.net.accuracy(quantised(x) if self.images else x, labels)

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n k"]:
        """Activations, shape (n, 64), float64."""
        return self.net(quantised(x) if self.images else x)


def _packed(net: ClassifierFeatures) -> dict[str, Tensor]:
    layers = range(len(net.weights))
    weights = {f"weight{layer}": net.weights[layer] for layer in layers}
    return {**weights, **{f"bias{layer}": net.biases[layer] for layer in layers}, "classes": net.classes}


def _unpacked(tensors: Mapping[str, Tensor]) -> ClassifierFeatures | None:
    layers = range(len(HIDDEN) + 1)
    try:
        weights = tuple(tensors[f"weight{layer}"] for layer in layers)
        return ClassifierFeatures(weights, tuple(tensors[f"bias{layer}"] for layer in layers), tensors["classes"])
    except KeyError:
        return None
