"""From the name of an extractor to the extractor."""

import difflib
from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.extractors.base import Extractor
from fluvial.metrics.extractors.cache import FeatureCache
from fluvial.metrics.extractors.classifier import Classifier
from fluvial.metrics.extractors.pixels import Pixels
from fluvial.metrics.features import Labels

EXTRACTORS = ("pixels", "classifier", "efficientnet-lite0", "inception", "dinov2")
"""Their names: the data themselves, a classifier trained on them, and three nets trained on photographs."""


@checked
def load_extractor(
    name: str,
    *,
    train: Float[Tensor, "N ..."] | None = None,
    labels: Labels | None = None,
    held_out: tuple[Float[Tensor, "M ..."], Labels] | None = None,
    weights: str | Path | None = None,
    cache: FeatureCache | None = None,
) -> Extractor:
    """The extractor of a name, ready to be called.

    Args:
        name: ``pixels`` (of points and tables: their raw values), ``classifier``, ``efficientnet-lite0`` (extra
            ``metrics``), ``inception`` (Inception-v3 of the Fréchet Inception Distance) or ``dinov2``.
        train: Training data, shape (N, *D); what ``classifier`` is trained on. They also say whether data are images:
            shape (N, 1 or 3, H, W) in [-1, 1]. Without them, data are taken for images.
        labels: Classes of the training data, shape (N,), for ``classifier``.
        held_out: Data not trained on and their classes, for the accuracy of ``classifier`` that its protocol states.
        weights: File with the weights of ``inception`` or ``dinov2``; by default where their makers' tools keep them.
        cache: Where a trained classifier is kept; None keeps none.

    Raises:
        ValueError: If the name is unknown (the nearest valid one is named), what it needs is missing, or weights do
            not fit.
        ImportError: If the package that an extractor comes from is not installed.

    Example:
        >>> load_extractor("pixels").name, load_extractor("pixels", train=torch.zeros(5, 2)).name
        ('pixels', 'raw values')
    """
    if name not in EXTRACTORS:
        near = difflib.get_close_matches(name, EXTRACTORS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(EXTRACTORS)}"
        raise ValueError(f"unknown extractor {name!r}: {hint}")
    if weights is not None and name not in _NETS:
        raise ValueError(f"weights are for {' and '.join(_NETS)}, the extractor is {name!r}")
    if train is not None and train.numel() == 0:
        raise ValueError(f"train must hold data, got shape {tuple(train.shape)}")
    images = train is None or _are_images(train)
    if name == "pixels":
        return Pixels(images)
    if name == "classifier":
        if train is None or labels is None:
            missing = "labels" if train is not None else "training data and labels"
            raise ValueError(f"extractor 'classifier' is trained on the training data's labels, there are no {missing}")
        return Classifier.fit(train, labels, images=images, held_out=held_out, cache=cache)
    if not images:
        raise ValueError(f"extractor {name!r} takes images; for points and tables there are 'pixels' and 'classifier'")
    if name == "efficientnet-lite0":
        from fluvial.metrics.extractors.efficientnet import EfficientNetLite0

        return EfficientNetLite0.load()
    return _NETS[name](None if weights is None else Path(weights))


def _inception(weights: Path | None) -> Extractor:
    from fluvial.metrics.extractors.inception import Inception

    return Inception.load(weights)


def _dinov2(weights: Path | None) -> Extractor:
    from fluvial.metrics.extractors.dinov2 import DINOv2

    return DINOv2.load(weights)


_NETS: dict[str, Callable[[Path | None], Extractor]] = {"inception": _inception, "dinov2": _dinov2}


def _are_images(x: Float[Tensor, "N ..."]) -> bool:
    return x.ndim == 4 and x.shape[1] in (1, 3) and float(x.abs().amax()) <= 1
