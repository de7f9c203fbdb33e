"""What the demo measures: how near each model's samples are to held-out digits, and whether they are copies.

All scores compare with the 360 held-out digits, which no model has seen. The training digits' own scores are the
reference: no model can be expected to do better than fresh data of the same source.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fluvial.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.data import Dataset

NOISE = 0.1
REFERENCE = "training digits"
FRESH = (0.85, 1.15)
CLOSE = 1.7
ROUGH = 2.0
"""A model of few evaluations counts as rough up to this many times the Fréchet distance of the baseline."""
BASELINE = "CFM"
"""What models that sample with fewer evaluations are compared with."""


@dataclass(frozen=True)
class SpaceScore:
    """Scores of one set of images against the held-out digits, in features or in pixels.

    Args:
        frechet: Fréchet distance.
        kernel: Kernel distance (KID), the unbiased estimate on all rows.
        neighbour_ratio: Mean distance to the nearest training digit over that of held-out digits; of the training
            digits themselves, leaving each one out.
    """

    frechet: float
    kernel: float
    neighbour_ratio: float


@dataclass(frozen=True)
class Score:
    """Scores of one set of images.

    Args:
        features: In the 64 penultimate features of the classifier.
        pixels: In pixels, in [-1, 1]^64.
        evaluations: Field evaluations spent on each image; None for real ones.
    """

    features: SpaceScore
    pixels: SpaceScore
    evaluations: int | None = None


@dataclass(frozen=True)
class Scores:
    """Scores of every set, the training digits' first.

    Args:
        accuracy: The classifier's share of right answers on held-out digits.
        rows: Score of each set by its name.
    """

    accuracy: float
    rows: Mapping[str, Score]

    def relative(self, name: str) -> float:
        """Fréchet distance of a set over that of the training digits."""
        return self.rows[name].features.frechet / self.rows[REFERENCE].features.frechet

    def to_dict(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        return {
            "classifier_accuracy": self.accuracy,
            "scores": {
                name: {**asdict(score), "frechet_over_reference": self.relative(name)}
                for name, score in self.rows.items()
            },
        }


def measure(
    train: "Dataset",
    held_out: "Dataset",
    samples: "Mapping[str, Tensor]",
    evaluations: Mapping[str, int],
    *,
    progress: ProgressCallback,
) -> Scores:
    """Scores every set of samples, and the training digits, against the held-out digits."""
    from fluvial.metrics import ClassifierFeatures

    total = len(samples) + 2
    progress(Progress("measure", 0, total))
    features = ClassifierFeatures.fit(train.x, _labels(train))
    progress(Progress("measure", 1, total))
    spaces: dict[str, Callable[[Tensor], Tensor]] = {"features": features, "pixels": lambda x: x.flatten(1)}
    known = {name: (space(train.x), space(held_out.x)) for name, space in spaces.items()}
    rows: dict[str, Score] = {}
    for name, x in {REFERENCE: train.x, **samples}.items():
        parts = {key: _score(space(x), *known[key], own=name == REFERENCE) for key, space in spaces.items()}
        rows[name] = Score(**parts, evaluations=evaluations.get(name))
        progress(Progress("measure", len(rows) + 1, total))
    return Scores(features.accuracy(held_out.x, _labels(held_out)), rows)


def _labels(dataset: "Dataset") -> "Tensor":
    if dataset.labels is None:
        raise ValueError(f"data set {dataset.name!r} must have labels")
    return dataset.labels


def _score(x: "Tensor", train: "Tensor", held_out: "Tensor", *, own: bool) -> SpaceScore:
    from fluvial.metrics import frechet_distance, kernel_distance, nearest_neighbour_ratio, nearest_neighbours

    if own:
        near = [nearest_neighbours(x, train, exclude_self=True), nearest_neighbours(held_out, train)]
        ratio = float(near[0].distance.mean() / near[1].distance.mean())
    else:
        ratio = nearest_neighbour_ratio(x, train, held_out)
    return SpaceScore(frechet_distance(x, held_out), kernel_distance(x, held_out, subsets=1).value, ratio)


def judge(scores: Scores, name: str) -> tuple[str, str]:
    """One sentence on a model, and whether it is ``"good"``, ``"bad"`` or ``"neutral"`` news.

    A model that spends at most half of the baseline's evaluations on a sample is compared with the baseline.
    """
    ratio, relative = scores.rows[name].pixels.neighbour_ratio, scores.relative(name)
    quality = f"the Fréchet distance to held-out digits is {relative:.2f} times that of the training digits"
    distance = f"{ratio:.2f} times as far from the nearest training digit as held-out digits are"
    saving = _saving(scores, name)
    if saving:
        quality += f" ({BASELINE}: {scores.relative(BASELINE):.2f})"
        distance += f" ({BASELINE}: {scores.rows[BASELINE].pixels.neighbour_ratio:.2f})"
    if ratio < 0.5:
        return f"It copies: its samples are {distance}; {quality}.", "bad"
    if ratio < FRESH[0]:
        return f"It leans on the training digits: its samples are {distance}; {quality}.", "neutral"
    if not _learned(scores, name):
        reasons = [quality, f"its samples are {distance}"]
        reason = ", and ".join(reasons if relative > CLOSE else reversed(reasons))
        if saving and _learned(scores, BASELINE) and relative <= ROUGH * scores.relative(BASELINE):
            return f"{saving}, it makes new digits, rougher than {BASELINE}'s: {reason}.", "neutral"
        return f"It has not learned digits well yet: {reason}.", "neutral"
    words = f"{saving}, it makes new digits" if saving else "It makes new digits"
    return f"{words}: its samples are {distance}, and {quality}.", "good"


def _learned(scores: Scores, name: str) -> bool:
    """Whether a model's samples are about as near to real digits as fresh data are."""
    return scores.rows[name].pixels.neighbour_ratio <= FRESH[1] and scores.relative(name) <= CLOSE


def _saving(scores: Scores, name: str) -> str:
    """How many evaluations a model needs where the baseline needs many more; empty if it does not."""
    few, many = (scores.rows[key].evaluations if key in scores.rows else None for key in (name, BASELINE))
    if few is None or many is None or 2 * few > many:
        return ""
    return f"In {few} evaluation{'s' if few > 1 else ''} of the net, where {BASELINE} takes {many}"
