"""Training of a flow on rows in memory, stopped where held-out rows say so."""

import copy
import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.likelihood import log_prob
from fluvial.nn import MLP
from fluvial.nn.preconditioned import Preconditioned
from fluvial.objectives import CFM, Batch
from fluvial.paths import CondOT
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.training.draws import DataOrder, step_generator, weights_stream
from fluvial.training.ema import EMA
from fluvial.training.schedule import learning_rate

LOOKS = 12
"""How often the held-out rows are looked at."""
EXACT_DIM = 8
"""Columns up to which their densities take the exact divergence; with more, a few directions tell better from worse."""
_PROBES, _SOLVER_STEPS, _WARMUP = 4, 16, 100
_TIME_SCALE = 4.0
_VALIDATION = 3  # counter of the random directions


@dataclass(frozen=True)
class Recipe:
    """How a flow is trained; the names are those of :class:`FlowDensity`."""

    width: int
    depth: int
    steps: int
    batch_size: int
    lr: float
    weight_decay: float
    ema: float
    sigma_min: float
    patience: int


@dataclass(frozen=True)
class Fit:
    """A trained flow.

    Args:
        net: The averaged net that was best on the held-out rows, in evaluation mode.
        steps: Updates that it had seen.
        history: Updates and mean log-density of the held-out rows, in nats, at each look.
    """

    net: Preconditioned
    steps: int
    history: tuple[tuple[int, float], ...]


def make_net(dim: int, recipe: Recipe, seed: int) -> Preconditioned:
    """A net of a recipe; its first weights depend on the seed alone."""
    with weights_stream(seed):
        net = MLP((dim,), width=recipe.width, depth=recipe.depth, time_scale=_TIME_SCALE)
    return Preconditioned(net, CondOT(recipe.sigma_min))


def fit_flow(
    train: Float[Tensor, "N d"],
    held_out: Float[Tensor, "M d"],
    recipe: Recipe,
    seed: int,
    progress: ProgressCallback | None = None,
) -> Fit:
    """Train on white rows by flow matching and keep the average that gives held-out rows the highest density.

    Args:
        train: Training rows, float32, on the device to train on.
        held_out: Rows that decide when to stop; none of them: the last average is kept.
        recipe: How to train.
        seed: Seed of all draws.
        progress: Called at each look with the updates made and the held-out log-density.

    Raises:
        ValueError: If the net's densities are no longer finite.
    """
    net = make_net(train.shape[1], recipe, seed).to(train.device)
    objective, ema = CFM(CondOT(recipe.sigma_min)), EMA(net, recipe.ema)
    average = cast(Preconditioned, ema.net)  # a copy of the net
    optimizer = torch.optim.AdamW(net.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    order = DataOrder(len(train), min(recipe.batch_size, len(train)), seed)
    best = Best(recipe.patience)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps=recipe.steps, warmup=_WARMUP, peak=recipe.lr)
        optimizer.zero_grad()
        objective(net, Batch(train[order.batch(step)]), generator=step_generator(seed, step)).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        ema.update(net, step)
        if (step + 1) % max(1, recipe.steps // LOOKS) and step + 1 < recipe.steps:
            continue
        found = _mean_log_prob(average, held_out, seed, step + 1) if len(held_out) else math.nan
        if progress is not None:
            progress(Progress("fit", step + 1, recipe.steps, {"held-out log p": found} if len(held_out) else {}))
        if len(held_out) and not best.goes_on(average, step + 1, found):
            break
    return Fit(best.net or average, best.step or recipe.steps, tuple(best.history))


class Best:
    """The net with the highest held-out density so far."""

    def __init__(self, patience: int) -> None:
        self.net: Preconditioned | None = None
        self.step, self.history = 0, list[tuple[int, float]]()
        self._patience, self._since, self._density = patience, 0, -math.inf

    def goes_on(self, net: Preconditioned, step: int, density: float) -> bool:
        """Take note of a net; whether one of the last few was better than all before."""
        self.history.append((step, density))
        self._since += 1
        if density > self._density:
            self.net, self.step, self._density, self._since = copy.deepcopy(net), step, density, 0
        return self._since < self._patience


def _mean_log_prob(net: torch.nn.Module, rows: Tensor, seed: int, step: int) -> float:
    """Mean log-density in nats, always in the same random directions, so that looks differ by the net alone."""
    exact = rows.shape[1] <= EXACT_DIM
    try:
        found = log_prob(
            net,
            rows,
            divergence="exact" if exact else "hutchinson",
            probes=1 if exact else _PROBES,
            steps=_SOLVER_STEPS,
            method="rk4",
            generator=generator(seed, 0, 0, 0, _VALIDATION),
        )
    except ValueError as error:
        raise ValueError(f"the flow diverged within {step} updates: lower lr ({error})") from error
    return float(found.log_prob.mean())
