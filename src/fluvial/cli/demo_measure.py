"""What the demo measures: how near each model's samples are to held-out digits, and whether they are copies.

All scores compare with the 360 held-out digits, which no model has seen. The training digits' own scores are the
reference: no model can be expected to do better than fresh data of the same source.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fluvial.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.data import Dataset
    from fluvial.metrics import ClassifierFeatures

NOISE = 0.1
REFERENCE = "training digits"
FRESH = (0.85, 1.15)
CLOSE = 1.7
KERNEL_SUBSETS = 5


@dataclass(frozen=True)
class Score:
    """Scores of one set of images against the held-out digits.

    Args:
        frechet: Fréchet distance in the classifier's features.
        frechet_pixels: Fréchet distance in pixels, in [-1, 1]^64.
        kernel: Kernel distance (KID) in the classifier's features.
        kernel_error: Its standard error.
        neighbour_ratio: Mean distance to the nearest training digit over that of held-out digits; of the training
            digits themselves, leaving each one out.
    """

    frechet: float
    frechet_pixels: float
    kernel: float
    kernel_error: float
    neighbour_ratio: float


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
        return self.rows[name].frechet / self.rows[REFERENCE].frechet

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
    train: "Dataset", held_out: "Dataset", samples: "Mapping[str, Tensor]", *, progress: ProgressCallback
) -> Scores:
    """Scores every set of samples, and the training digits, against the held-out digits."""
    from fluvial.metrics import ClassifierFeatures

    total = len(samples) + 2
    progress(Progress("measure", 0, total))
    features = ClassifierFeatures.fit(train.x, _labels(train))
    progress(Progress("measure", 1, total))
    rows: dict[str, Score] = {}
    for name, x in {REFERENCE: train.x, **samples}.items():
        rows[name] = _score(x, train, held_out, features, own=name == REFERENCE)
        progress(Progress("measure", len(rows) + 1, total))
    return Scores(features.accuracy(held_out.x, _labels(held_out)), rows)


def _labels(dataset: "Dataset") -> "Tensor":
    if dataset.labels is None:
        raise ValueError(f"data set {dataset.name!r} must have labels")
    return dataset.labels


def _score(x: "Tensor", train: "Dataset", held_out: "Dataset", features: "ClassifierFeatures", own: bool) -> Score:
    from fluvial.metrics import frechet_distance, kernel_distance, nearest_neighbour_ratio, nearest_neighbours

    fresh, known = held_out.x, train.x
    subsets = min(KERNEL_SUBSETS, len(x) // 2)
    kernel = kernel_distance(features(x), features(fresh), subsets=subsets)
    if own:
        gaps = [nearest_neighbours(x, known, exclude_self=True), nearest_neighbours(fresh, known)]
        ratio = float(gaps[0].distance.mean() / gaps[1].distance.mean())
    else:
        ratio = nearest_neighbour_ratio(x, known, fresh)
    return Score(
        frechet=frechet_distance(features(x), features(fresh)),
        frechet_pixels=frechet_distance(x, fresh),
        kernel=kernel.value,
        kernel_error=kernel.standard_error or 0.0,
        neighbour_ratio=ratio,
    )


def judge(scores: Scores, name: str) -> tuple[str, str]:
    """One sentence on a model, and whether it is ``"good"``, ``"bad"`` or ``"neutral"`` news."""
    ratio, relative = scores.rows[name].neighbour_ratio, scores.relative(name)
    quality = f"the Fréchet distance to held-out digits is {relative:.2f} times that of the training digits"
    distance = f"{ratio:.2f} times as far from the nearest training digit as held-out digits are"
    if ratio < 0.5:
        return f"It copies: its samples are {distance}; {quality}.", "bad"
    if ratio < FRESH[0]:
        return f"It leans on the training digits: its samples are {distance}; {quality}.", "neutral"
    if ratio > FRESH[1] or relative > CLOSE:
        return f"It has not learned digits well yet: {quality}, and its samples are {distance}.", "neutral"
    return f"It makes new digits: its samples are {distance}, and {quality}.", "good"
