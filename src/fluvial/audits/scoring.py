"""How good samples are: their distance from held-out and from training data, and how much of them they reach.

A distance between two finite sets is above zero for samples of the very same distribution. So real data stand in the
samples' place once, at the same sample size: what they score is what can be reached. A model may score better than
that against the data that it was trained on, which is why a score against those alone says little.

Source: Heusel et al. 2017 (Fréchet distance); Bińkowski et al. 2018 (kernel distance, KID); Kynkäänniemi et al. 2019
(precision, recall); Naeem et al. 2020 (density, coverage); Bertrand et al. 2025, "On the Closed-Form of Flow
Matching", figure 2 (distances to held-out data alone miss models that memorise).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fluvial.audits.draws import check_rows
from fluvial.audits.finding import Finding
from fluvial.audits.quality_scores import NEIGHBOUR, Meter, Sets, measure
from fluvial.audits.quality_view import quality_finding
from fluvial.kinds import checked
from fluvial.metrics.extractors import Custom, Extractor, FeatureCache
from fluvial.progress import ProgressCallback

SMALLEST = NEIGHBOUR + 1
"""Fewest rows of a set: a ball reaches to the fifth neighbour."""


@checked
def quality(
    samples: Float[Tensor, "n ..."],
    train: Float[Tensor, "N ..."],
    held_out: Float[Tensor, "M ..."] | None = None,
    *,
    extractors: Sequence[Extractor | Callable[[Tensor], Tensor]],
    provenance: Mapping[str, str] | None = None,
    cache: FeatureCache | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Finding:
    """Fréchet and kernel distance, precision, recall, density and coverage, against held-out and training data.

    Training and held-out data are compared at equal numbers of rows, drawn at random, so that their scores can be
    held against each other; the Fréchet distance to all training data, which publications state, is given beside them
    unless its features are costly.

    Args:
        samples: Generated samples, shape (n, *D), n >= 6; images are in [-1, 1].
        train: Training data, shape (N, *D), N >= 6, or 12 without held-out data.
        held_out: Data of the same source that were not trained on, shape (M, *D), M >= 6; None if there are none.
        extractors: Features to compare in, as of :func:`fluvial.metrics.extractors.load_extractor`, or functions.
        provenance: What to record beside every score: solver, EMA, checkpoint.
        cache: Where costly features are kept; None keeps none.
        seed: Of the choice of rows, and of the groups that intervals come from.
        progress: Called as parts are done.

    Returns:
        A finding whose ``data["extractors"][name]`` holds ``scores``, a dictionary by comparison: ``held_out``,
        ``train`` and ``train_all`` (samples against these), ``reference`` (real data in the samples' place). Each has
        ``frechet``, ``frechet_interval`` (95 %), ``frechet_limit`` (without the bias of the sample size), ``kernel``,
        ``kernel_standard_error``, ``precision``, ``recall``, ``density``, ``coverage``, each None where it is not
        measured, the numbers of rows ``n`` and ``m``, and how it was made. ``frechet_ratio`` is the distance to
        held-out data (training data, where there are none) over that of real data in the samples' place: 1 at best.

    Raises:
        TypeError: If a set holds no floating point numbers.
        ValueError: If sets are too small or differ in shape, are not finite, samples look like grey levels 0 to 255,
            or there is no extractor or two of the same name.

    Example:
        >>> from fluvial.metrics.extractors import load_extractor
        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> found = quality(x[:100], x[100:200], x[200:], extractors=[load_extractor("pixels", train=x)])
        >>> 0.3 < found.data["extractors"]["raw values"]["frechet_ratio"] < 3
        True
    """
    named = _named(extractors)
    _check(samples, train, held_out)
    sets = Sets.of(samples, train, held_out, seed)
    meter = Meter.of(progress, tuple(named.values()), held_out is not None)
    made_by = dict(provenance or {})
    data: dict[str, Any] = {
        "n": len(samples),
        "train": len(train),
        "held_out": 0 if held_out is None else len(held_out),
        "k": NEIGHBOUR,
        "seed": seed,
        "provenance": made_by,
        "extractors": {name: measure(each, sets, made_by, cache, seed, meter) for name, each in named.items()},
    }
    return quality_finding(data, _notes(samples, train))


def _named(extractors: Sequence[Extractor | Callable[[Tensor], Tensor]]) -> dict[str, Extractor]:
    """Extractors by their names, functions among them made into ones."""
    if isinstance(extractors, str) or not extractors:
        raise ValueError(f"extractors must be a list of one or more extractors, got {extractors!r}")
    named: dict[str, Extractor] = {}
    for given in extractors:
        if not callable(given):
            raise TypeError(f"extractors must be extractors (load_extractor(name)) or functions, got {given!r}")
        plain = not hasattr(given, "describe")
        each: Any = Custom(given, getattr(given, "__name__", type(given).__name__)) if plain else given
        if each.name in named:
            raise ValueError(f"extractors must have different names, got {each.name!r} twice")
        named[each.name] = each
    return named


def _check(samples: Tensor, train: Tensor, held_out: Tensor | None) -> None:
    check_rows("samples", samples, minimum=SMALLEST)
    check_rows("train", train, minimum=SMALLEST if held_out is not None else 2 * SMALLEST)
    others = {"samples": samples}
    if held_out is not None:
        check_rows("held_out", held_out, minimum=SMALLEST)
        others["held_out"] = held_out
    for name, values in others.items():
        if values.shape[1:] != train.shape[1:]:
            shapes = tuple(values.shape[1:]), tuple(train.shape[1:])
            raise ValueError(f"{name} must have rows of the same shape as train, got {shapes[0]} and {shapes[1]}")
    low, high = _range(samples)
    if _range(train) == (-1, 1) and low >= 0 and high > 2:
        raise ValueError(
            f"samples must be in [-1, 1] as train is, got values from {low:g} to {high:g}, which look like grey levels "
            "0 to 255: convert them by fv.data.from_uint8"
        )


def _range(x: Tensor) -> tuple[float, float]:
    low, high = x.aminmax()
    return float(low), float(high)


def _notes(samples: Tensor, train: Tensor) -> list[str]:
    """What the range of the samples says."""
    if _range(train) != (-1, 1):
        return []
    low, high = _range(samples)
    if low >= 0 and high <= 1:
        return [
            f"All samples lie in [{low:.3g}, {high:.3g}] and the training data in [-1, 1]: if the samples are held in "
            "[0, 1], convert them by 2 x - 1 first."
        ]
    clipped = float((samples.abs() > 1 + 1 / 255).double().mean())
    if clipped > 0.01:
        return [f"{clipped:.0%} of the samples' values lie outside of [-1, 1]; extractors of images clip them."]
    return []
