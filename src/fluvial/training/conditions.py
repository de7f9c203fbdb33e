"""Where the conditions of training rows come from: their labels, embeddings of their captions, or others of their
class."""

import hashlib
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.conditions import Condition, Embedding, Tokens
from fluvial.data import Dataset
from fluvial.data.homes import expanded
from fluvial.metrics.neighbours import k_nearest
from fluvial.randomness import draw_rows
from fluvial.training.config import TrainConfig

_NEAR = 4  # neighbours that a reference is drawn among, for each reference


@runtime_checkable
class ConditionSource(Protocol):
    """Gives the conditions of training rows: ``source(index, labels, generator=g)``."""

    def __call__(self, index: Tensor, labels: Tensor | None, /, *, generator: torch.Generator) -> Condition: ...


class Labels:
    """Each row's own label."""

    def __call__(self, index: Tensor, labels: Tensor | None, /, *, generator: torch.Generator) -> Condition:
        """Labels ``(B,)``."""
        if labels is None:
            raise ValueError("labels needs data with labels, got none")
        return labels


class Vectors:
    """Each row's own vector, such as its caption's embedding.

    Args:
        values: One vector for each training datum, shape ``(N, e)``.
    """

    def __init__(self, values: Float[Tensor, "N e"]) -> None:
        self.values = values

    def __call__(self, index: Tensor, labels: Tensor | None, /, *, generator: torch.Generator) -> Condition:
        """Embeddings ``(B, e)``, all present."""
        return Embedding.of(self.values[index])


class References:
    """Other data of each row's class, drawn without replacement; never the row itself.

    Drawn from the whole class, references tell a net hardly more than the class, and it has only so many classes to
    learn from. Drawn from the nearest, every datum is a class of its own, and the net must look at what it is shown.

    Source: Casanova et al. 2021, "Instance-Conditioned GAN", for conditioning on neighbours.

    Args:
        train: Training data with labels.
        size: How many; of smaller classes, all others.
        near: Draw them among this many nearest in the class, in Euclidean distance; None for the whole class.

    Raises:
        ValueError: If the data have no labels, or no class has two members.

    Example:
        >>> data = fv.Dataset(torch.arange(6.0), [0, 0, 0, 1, 1, 1])
        >>> found = References(data, 2)(torch.tensor([0]), data.labels[:1], generator=torch.Generator())
        >>> found.value.flatten().sort().values
        tensor([1., 2.])
    """

    def __init__(self, train: Dataset, size: int, near: int | None = None) -> None:
        if train.labels is None:
            raise ValueError(f"reference_size needs data with labels, and {train.name} has none")
        labels = train.labels
        self._train, self._size, self._labels = train, size, labels
        self._order = torch.argsort(labels, stable=True)  # rows by class
        counts = torch.bincount(labels)
        self._counts, self._starts = counts, counts.cumsum(0) - counts
        self._place = torch.empty_like(labels)  # of each row within its class
        self._place[self._order] = torch.arange(len(labels)) - self._starts[labels[self._order]]
        if not bool((counts > 1).any()):
            raise ValueError(f"reference_size needs a class with two data or more, and {train.name} has none")
        self._near = None if near is None else _nearest_in_class(train, labels, near)

    def __call__(self, index: Tensor, labels: Tensor | None, /, *, generator: torch.Generator) -> Condition:
        """Tokens ``(B, size, *D)``; those that a small class lacks are absent."""
        rows, mask = self.rows(index, generator)
        values, _ = self._train.take(rows.flatten())
        return Tokens(values.reshape(*rows.shape, *self._train.shape), mask)

    def rows(self, index: Int[Tensor, "B"], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of the references, ``(B, size)``, and which of them are there."""
        if self._near is not None:
            return self._near_rows(self._near[index], generator)
        classes = self._labels[index]
        count, start = self._counts[classes], self._starts[classes]
        draws = draw_rows(
            lambda count, g: torch.rand(count, self._size, generator=g, dtype=torch.float64), len(index), generator
        )
        taken = self._place[index][:, None]  # sorted places that are no longer free
        found = []
        for k in range(self._size):
            place = (draws[:, k] * (count - 1 - k).clamp(min=1)).long()
            for earlier in taken.unbind(1):
                place = place + (place >= earlier)
            found.append(place)
            taken = torch.cat([taken, place[:, None]], 1).sort(1).values
        places = torch.stack(found, 1)
        mask = torch.arange(self._size) < (count - 1)[:, None]
        return self._order[start[:, None] + torch.where(mask, places, 0)], mask

    def _near_rows(self, near: Int[Tensor, "B k"], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Some of each row's neighbours, where -1 is none; those that are there come first."""
        drawn = draw_rows(lambda count, g: torch.rand(count, near.shape[1], generator=g), len(near), generator)
        draws = drawn + (near < 0)
        rows = near.gather(1, draws.argsort(1)[:, : self._size])
        rows = torch.nn.functional.pad(rows, (0, self._size - rows.shape[1]), value=-1)
        return rows.clamp(min=0), rows >= 0


def _nearest_in_class(train: Dataset, labels: Int[Tensor, "N"], near: int) -> Int[Tensor, "N k"]:
    """Rows of the nearest others of each row's class, -1 where the class has no more."""
    found = torch.full((len(labels), near), -1)
    for label in labels.unique():
        rows = torch.nonzero(labels == label).flatten()
        count = min(near, len(rows) - 1)
        if count:
            x = train.take(rows)[0].flatten(1)
            found[rows, :count] = rows[k_nearest(x, x, count, exclude_self=True).indices]
    return found


def condition_source(config: TrainConfig, train: Dataset, vectors: Tensor | None = None) -> ConditionSource | None:
    """Where the conditions of a config come from; None for an unconditional net.

    Args:
        config: The config.
        train: Training data.
        vectors: Embeddings of the captions of the training data.
    """
    if config.labels:
        return Labels()
    if config.reference_size is not None:
        near = _NEAR * config.reference_size if config.reference_near is None else config.reference_near
        return References(train, config.reference_size, near or None)
    return None if vectors is None else Vectors(vectors)


def caption_vectors(config: TrainConfig, train: Dataset) -> Tensor | None:
    """Embeddings of the captions of the training data, shape (N, e); None if the config names no captions.

    Raises:
        ValueError: If captions do not match the images.
        ImportError: If there is no encoder.
    """
    if not config.captions:
        return None
    from fluvial.data.captions import read_captions
    from fluvial.data.text import embed_sentences

    folder = expanded(config.data.partition(":")[2])
    captions = read_captions(expanded(config.captions), folder)
    found = embed_sentences([captions[row] for row in train.rows.tolist()], config.encoder)
    return torch.from_numpy(found)


def vectors_hash(vectors: Tensor | None) -> str | None:
    """SHA-256, in hexadecimal, of embeddings, so that a run continues with the same ones."""
    return None if vectors is None else hashlib.sha256(vectors.numpy().tobytes()).hexdigest()
