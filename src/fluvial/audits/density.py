"""Log-densities of training and of held-out data under a learned field: their means, the gap, and the rarest data.

A model that has learned the distribution gives both the same density on average. One that has learned its data gives
them more than fresh data of the same source, and the gap between the two means says how much.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.audits.estimates import Estimate
from fluvial.data import Dataset, Standardization
from fluvial.densities import Trace, dequantized, in_original_units
from fluvial.fields.base import Field
from fluvial.levels import bits_per_dim
from fluvial.likelihood import LogProb, log_prob
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.solvers.sampling import Solver

TRAIN, HELD_OUT, OTHER = "train", "held-out", "data"
_CHOICE = 3  # second of four counters, beside those of fluvial.densities
_MAD = 1.4826  # standard deviations of a normal distribution to its median absolute deviation


@dataclass(frozen=True)
class Part:
    """Data to take the density of.

    Args:
        name: ``"train"``, ``"held-out"`` or ``"data"``.
        x: The data, shape ``(n, *D)``.
        index: Number of each datum in what was read, shape ``(n,)``.
        levels: Grey levels; None for data that have none.
        labels: Class of each datum, shape ``(n,)``, or None.
        class_names: Names of the classes.
    """

    name: str
    x: Float[Tensor, "n *D"]
    index: Int[Tensor, " n"]
    levels: int | None = None
    labels: Int[Tensor, " n"] | None = None
    class_names: tuple[str, ...] = ()


def choose(data: Dataset, n: int, name: str, seed: int = 0) -> Part:
    """At most ``n`` data, drawn without replacement; fewer are the first of more.

    Args:
        data: Where from.
        n: How many, at least 1.
        name: Name of the part.
        seed: Seed of the choice.

    Example:
        >>> data = fv.Dataset(torch.arange(10.0))
        >>> few, more = (choose(data, n, "train").index.tolist() for n in (3, 6))
        >>> few == more[:3]
        True
    """
    stream = (TRAIN, HELD_OUT, OTHER).index(name)
    rows = torch.randperm(len(data), generator=generator(seed, _CHOICE, stream, 0, 0))[:n]
    x, labels = data.take(rows)
    return Part(name, x, torch.from_numpy(data.rows)[rows], data.levels, labels, data.class_names)


@dataclass(frozen=True)
class Scored:
    """Data with their log-densities, in the order of their numbers.

    Args:
        part: The data.
        density: Log-densities in nats, of a table in its original units; bits per number.
        log_prob: Their mean.
        bits_per_dim: The mean of the bits; an upper bound where there are grey levels.
    """

    part: Part
    density: LogProb
    log_prob: Estimate
    bits_per_dim: Estimate

    @property
    def directions_error(self) -> float | None:
        """Standard error of the mean log-density by the random directions alone; a part of the interval."""
        errors = self.density.standard_error
        return None if errors is None else float(errors.square().mean() / len(errors)) ** 0.5


def score(
    field: Field,
    part: Part,
    *,
    trace: Trace,
    solver: Solver,
    cond: Any = None,
    table: Standardization | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Scored:
    """Log-densities of data under what a field makes of noise.

    Args:
        field: The field.
        part: The data; grey levels are dequantised.
        trace: How the divergence is taken.
        solver: How to integrate.
        cond: Condition of each datum.
        table: Standardisation that the density is freed of.
        batch_size: Data taken together: decides the memory used.
        device: Where the field computes.
        seed: Seed of dequantisation and random directions.
        progress: Called after each step of the solver with the number of data that are done.

    Raises:
        ValueError: As of ``fv.log_prob``.

    Example:
        >>> part = choose(fv.Dataset(torch.zeros(4, 2)), 4, "data")
        >>> found = score(lambda x, t: 0 * x, part, trace=Trace(), solver=Solver("euler", 1))
        >>> found.log_prob.text(3)
        '-1.838 [-1.838, -1.838]'
    """
    x = part.x if part.levels is None else dequantized(part.x, part.levels, part.index, seed)
    found = log_prob(
        field,
        x.to(device),
        None if cond is None else cond.to(device),
        divergence=trace.divergence,
        probes=trace.probes,
        batch_size=batch_size,
        generator=trace.directions(seed, (TRAIN, HELD_OUT, OTHER).index(part.name)),
        progress=None if progress is None else _named(progress, f"likelihood of {part.name}"),
        **solver.way,
    )
    order = part.index.argsort(stable=True)
    values = in_original_units(found.log_prob.cpu(), table)[order]
    bits = bits_per_dim(values, math.prod(x.shape[1:]), part.levels)
    errors = None if found.standard_error is None else found.standard_error.cpu()[order]
    labels = None if part.labels is None else part.labels[order]
    ordered = Part(part.name, part.x[order], part.index[order], part.levels, labels, part.class_names)
    density = LogProb(values, bits, errors, found.evaluations)
    return Scored(ordered, density, Estimate.mean(values), Estimate.mean(bits))


def _named(progress: ProgressCallback, task: str) -> ProgressCallback:
    return lambda report: progress(Progress(task, report.step, report.total))


@dataclass(frozen=True)
class Gap:
    """How much denser training data are than held-out data, on average.

    Args:
        log_prob: In nats a datum.
        bits_per_dim: In bits a number: those that held-out data need more.
        sentence: What it means.
    """

    log_prob: Estimate
    bits_per_dim: Estimate
    sentence: str


def gap_between(train: Scored, held_out: Scored) -> Gap:
    """The gap between training and held-out data, with what it means."""
    nats = Estimate.difference(train.density.log_prob, held_out.density.log_prob)
    bits = Estimate.difference(held_out.density.bits_per_dim, train.density.bits_per_dim)
    return Gap(nats, bits, _meaning(nats))


def _meaning(gap: Estimate) -> str:
    if gap.low is None or gap.high is None:
        return "One datum on a side says nothing of memorising."
    if gap.low > 0:
        return (
            f"A sign of memorising: training data are denser than held-out data by {gap.value:.3g} nats a datum, and a "
            "model that has learned the distribution alone would give both the same density."
        )
    if gap.high < 0:
        return (
            "No sign of memorising, but held-out data are denser than training data: the two are of different kinds, "
            "or were chosen differently."
        )
    return "No sign of memorising: the mean densities of training and held-out data cannot be told apart."


@dataclass(frozen=True)
class Rare:
    """One of the data of lowest density.

    Args:
        row: Its row among those scored.
        index: Its number in what was read.
        label: Name of its class; empty if it has none.
        log_prob: Its log-density in nats.
        deviations: How far below the median, in standard deviations as the median absolute deviation estimates them.
    """

    row: int
    index: int
    label: str
    log_prob: float
    deviations: float


def rarest(scored: Scored, count: int) -> list[Rare]:
    """The data of lowest density, the lowest first."""
    values, part = scored.density.log_prob, scored.part
    median = values.quantile(0.5)
    spread = float(_MAD * (values - median).abs().quantile(0.5))
    found = []
    for row in values.argsort()[:count].tolist():
        below = float(median - values[row])
        label = -1 if part.labels is None else int(part.labels[row])
        name = part.class_names[label] if 0 <= label < len(part.class_names) else ("" if label < 0 else str(label))
        deviations = below / spread if spread else 0.0
        found.append(Rare(row, int(part.index[row]), name, float(values[row]), deviations))
    return found
