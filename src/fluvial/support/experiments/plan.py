"""Which nets are trained, on what, for how long, and the published figures beside them; imports no torch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fluvial.data.homes import expanded
from fluvial.support.config import SupportConfig

GROUPS = {
    "shells": "shells in 8 and 32 dimensions",
    "mixtures": "Gaussian mixtures in 2 to 16 dimensions, without and with the exact head",
    "real": "classes of real data that the net has not seen",
    "heads": "number of heads against how fast samples improve with the support",
    "held-out": "families that the net was not trained on",
}
"""The comparisons, by name."""

PLANE = ("gmm", "rings", "moons", "spirals")
SIZES = (5, 10, 25, 50, 100, 250)
"""Supports on which nets with different heads are compared."""


@dataclass(frozen=True)
class Experiment:
    """One training and what is measured of it.

    Args:
        name: Name of its folder.
        group: The comparison that it belongs to.
        config: How the net is trained; ``steps`` is set when the budget is known.
        share: Its share of the training time, relative to the others'.
        family: The family of the tasks that it is measured on; that of the training if empty.
        sizes: Support sizes that it is measured at.
        paper: The published ratio of the plug-in's squared MMD to the net's; None where there is none.
        untrained: Whether the net is also measured as it was before training: a Gaussian of the support's scale.
    """

    name: str
    group: str
    config: SupportConfig
    share: float = 1.0
    family: str = ""
    sizes: tuple[int, ...] = field(default=(50,))
    paper: float | None = None
    untrained: bool = False


def plan_experiments(groups: Collection[str] = tuple(GROUPS), real: Sequence[str] = ("digits",)) -> list[Experiment]:
    """The experiments of some comparisons, in order.

    Args:
        groups: Names of comparisons.
        real: Names of real families that can be loaded here.

    Raises:
        ValueError: If a name is unknown.

    Example:
        >>> [experiment.name for experiment in plan_experiments(["shells"])]
        ['shells-8', 'shells-32']
    """
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"comparisons must be some of {', '.join(GROUPS)}, got {group!r}")
    made = {
        "shells": [
            Experiment("shells-8", "shells", SupportConfig(tasks="shells", dim=8), 4.0, paper=11.2, untrained=True),
            Experiment("shells-32", "shells", SupportConfig(tasks="shells", dim=32), 2.0, paper=6.4, untrained=True),
        ],
        "mixtures": [
            Experiment(
                f"gmm-{dim}{'-exact' if head else ''}",
                "mixtures",
                SupportConfig(tasks="gmm", dim=dim, exact_head=head),
                paper=0.91 if dim == 16 and not head else None,
            )
            for dim in (2, 4, 8, 16)
            for head in (False, True)
        ],
        "real": [
            Experiment(_folder(name, number), "real", SupportConfig(tasks=_tasks(name), dim=16))
            for number, name in enumerate(real)
        ],
        "heads": [
            Experiment(
                f"heads-{heads}",
                "heads",
                SupportConfig(tasks="shells", dim=8, width=128, heads=heads, m=max(SIZES), least_m=min(SIZES)),
                sizes=SIZES,
            )
            for heads in (1, 2, 4, 8, 16)
        ],
        "held-out": [
            Experiment(
                f"without-{left_out}",
                "held-out",
                SupportConfig(tasks="+".join(name for name in PLANE if name != left_out), dim=2),
                family=left_out,
            )
            for left_out in PLANE
        ],
    }
    return [experiment for group in GROUPS if group in groups for experiment in made[group]]


def _tasks(name: str) -> str:
    """The family as a run's config holds it, which works from any directory."""
    return str(expanded(name).absolute()) if name.lower().endswith(".npz") else name


def _folder(name: str, number: int) -> str:
    """Name of the folder of a real family: a file may lie anywhere, and files may have one name."""
    return f"{Path(name).stem}-{number}" if name.lower().endswith(".npz") else name.replace(":", "-")
