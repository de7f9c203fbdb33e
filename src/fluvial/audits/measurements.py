"""Each measurement made of a subject: which of its parts it looks at, and with which budget."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fluvial.audits.collapsing import collapse
from fluvial.audits.finding import Finding
from fluvial.audits.gap import approximation
from fluvial.audits.hybrids import hybrid
from fluvial.audits.memorizing import memorization
from fluvial.audits.scoring import quality
from fluvial.audits.stochastic import stochasticity
from fluvial.audits.subject import Subject
from fluvial.fields import collapse_time
from fluvial.fields.base import Field
from fluvial.metrics.extractors import Extractor, FeatureCache, default_cache, load_extractor
from fluvial.progress import ProgressCallback
from fluvial.randomness import generator

WEIGHTED = ("inception", "dinov2")
"""Extractors whose weights come from a file."""

Measure = Callable[[Subject, Mapping[str, Finding], ProgressCallback], Finding]


def _collapse(subject: Subject, _: Mapping[str, Finding], progress: ProgressCallback) -> Finding:
    points = subject.budget.pairs
    return collapse(subject.known, subject.path, points=points, seed=subject.seed, progress=progress)


def _stochasticity(subject: Subject, _: Mapping[str, Finding], progress: ProgressCallback) -> Finding:
    labels = subject.train.labels if subject.conditional else None
    return stochasticity(
        subject.known,
        subject.path,
        labels=None if labels is None else labels.to(subject.device),
        times=_times(subject.budget.times),
        pairs=subject.budget.pairs,
        shape_kind=subject.train.kind,
        seed=subject.seed,
        progress=progress,
    )


def _approximation(subject: Subject, _: Mapping[str, Finding], progress: ProgressCallback) -> Finding:
    fresh = subject.held_out
    conds = (subject.train.labels, None if fresh is None else fresh.labels)
    return approximation(
        *_fields(subject),
        subject.known,
        subject.fresh,
        times=_times(subject.budget.times),
        path=subject.path,
        draws=subject.budget.pairs,
        steps=subject.budget.steps,
        cond=conds if subject.conditional else None,
        reservation=subject.not_comparable,
        seed=subject.seed,
        progress=progress,
    )


def _hybrid(subject: Subject, found: Mapping[str, Finding], progress: ProgressCallback) -> Finding:
    budget = subject.budget
    known = found["collapse"].data.get("time") if "collapse" in found else None
    if known is None:
        known = collapse_time(subject.known, subject.path, points=budget.pairs, seed=subject.seed).time
    return hybrid(
        *_fields(subject),
        subject.known,
        held_out=subject.fresh,
        taus=budget.taus,
        collapse_time=known,
        n=budget.hybrids,
        steps=budget.steps,
        cond=_labels(subject, budget.hybrids),
        kind=subject.train.kind,
        reservation=subject.not_comparable,
        seed=subject.seed,
        progress=progress,
    )


def _memorization(subject: Subject, _: Mapping[str, Finding], progress: ProgressCallback) -> Finding:
    fresh = subject.held_out
    return memorization(
        _samples(subject),
        subject.train.x,
        None if fresh is None else fresh.x,
        kind=subject.train.kind,
        seed=subject.seed,
        progress=progress,
    )


def _quality(subject: Subject, _: Mapping[str, Finding], progress: ProgressCallback) -> Finding:
    fresh, train = subject.held_out, subject.train
    cache = default_cache()
    extractors = [_extractor(subject, each, cache) if isinstance(each, str) else each for each in subject.extractors]
    return quality(
        _samples(subject),
        train.x,
        None if fresh is None else fresh.x,
        extractors=extractors,
        provenance=subject.provenance,
        cache=cache,
        seed=subject.seed,
        progress=progress,
    )


def _extractor(subject: Subject, name: str, cache: FeatureCache) -> Extractor:
    train, fresh = subject.train, subject.held_out
    labelled = None if fresh is None or fresh.labels is None else (fresh.x, fresh.labels)
    weights = subject.weights if name in WEIGHTED else None
    return load_extractor(name, train=train.x, labels=train.labels, held_out=labelled, weights=weights, cache=cache)


MEASURE: dict[str, Measure] = {
    "collapse": _collapse,
    "stochasticity": _stochasticity,
    "approximation": _approximation,
    "hybrid": _hybrid,
    "memorization": _memorization,
    "quality": _quality,
}
"""All measurements, in the order in which they are made."""


def _times(count: int) -> list[float]:
    """That many times, evenly from 0 on and before 1."""
    return [step / count for step in range(count)]


def _fields(subject: Subject) -> tuple[Field, Field]:
    """The field, and the exact one of its target."""
    if subject.field is None or subject.exact is None:
        raise ValueError("it needs a field, and samples alone were given")
    return subject.field, subject.exact


def _samples(subject: Subject) -> Tensor:
    if subject.samples is None:
        raise ValueError("it needs samples, and none were drawn")
    return subject.samples


def _labels(subject: Subject, count: int) -> Any:
    """Conditions drawn from the training data, for a field that takes them."""
    labels = subject.train.labels
    if not subject.conditional or labels is None:
        return None
    rows = torch.randint(len(labels), (count,), generator=generator(subject.seed, 2))
    return labels[rows].to(subject.device)
