r"""What log-densities need around the integral: a way to take the divergence, grey levels, units, samples in batches.

A density has the units of its data. For a column that was standardised, :math:`z = (v - \mu)/s`, the density of the
column itself is :math:`p(v) = p(z)/s`: the logarithm of the map's Jacobian is subtracted. Grey levels have
probabilities and no density: uniform noise of one level's width, each level in the middle of its bin, spreads them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluvial.conditions import Condition
from fluvial.data.standardization import Standardization
from fluvial.fields.base import Field
from fluvial.fields.carried import rademacher
from fluvial.kinds import checked
from fluvial.levels import bits_per_dim, spread_levels
from fluvial.likelihood import LogProb, Sampled, sample_with_log_prob
from fluvial.progress import ProgressCallback
from fluvial.randomness import generator, noise
from fluvial.ranks import ALONE, Ranks
from fluvial.solvers.sampling import DrawnBatch, Solver, check_draws, deal_batches

EXACT_UP_TO = 32
"""Numbers of a datum up to which the divergence is taken in full unless asked otherwise."""
PROBES = 8
"""Random directions of each datum beyond that: enough that their error hardly widens the interval of a mean."""
_DIRECTIONS, _GREY = 1, 2  # second of four counters: streams that nothing else draws from


@dataclass(frozen=True)
class Trace:
    """How the divergence is taken.

    Args:
        divergence: ``"exact"`` or ``"hutchinson"``, as of ``fv.log_prob``.
        probes: Random directions of each datum, for ``"hutchinson"``.

    Example:
        >>> Trace.of(30), Trace.of(784), Trace.of(784, probes=2).probes
        (Trace(divergence='exact', probes=1), Trace(divergence='hutchinson', probes=8), 2)
    """

    divergence: str = "exact"
    probes: int = 1

    @classmethod
    @checked
    def of(cls, dim: int, divergence: str | None = None, probes: int | None = None) -> "Trace":
        """What was asked for, and for data of ``dim`` numbers what suits where nothing was: exact up to 32 of them.

        Raises:
            ValueError: If directions are asked for of a divergence that is taken in full.
        """
        random = probes is not None or dim > EXACT_UP_TO
        chosen = divergence or ("hutchinson" if random else "exact")
        if chosen != "hutchinson" and probes is not None:
            raise ValueError(f"probes are for divergence 'hutchinson', got {probes} for {chosen!r}")
        return cls(chosen, (probes or PROBES) if chosen == "hutchinson" else 1)

    def directions(self, seed: int, stream: int = 0) -> torch.Generator | None:
        """Where random directions come from; None where none are needed."""
        return generator(seed, _DIRECTIONS, stream, 0, 0) if self.divergence == "hutchinson" else None


@checked
def dequantized(
    x: Float[Tensor, "n *D"], levels: int, index: Int[Tensor, " n"] | Sequence[int], seed: int = 0
) -> Float[Tensor, "n *D"]:
    """Data of grey levels in [-1, 1] with uniform noise of one level's width, half of it to each side.

    Args:
        x: The data.
        levels: Number of grey levels.
        index: Number of each datum: its noise depends on ``(seed, index)`` alone.
        seed: Seed of the noise.

    Source: Theis et al. 2016, "A note on the evaluation of generative models", section 3.1.

    Example:
        >>> noisy = dequantized(torch.zeros(2, 3), 3, [7, 7])
        >>> bool((noisy[0] == noisy[1]).all()), bool(noisy.abs().max() <= 0.5)
        (True, True)
    """
    if not bool(x.isfinite().all()):
        raise ValueError("x must be finite, got NaN or infinite values")
    if len(index) != len(x):
        raise ValueError(f"index must have one number for each of the {len(x)} rows of x, got {len(index)}")
    draws = [torch.rand(x.shape[1:], generator=generator(seed, _GREY, int(i), 0, 0), dtype=x.dtype) for i in index]
    return spread_levels(x, torch.stack(draws), levels) if draws else x


@checked
def in_original_units(log_prob: Float[Tensor, " n"], table: Standardization | None) -> Float[Tensor, " n"]:
    """Log-densities of a table's rows in its own units, from those of the standardised rows; others as they are.

    Args:
        log_prob: In nats; NaN and infinity pass through.
        table: The standardisation; None for data that have none.

    Example:
        >>> from fluvial.data import Standardization
        >>> in_original_units(torch.zeros(1), Standardization(("a", "b"), (5.0, 0.0), (2.0, 0.5)))
        tensor([0.])
    """
    return log_prob if table is None else log_prob - sum(math.log(scale) for scale in table.std)


@checked
def draw_with_log_prob(
    field: Field,
    n: int,
    shape: tuple[int, ...],
    *,
    trace: Trace,
    solver: Solver,
    seed: int = 0,
    cond: Condition | None = None,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
    progress: ProgressCallback | None = None,
) -> Sampled:
    """The samples of ``draw_samples`` with their log-densities, both of one integration.

    The points are carried in float64 between evaluations, so that with fixed steps the samples are those of
    ``draw_samples`` up to the rounding of float32.

    Args:
        field: What to sample.
        n: How many samples.
        shape: Shape of one datum.
        trace: How the divergence is taken.
        solver: How to integrate; not jumps.
        seed: Seed of the noise and of the random directions.
        cond: Condition of each sample, n rows; None for none.
        batch_size: Samples integrated together: decides the memory used.
        device: Where ``field`` computes.
        ranks: The processes that share the work, each of which calls this with the same arguments.
        progress: Called after every step with the number of samples that are done.

    Returns:
        Samples and log-densities, on the CPU, of which processes other than the first get none.

    Raises:
        ValueError: If ``cond`` has not one row for each sample, or as of ``fv.sample_with_log_prob``.

    Example:
        >>> field = lambda x, t: x * math.log(2)                                  # noise, made twice as wide
        >>> found = draw_with_log_prob(field, 2, (1,), trace=Trace(), solver=Solver("rk4", 20))
        >>> expected = torch.distributions.Normal(0.0, 2.0).log_prob(found.x[:, 0])
        >>> bool((found.density.log_prob - expected).abs().max() < 1e-5)
        True
    """
    check_draws(n, shape, batch_size)
    if cond is not None and len(cond) != n:
        raise ValueError(f"cond must have {n} rows, one for each sample, got {len(cond)}")
    directions, drawn = trace.directions(seed), 0
    parts: list[Sampled] = []
    for batch in deal_batches(n, batch_size, solver, ranks):
        if directions is not None and batch.count:
            # Those of the samples between, which other processes have, come from the same stream.
            rademacher(torch.empty((batch.start - drawn, *shape)), trace.probes, directions)
            drawn = batch.start + batch.filled
        found = sample_with_log_prob(
            field,
            noise(seed, batch.start, batch.filled, shape).to(device),
            None if cond is None else batch.rows_of(cond).to(device),
            divergence=trace.divergence,
            probes=trace.probes,
            generator=directions,
            progress=batch.progress(progress, "sample"),
            **solver.way,
        )
        parts.append(_collected(found, batch, ranks))
    return _joined(parts)


def _collected(found: Sampled, batch: DrawnBatch, ranks: Ranks) -> Sampled:
    """The samples of one round, on the CPU of the first process."""

    def collect(x: Tensor) -> Tensor:
        return ranks.collect(x[: batch.count], batch.size).cpu()

    density, error = found.density, found.density.standard_error
    evaluations = int(ranks.largest(torch.tensor(density.evaluations if batch.count else 0)))
    errors = None if error is None else collect(error)
    return Sampled(
        collect(found.x), LogProb(collect(density.log_prob), collect(density.bits_per_dim), errors, evaluations)
    )


def _joined(parts: Sequence[Sampled]) -> Sampled:
    densities = [part.density for part in parts]
    log_prob = torch.cat([density.log_prob for density in densities])
    errors = [density.standard_error for density in densities if density.standard_error is not None]
    x = torch.cat([part.x for part in parts])
    bits = bits_per_dim(log_prob, math.prod(x.shape[1:]))
    evaluations = max(density.evaluations for density in densities)
    return Sampled(x, LogProb(log_prob, bits, torch.cat(errors) if errors else None, evaluations))
