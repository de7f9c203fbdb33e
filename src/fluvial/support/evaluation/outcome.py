"""The outcome of an evaluation: figures of each task, and what they say of the family."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fluvial.support.evaluation.intervals import Interval, difference_interval, mean_interval, ratio_interval
from fluvial.support.evaluation.scores import Scores
from fluvial.support.evaluation.tuning import TunedBandwidth
from fluvial.support.evaluation.velocities import VelocityErrors

NAMES = {"learned": "learned", "plug_in": "plug-in", "tuned": "tuned plug-in", "floor": "floor (other targets)"}
"""What the generators are called in a table."""
COLUMNS = (
    "samples", "MMD^2", "plug-in / this", "energy distance", "C2ST linear", "C2ST kNN", "C2ST MLP",
    "nearest example", "near-copies (%)", "velocity error",
)  # fmt: skip
"""Headings of :meth:`Evaluation.rows`."""


FIGURES = ("mmd2", "energy", "nearest", "copies")
"""Figures of each task that :meth:`Evaluation.mean` knows."""


@dataclass(frozen=True)
class Evaluation:
    """How a model does on fresh tasks of a family; see :func:`fluvial.support.evaluation.evaluate`.

    Args:
        settings: What was evaluated: family, dim, m, tasks, points, path, steps, method, seed, ...
        scores: Of ``"learned"``, ``"plug_in"``, ``"tuned"`` (where it was asked for) and ``"floor"``.
        velocity: Errors of the velocity.
        tuning: The plug-in's best bandwidth; None where it was not asked for.
        bandwidth: The plug-in's own bandwidth, the path's last standard deviation, in the data's units.
        notes: What a reader needs to know, such as fewer targets than asked for.
    """

    settings: Mapping[str, Any]
    scores: Mapping[str, Scores]
    velocity: VelocityErrors
    tuning: TunedBandwidth | None
    bandwidth: float
    notes: tuple[str, ...] = ()

    def ratio(self, to: str = "plug_in", of: str = "learned") -> Interval:
        """Mean squared MMD of one generator over that of another, with its 95 % interval over tasks.

        Above 1 the latter is nearer to the targets.

        Args:
            to: The numerator: ``"plug_in"``, ``"tuned"``, ``"learned"`` or ``"floor"``.
            of: The denominator.

        Raises:
            ValueError: If there are no scores of that name.
        """
        return ratio_interval(self._scores(to).mmd2, self._scores(of).mmd2, seed=self._seed)

    def difference(self, to: str = "plug_in", of: str = "learned") -> Interval:
        """Mean over tasks of the squared MMDs' difference ``to - of``, paired by task; arguments as for the ratio."""
        return difference_interval(self._scores(to).mmd2, self._scores(of).mmd2, seed=self._seed)

    def mean(self, figure: str = "mmd2", of: str = "learned") -> Interval:
        """Mean of a figure over tasks with its 95 % interval.

        Args:
            figure: ``"mmd2"``, ``"energy"``, ``"nearest"`` or ``"copies"``.
            of: As for the ratio.

        Returns:
            The mean; NaN for the near-copies of a support of one point.

        Raises:
            ValueError: If there is no such figure or generator.
        """
        scores = self._scores(of)
        if figure not in FIGURES:
            raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got {figure!r}")
        values = getattr(scores, figure)
        if bool(values.isnan().any()):  # near-copies of a single example
            return Interval(math.nan, math.nan, math.nan)
        return mean_interval(values, seed=self._seed)

    def rows(self) -> tuple[tuple[str | float, ...], ...]:
        """A table with the columns :data:`COLUMNS`, one row for each generator; an empty cell is ``""``."""
        return tuple(self._row(name) for name in NAMES if name in self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values for ``json.dump``."""
        names = list(self.scores)
        return {
            "settings": dict(self.settings),
            "ratio": {to: self.ratio(to).to_dict() for to in names if to != "learned"},
            "difference": {to: self.difference(to).to_dict() for to in names if to != "learned"},
            "means": {
                name: {figure: self.mean(figure, name).to_dict() for figure in FIGURES}
                for name in names
            },
            "tasks": {name: _plain(self.scores[name]) for name in names},
            "velocity": self.velocity.to_dict(),
            "plug_in_bandwidth": self.bandwidth,
            "tuned": None if self.tuning is None else {
                "bandwidth": self.tuning.bandwidth, "grid": list(self.tuning.grid), "mmd2": list(self.tuning.mmd2),
                "tasks": self.tuning.tasks,
            },
            "notes": list(self.notes),
        }  # fmt: skip

    @property
    def _seed(self) -> int:
        return int(self.settings["seed"])

    def _scores(self, name: str) -> Scores:
        if name not in self.scores:
            raise ValueError(f"scores must be those of one of {', '.join(self.scores)}, got {name!r}")
        return self.scores[name]

    def _row(self, name: str) -> tuple[str | float, ...]:
        scores = self.scores[name]
        accuracies = [_mean(scores.two_sample.get(kind)) for kind in ("linear", "knn", "mlp")]
        errors = {"learned": self.velocity.learned, "plug_in": self.velocity.plug_in}
        return (
            NAMES[name],
            self.mean("mmd2", name).text(),
            "" if name == "floor" else self.ratio("plug_in", name).text(),
            _mean(scores.energy),
            *accuracies,
            _mean(scores.nearest),
            _mean(100 * scores.copies),
            _mean(errors.get(name)),
        )


def _mean(values: Tensor | None) -> str | float:
    return "" if values is None or bool(values.isnan().any()) else float(values.mean())


def _plain(scores: Scores) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(scores, name).tolist() for name in FIGURES}
    if bool(scores.copies.isnan().any()):
        found["copies"] = None
    return {**found, "two_sample": {kind: values.tolist() for kind, values in scores.two_sample.items()}}
