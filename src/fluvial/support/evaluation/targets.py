"""Which targets of a task are compared with, which fix the kernel's bandwidth, and which show what equality is."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.metrics.mmd import batched_median_distance
from fluvial.support.tasks.base import Family, Truth, require_counts

_FEWEST_REFERENCES = 50


@dataclass(frozen=True)
class Drawn:
    """Tasks with their targets, each set in its part.

    Args:
        support: Shape (B, m, d).
        targets: What samples are compared with, shape (B, n, d).
        floor: Two sets of targets without a point in common, whose distance shows what equality is.
        references: What the median distance is taken of, shape (B, k, d); not among the targets where there are enough.
        bandwidth: That of the kernel, shape (B,), float64: the median distance of the references.
        truth: The distributions themselves, where they are known.
    """

    support: Float[Tensor, "B m d"]
    targets: Float[Tensor, "B n d"]
    floor: tuple[Float[Tensor, "B p d"], Float[Tensor, "B q d"]]
    references: Float[Tensor, "B k d"]
    bandwidth: Float[Tensor, "B"]
    truth: Truth | None


@dataclass(frozen=True)
class TargetPlan:
    """How many targets a task gives to each part.

    Args:
        m: Support points.
        compared: Targets that samples are compared with.
        references: Further ones that fix the kernel's bandwidth; with 0 the compared ones do, for want of others.
        others: Further ones for the floor; with 0 it is between references and compared ones, or between halves of
            these.
        note: What had to be made do with; empty where there are enough targets.
    """

    m: int
    compared: int
    references: int
    others: int
    note: str = ""

    def draw(self, family: Family, count: int, generator: torch.Generator) -> Drawn:
        """``count`` tasks of the family.

        Raises:
            ValueError: If more than half of the pairs of a task's references are equal points, which gives the kernel
                no bandwidth.
        """
        found = family.batch(count, self.m, self.compared + self.references + self.others, generator)
        sizes = [self.compared, self.references, self.others]
        targets, references, others = found.targets.split(sizes, dim=1)
        if not self.references:
            references = targets
            floor = (targets[:, ::2], targets[:, 1::2])
        else:
            floor = (others if self.others else references, targets)
        bandwidth = batched_median_distance(references)
        if not bool((bandwidth > 0).all()):
            raise ValueError(
                f"family {family.name!r} gave a task of which more than half of the pairs of targets are equal points: "
                "their median distance is 0 and gives the kernel no bandwidth"
            )
        return Drawn(found.support, targets, floor, references, bandwidth, found.truth)


def plan_targets(family: Family, m: int, points: int) -> TargetPlan:
    """How the targets of a family's tasks are divided; a class of real data may have too few for all parts.

    Args:
        family: The tasks. Where targets are limited it says how many there are, ``family.most_targets(m)``.
        m: Support points.
        points: Targets wanted in each part.

    Raises:
        ValueError: If a number is not positive, ``points`` below 2, or a task has fewer than 4 targets.

    Example:
        >>> from fluvial.support.tasks.shells import Shells
        >>> plan_targets(Shells(2), 50, 500)
        TargetPlan(m=50, compared=500, references=500, others=500, note='')
    """
    require_counts(m=m)
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points}")
    limit = getattr(family, "most_targets", None)
    most = 3 * points if limit is None else int(limit(m))
    if most < 4:
        raise ValueError(
            f"m must leave at least 4 targets in each task of {family.name!r}, got {m} which leaves {most}"
        )
    compared = min(points, most)
    rest = most - compared
    if rest >= 2 * points:
        return TargetPlan(m, compared, points, points)
    if rest >= _FEWEST_REFERENCES:
        kept = min(rest, points)
        note = f"tasks have {most} targets: {compared} are compared with, {kept} others give bandwidth and floor"
        return TargetPlan(m, compared, kept, 0, note)
    note = f"tasks have {most} targets: {compared} are compared with and give the bandwidth, their halves the floor"
    return TargetPlan(m, compared, 0, 0, note)
