"""How near samples come to fresh targets of their tasks, and how near to the support that they were made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.metrics import CLASSIFIERS, batched_energy_distance, batched_mmd2, classifier_two_sample
from fluvial.support.evaluation.plug_in import copy_distance, copy_ratios

NEAR = 1 / 3
"""A sample is a near-copy if its nearest support point is nearer than this share of the distance to the second one."""


@dataclass(frozen=True)
class Scores:
    """What one generator's samples scored, a figure for each of ``T`` tasks.

    Args:
        mmd2: Unbiased squared MMD to fresh targets, shape (T,), float64; may be negative.
        energy: Unbiased energy distance to them, shape (T,), float64, in the data's units.
        nearest: Mean distance of the samples to the nearest support point, shape (T,), float64, in the data's units.
        copies: Share of near-copies: samples whose nearest support point is less than a third as far as the second
            nearest, shape (T,), float64; NaN for a support of one point. Fresh points have some by chance too, in low
            dimensions above all.
        two_sample: For each classifier its accuracy in telling samples from targets, for the first tasks only.

    Example:
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> Scores(one, one, one, one).two_sample
        {}
    """

    mmd2: Float[Tensor, "T"]
    energy: Float[Tensor, "T"]
    nearest: Float[Tensor, "T"]
    copies: Float[Tensor, "T"]
    two_sample: Mapping[str, Float[Tensor, "C"]] = field(default_factory=dict)


def score(
    samples: Float[Tensor, "B n d"],
    targets: Float[Tensor, "B k d"],
    support: Float[Tensor, "B m d"],
    bandwidth: Float[Tensor, "B"],
    *,
    classified: int = 0,
    seed: int = 0,
) -> Scores:
    """Scores of the samples of ``B`` tasks.

    Args:
        samples: What is scored.
        targets: Fresh points of the same tasks.
        support: What the samples were made from.
        bandwidth: The MMD kernel's, for each task.
        classified: For how many of the tasks, the first ones, to run the classifiers.
        seed: Seed of the classifiers.

    Example:
        >>> x = torch.randn(2, 60, 3)
        >>> found = score(x, x + 9, x[:, :5], torch.ones(2), classified=1)
        >>> found.two_sample["linear"]
        tensor([1.], dtype=torch.float64)
    """
    ratios = copy_ratios(samples, support)
    pairs = list(zip(samples[:classified], targets[:classified], strict=True))
    accuracies: dict[str, Tensor] = {
        kind: torch.tensor([classifier_two_sample(a, b, kind, seed=seed) for a, b in pairs], dtype=torch.float64)
        for kind in (CLASSIFIERS if pairs else ())
    }
    return Scores(
        mmd2=batched_mmd2(samples, targets, bandwidth),
        energy=batched_energy_distance(samples, targets),
        nearest=copy_distance(samples, support),
        copies=torch.where(ratios.isnan(), ratios, (ratios < NEAR).double()).mean(1),
        two_sample=accuracies,
    )


def joined_scores(parts: Sequence[Scores]) -> Scores:
    """Scores of all tasks from those of some each.

    Example:
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> len(joined_scores([Scores(one, one, one, one), Scores(one, one, one, one)]).mmd2)
        4
    """
    kinds = dict.fromkeys(kind for part in parts for kind in part.two_sample)
    return Scores(
        mmd2=torch.cat([part.mmd2 for part in parts]),
        energy=torch.cat([part.energy for part in parts]),
        nearest=torch.cat([part.nearest for part in parts]),
        copies=torch.cat([part.copies for part in parts]),
        two_sample={
            kind: torch.cat([part.two_sample[kind] for part in parts if kind in part.two_sample]) for kind in kinds
        },
    )
