"""What is audited, brought into one form: data, samples, field, its exact counterpart, and how much may be spent."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluvial.audits.ranges import check_same_range
from fluvial.data import Dataset
from fluvial.fields import ExactField
from fluvial.fields.base import Field
from fluvial.kinds import checked
from fluvial.metrics.extractors import EXTRACTORS
from fluvial.paths import CondOT, GaussianPath
from fluvial.progress import ProgressCallback
from fluvial.randomness import generator
from fluvial.solvers.sampling import Solver, draw_samples


@checked
@dataclass(frozen=True)
class Budget:
    """How much an audit draws and solves.

    Args:
        samples: Samples drawn from the field.
        solver: How they are drawn.
        pairs: Noise and data met at each time, where velocities are compared.
        times: Times at which they are compared.
        hybrids: Noises that every hybrid starts from.
        taus: Times at which hybrids change from one field to the other.
        steps: Euler steps of hybrids, and of the field's own trajectories.
    """

    samples: int = 2000
    solver: Solver = dataclasses.field(default_factory=lambda: Solver("heun", 50))
    pairs: int = 256
    times: int = 50
    hybrids: int = 256
    taus: int = 11
    steps: int = 100

    @classmethod
    def quick(cls) -> "Budget":
        """A first look in about a fifth of the time, with wider intervals."""
        return cls(samples=500, solver=Solver("heun", 25), pairs=128, times=20, hybrids=64, taus=7, steps=50)


@dataclass(frozen=True)
class Subject:
    """What is audited; the arguments of :func:`fluvial.audit` after they have been checked."""

    field: Field | None
    train: Dataset
    held_out: Dataset | None
    samples: Tensor | None
    path: GaussianPath
    exact: Field | None
    conditional: bool
    not_comparable: str
    extractors: tuple[Any, ...]
    budget: Budget
    seed: int
    provenance: dict[str, str]
    weights: Path | None = None
    device: torch.device | str = "cpu"

    @classmethod
    def of(
        cls,
        field: Field | None,
        train: Dataset | Tensor,
        held_out: Dataset | Tensor | None,
        *,
        samples: Tensor | None,
        path: GaussianPath | None,
        exact: Field | None,
        extractors: Sequence[Any],
        conditional: bool,
        device: torch.device | str,
        **rest: Any,
    ) -> "Subject":
        """Checks the arguments and fills in what was left to choose.

        Raises:
            TypeError: If data are neither data set nor tensor.
            ValueError: If there is neither field nor samples, or they do not fit together.
        """
        known = _dataset("train", train)
        if isinstance(held_out, Tensor) and held_out.ndim == 0:
            raise ValueError("held_out must have shape (M, *D), got ()")
        fresh = None if held_out is None or len(held_out) == 0 else _dataset("held_out", held_out, known)
        if field is None and samples is None:
            raise ValueError("an audit needs a field or samples, got neither")
        if conditional and known.labels is None:
            raise ValueError("conditional=True needs training data with labels, got none")
        if samples is not None:
            samples = _checked_samples(samples, known)
        if path is None:
            own = getattr(exact, "path", None)
            path = own if isinstance(own, GaussianPath) else CondOT()
        if exact is None and field is not None:
            exact = ExactField(known.x, path, labels=known.labels if conditional else None).to(device)
        named = tuple(extractors) or ("pixels", *(("classifier",) if known.labels is not None else ()))
        for name in named:
            if isinstance(name, str) and name not in EXTRACTORS:
                near = difflib.get_close_matches(name, EXTRACTORS, n=1, cutoff=0.4)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"extractors must be callables or among {', '.join(EXTRACTORS)}, got {name!r}{hint}")
        return cls(field, known, fresh, samples, path, exact, conditional, extractors=named, device=device, **rest)

    @property
    def known(self) -> Tensor:
        """The training data where the field computes, shape (N, *D)."""
        return self.train.x.to(self.device)

    @property
    def fresh(self) -> Tensor | None:
        """The held-out data where the field computes, shape (M, *D)."""
        return None if self.held_out is None else self.held_out.x.to(self.device)

    def draw(self, progress: ProgressCallback) -> "Subject":
        """The same with samples drawn from the field."""
        if self.field is None:
            raise ValueError("samples are drawn from a field, got none")
        count, labels = self.budget.samples, self.train.labels
        cond = None
        if self.conditional and labels is not None:
            cond = labels[torch.randint(len(labels), (count,), generator=generator(self.seed, 1))]
        x, evaluations = draw_samples(
            self.field,
            count,
            self.train.shape,
            seed=self.seed,
            solver=self.budget.solver,
            cond=cond,
            device=self.device,
            progress=progress,
        )
        solver = self.budget.solver
        steps = "adaptive steps" if solver.steps is None else f"{solver.steps} steps"
        drawn = {"solver": f"{solver.method}, {steps}, {evaluations} evaluations a sample", "samples": f"{count:,}"}
        return replace(self, samples=x, provenance={**self.provenance, **drawn})


def _dataset(name: str, data: Dataset | Tensor, like: Dataset | None = None) -> Dataset:
    if not isinstance(data, Dataset):
        if not isinstance(data, Tensor):
            raise TypeError(f"{name} must be a tensor or a Dataset, got {type(data).__name__}")
        try:
            kind = None if like is None or like.kind == "table" or data.dtype == torch.uint8 else like.kind
            data = Dataset(data, name=name, kind=kind)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if like is not None and data.shape != like.shape:
        raise ValueError(f"{name} must have data of the shape of train's, {like.shape}, got {data.shape}")
    return data


def _checked_samples(samples: Tensor, train: Dataset) -> Tensor:
    if not isinstance(samples, Tensor):
        raise TypeError(f"samples must be a tensor, got {type(samples).__name__}")
    if tuple(samples.shape[1:]) != train.shape or len(samples) == 0:
        expected = f"(n, {', '.join(map(str, train.shape))})"
        raise ValueError(f"samples must have shape {expected} as train has, n >= 1, got {tuple(samples.shape)}")
    check_same_range(samples, train.x, train.kind)
    if not bool(torch.isfinite(samples).all()):
        raise ValueError("samples must be finite, got NaN or infinity")
    return samples.detach().float().cpu()
