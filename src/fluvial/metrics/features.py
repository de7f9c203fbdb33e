"""Features of a small classifier, in which distance is closer to difference in meaning than it is in pixels.

The classifier is trained on the training split alone with a fixed seed, so that a score is reproducible from
the data. It is no substitute for published extractors: its scores compare only with its own.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.checks import require_seed
from fluvial.kinds import checked
from fluvial.metrics.matrix import TILE_BYTES, Samples, as_matrix, tiles

HIDDEN = (128, 64)
BATCH = 200
UPDATES = 1000
EPOCHS = 10

Labels = Int[Tensor, " _"] | Int[np.ndarray, " _"]


@dataclass(frozen=True)
class ClassifierFeatures:
    """Penultimate ReLU activations of a perceptron that was trained to classify, d-128-64-classes.

    Calling it on (n, ...) data gives (n, 64) features in float64.

    Args:
        weights: Matrix of every layer, first to last, shapes (d, 128), (128, 64), (64, classes), float64.
        biases: Bias of every layer.
        classes: The labels that the outputs stand for, in order.

    Example:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> features = fv.metrics.ClassifierFeatures.fit(x, (x[:, 0] > 0).long())
        >>> features(x).shape, features.accuracy(x, (x[:, 0] > 0).long()) > 0.95
        (torch.Size([200, 64]), True)
    """

    weights: tuple[Float[Tensor, "_ _"], ...]
    biases: tuple[Float[Tensor, " _"], ...]
    classes: Int[Tensor, " _"]

    @classmethod
    @checked
    def fit(cls, x: Samples, labels: Labels, *, seed: int = 0) -> "ClassifierFeatures":
        """Train on data of about unit scale: Adam, float32, on the CPU, 1,000 updates and at least 10 epochs.

        On one thread 60,000 images of 28x28 take about 10 seconds.

        Args:
            x: Training data, shape (n, ...).
            labels: Their classes, shape (n,), integers; two classes or more.
            seed: Seed of the initial weights and of the order of the batches.

        Raises:
            ValueError: If labels and rows differ in number, there is a single class, or x is not finite.

        Example:
            >>> x = torch.tensor([[-1.0], [1.0]]).repeat(20, 1)
            >>> fv.metrics.ClassifierFeatures.fit(x, torch.tensor([3, 7]).repeat(20)).classes
            tensor([3, 7])
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
        from threadpoolctl import threadpool_limits

        rows = as_matrix(x, "x", minimum=2)
        target = _labels(labels, len(rows))
        if bool((target == target[0]).all()):
            raise ValueError(f"labels must hold at least 2 classes, got only {int(target[0])}")
        batch = min(BATCH, len(rows))
        epochs = max(EPOCHS, math.ceil(UPDATES / math.ceil(len(rows) / batch)))
        require_seed(seed)
        model = MLPClassifier(HIDDEN, batch_size=batch, max_iter=epochs, random_state=seed, tol=0.0)
        # products of this size are quicker on one thread, and then do not depend on how many there are
        with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
            # the number of updates is fixed on purpose: stopping there is not a failure to converge
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows.float().cpu().numpy(), target.numpy())
        weights = [torch.as_tensor(weight).double() for weight in model.coefs_]
        biases = [torch.as_tensor(bias).double() for bias in model.intercepts_]
        if weights[-1].shape[1] == 1:  # two classes share one logistic output: give the first the logit 0
            weights[-1] = torch.nn.functional.pad(weights[-1], (1, 0))
            biases[-1] = torch.nn.functional.pad(biases[-1], (1, 0))
        return cls(tuple(weights), tuple(biases), torch.as_tensor(model.classes_))

    def __call__(self, x: Samples) -> Float[Tensor, "n k"]:
        """Features of ``x``, shape (n, ...), as (n, 64) non-negative numbers in float64 on the CPU.

        Raises:
            ValueError: If a row of ``x`` has another size than the training data's, or x is not finite.
        """
        rows = as_matrix(x, "x").cpu()
        size = len(self.weights[0])
        if rows.shape[1] != size:
            raise ValueError(f"x must have {size} values per row, as in training, got {rows.shape[1]}")
        return torch.cat([self._hidden(rows[tile].double()) for tile in tiles(len(rows), size, TILE_BYTES)])

    def _hidden(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            rows = torch.addmm(bias, rows, weight).relu_()
        return rows

    def accuracy(self, x: Samples, labels: Labels) -> float:
        """Share of the rows of ``x``, shape (n, ...), whose most likely class is their label, in [0, 1].

        Raises:
            ValueError: If labels and rows differ in number, or as for a call.
        """
        target = _labels(labels, len(x))
        logits = torch.addmm(self.biases[-1], self(x), self.weights[-1])
        return float((self.classes[logits.argmax(1)] == target).double().mean())


def _labels(labels: Labels, rows: int) -> Int[Tensor, " n"]:
    target = torch.as_tensor(labels).cpu().long()
    if target.shape != (rows,):
        raise ValueError(f"labels must have one entry for each of the {rows} rows, got shape {tuple(target.shape)}")
    return target
