"""The figures of :func:`fluvial.audits.quality` in one kind of features: which rows meet which, and their scores."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.metrics.extractors import Extractor, FeatureCache, extract_features
from fluvial.metrics.frechet_sampling import frechet_estimate, frechet_extrapolation
from fluvial.metrics.kernel import kernel_distance
from fluvial.metrics.manifolds import Manifold, compare_manifolds
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator

NEIGHBOUR = 5
"""Neighbour that the balls of precision, recall, density and coverage reach to."""

LARGEST = 10_000
"""Rows of a set of which balls are made; of larger ones, so many at random."""

PARTS = (1, 2, 4)
"""Divisors of the sample size at which the Fréchet distance is extrapolated."""

NOT_OF_ALL = ("kernel", "kernel_standard_error", "precision", "recall", "density", "coverage")
"""Scores that are not taken of all training data: they have no bias of the size, or depend on it altogether."""

SPLITS = {
    "held_out": "samples against held-out data",
    "train": "samples against training data",
    "train_all": "samples against all training data",
    "reference": "real data in the samples' place",
}
"""What is compared, by key."""


@dataclass(frozen=True)
class Sets:
    """The data, and which rows of them are compared.

    Args:
        samples: Generated samples, shape (n, *D).
        train: All training data, shape (N, *D).
        held_out: As many held-out data as training data are compared, or None.
        order: Of the samples, random.
        rows: Training data that samples are compared with.
        real: Training data that stand in the samples' place.
    """

    samples: Float[Tensor, "n ..."]
    train: Float[Tensor, "N ..."]
    held_out: Float[Tensor, "m ..."] | None
    order: Int[Tensor, " n"]
    rows: Int[Tensor, " m"]
    real: Int[Tensor, " r"]

    @classmethod
    def of(cls, samples: Tensor, train: Tensor, held_out: Tensor | None, seed: int) -> "Sets":
        """Chooses rows at random; without held-out data, halves of the training data stand for both sides."""
        order = torch.randperm(len(samples), generator=generator(seed, 0))
        shuffled = torch.randperm(len(train), generator=generator(seed, 1))
        if held_out is None:
            half = len(train) // 2
            return cls(samples, train, None, order, shuffled[:half], shuffled[half:][: len(samples)])
        size = min(len(train), len(held_out))
        chosen = torch.randperm(len(held_out), generator=generator(seed, 2))[:size].to(held_out.device)
        return cls(samples, train, held_out[chosen], order, shuffled[:size], shuffled[: len(samples)])


class Meter:
    """Progress over stages of unequal length; stages report their own progress into it."""

    def __init__(self, progress: ProgressCallback | None, total: float) -> None:
        self._progress, self._total, self._done = progress, total, 0.0

    @classmethod
    def of(cls, progress: ProgressCallback | None, extractors: Sequence[Extractor], held_out: bool) -> "Meter":
        """For all that :func:`measure` does with these extractors."""
        return cls(progress, sum(_features_cost(each) + (11.0 if held_out else 9.0) for each in extractors))

    @contextmanager
    def stage(self, part: str, cost: float) -> Iterator[ProgressCallback]:
        """A stage of a given length relative to the others; what it yields takes the stage's own reports."""

        def report(fraction: float) -> None:
            if self._progress is not None:
                done = min(1.0, (self._done + cost * min(fraction, 1.0)) / self._total)
                self._progress(Progress("quality", round(1000 * done), 1000, part=part))

        yield lambda inner: report(inner.fraction)
        report(1.0)
        self._done += cost


def measure(
    extractor: Extractor,
    sets: Sets,
    provenance: Mapping[str, str],
    cache: FeatureCache | None,
    seed: int,
    meter: Meter,
) -> dict[str, Any]:
    """All scores in the features of one extractor, as plain values."""
    with meter.stage(f"features {extractor.name}", _features_cost(extractor)) as report:
        features = _features(extractor, sets, cache, report)
    goal = "held_out" if "held_out" in features else "train"
    pairs = {"train": ("samples", "train"), "reference": ("real", goal)}
    if goal == "held_out":
        pairs = {"held_out": ("samples", "held_out"), **pairs}
    with meter.stage(f"neighbours, {extractor.name}", 3.0):
        balls = {name: _balls(x) for name, x in features.items() if name != "train_all"}
    protocol = dict(extractor.describe())
    made = {"extractor": extractor.name, "extractor_hash": extractor.hash, **protocol, "made_by": dict(provenance)}
    scores: dict[str, dict[str, Any]] = {}
    for key, (left, right) in pairs.items():
        with meter.stage(f"{SPLITS[key]}, {extractor.name}", 3.0 if key in (goal, "reference") else 2.0):
            a, b = features[left], features[right]
            scores[key] = {
                **_frechet(a, b, seed, extrapolate=key in (goal, "reference")),
                **_kernel(a, b, seed),
                **asdict(compare_manifolds(balls[left], balls[right])),
                **{"split": SPLITS[key], "n": len(a), "m": len(b), **made},
            }
    if "train_all" in features:
        a, b = features["samples"], features["train_all"]
        split = {"split": SPLITS["train_all"], "n": len(a), "m": len(b), **made}
        scores["train_all"] = {**_frechet(a, b, seed), **dict.fromkeys(NOT_OF_ALL), **split}
    reached = scores["reference"]["frechet"]
    return {
        "hash": extractor.hash,
        "protocol": protocol,
        "features": features["samples"].shape[1],
        "goal": goal,
        "scores": scores,
        "frechet_ratio": scores[goal]["frechet"] / reached if reached > 0 else None,
        "constant": bool((features["train"] == features["train"][0]).all()),
        "without_extent": float((balls[goal].square_radii == 0).double().mean()),
    }


def _features_cost(extractor: Extractor) -> float:
    return 30.0 if getattr(extractor, "costly", True) else 2.0


def _features(
    extractor: Extractor, sets: Sets, cache: FeatureCache | None, progress: ProgressCallback
) -> dict[str, Float[Tensor, "_ k"]]:
    """Features by the name of the set; of all training data only where they are cheap, or needed anyway."""
    costly = getattr(extractor, "costly", True)
    used = torch.cat([sets.rows, sets.real]).unique() if costly else torch.arange(len(sets.train))
    todo = {"samples": sets.samples, "train": sets.train[used.to(sets.train.device)] if costly else sets.train}
    if sets.held_out is not None:
        todo["held_out"] = sets.held_out
    total, done = sum(map(len, todo.values())), 0
    found: dict[str, Float[Tensor, "_ k"]] = {}
    for name, x in todo.items():
        share, before = len(x) / total, done / total

        def part(report: Progress, share: float = share, before: float = before) -> None:
            progress(Progress("features", round(1e6 * (before + share * report.fraction)), 1_000_000))

        found[name] = extract_features(extractor, x, cache=cache, progress=part)
        done += len(x)
    whole = found["train"]
    found["samples"] = found["samples"][sets.order]
    found["real"] = whole[torch.searchsorted(used, sets.real)]
    found["train"] = whole[torch.searchsorted(used, sets.rows)]
    if len(whole) == len(sets.train) > len(sets.rows):
        found["train_all"] = whole
    return found


def _balls(x: Float[Tensor, "n k"]) -> Manifold:
    """Balls of the first rows, which are in random order."""
    return Manifold.of(x[:LARGEST], NEIGHBOUR)


def _frechet(
    a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], seed: int, *, extrapolate: bool = False
) -> dict[str, Any]:
    found = frechet_estimate(a, b, seed=seed)
    scores: dict[str, Any] = {
        "frechet": found.value,
        "frechet_interval": [found.low, found.high],
        "frechet_limit": None,
    }
    if extrapolate and min(len(a), len(b)) // max(PARTS) > a.shape[1]:
        curve = frechet_extrapolation(a, b, parts=PARTS, seed=seed)
        scores["frechet_limit"] = curve.limit
        scores["frechet_curve"] = {"rows": list(curve.sizes), "frechet": list(curve.values)}
    return scores


def _kernel(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], seed: int) -> dict[str, float | None]:
    """KID from ten disjoint subsets, or fewer that have 25 rows; from all rows at once, where there are not two."""
    subsets = max(1, min(10, len(a) // 25, len(b) // 25))
    found = kernel_distance(a, b, subsets=subsets, seed=seed)
    return {"kernel": found.value, "kernel_standard_error": found.standard_error}
