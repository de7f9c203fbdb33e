"""Memorization: are samples nearer to the training data than fresh data are, and which of them are copies?

Held-out data say how near fresh data come. The finding compares distances (ratio of means, C_T test, ranks as
p-values), looks for copies by the local ratio (:mod:`~fluvial.audits.copies`), and raises an alarm at a stated rate of
false ones.
"""

import torch
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

from fluvial.audits.copies import exact_copies, find_copies, standing, standing_left_out
from fluvial.audits.finding import Finding
from fluvial.audits.memorization_drawings import Shown
from fluvial.audits.memorization_figures import Evidence, figures, samples_shown
from fluvial.audits.memorization_view import present
from fluvial.audits.ranges import check_same_range
from fluvial.kinds import checked
from fluvial.metrics.copying_test import CTTest, ct_test, rank_z_score
from fluvial.metrics.duplicates import find_duplicates
from fluvial.metrics.matrix import Samples, as_pair
from fluvial.progress import Progress, ProgressCallback

KINDS = ("points", "image", "table")
LEAST_HELD_OUT = 20
LEAST_SAMPLES = 2
SHOWN = 10
_SCATTERED = 2000  # points of either set in a picture of the plane


@checked
def memorization(
    samples: Samples,
    train: Samples,
    held_out: Samples | None = None,
    *,
    alpha: float = 0.01,
    kind: str = "points",
    seed: int = 0,
    show: int = SHOWN,
    progress: ProgressCallback | None = None,
) -> Finding:
    """Whether samples are copies of training data, and whether they lie nearer to them than fresh data do.

    Args:
        samples: Generated samples, shape (n, ...), n >= 2.
        train: Training data, shape (N, ...), at least 4 of them distinct.
        held_out: Data of the same source that were not trained on, shape (m, ...), m >= 20. Without any, the training
            data themselves, each left out in turn, take their place.
        alpha: False-alarm rate: of fresh data offered as samples, at most this share raises the alarm.
        kind: ``"points"``, ``"image"`` (in [-1, 1]: equal as uint8 is equal, pairs are shown as pictures) or
            ``"table"``.
        seed: Seed of the partition of the C_T test.
        show: Copies, or nearest samples, to show beside their training data.
        progress: Called while the neighbours are searched.

    Returns:
        A finding whose ``data`` holds, among others, ``alarm``, ``copies``, ``copy_rate`` with its interval and
        ``copy_rate_upper``, ``copied_samples`` and ``copied_train`` (rows, the nearest first), ``ratio`` (mean nearest
        distance over that of fresh data), ``c_t``, ``authenticity``, ``dcr``, ``nndr``, ``duplicates`` and
        ``p_values`` of all samples.

    Raises:
        TypeError: If a set holds no floating point numbers.
        ValueError: If a set has too few rows or is not finite, shapes or ranges differ, an argument is out of range,
            or every held-out datum is also a training datum.

    Source:
        Meehan et al. 2020 (C_T); Alaa et al. 2022 (authenticity); Bates et al. 2023 (p-values).

    Example:
        >>> from fluvial.audits.memorizing import memorization
        >>> x = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
        >>> found = memorization(x[:50], x[:400], x[400:500])
        >>> found.data["copy_rate"], found.data["alarm"]
        (1.0, True)
    """
    points, known, fresh = _checked(samples, train, held_out, alpha, kind, show)
    count = len(known) + len(points) + (0 if fresh is None else len(fresh))
    duplicates = find_duplicates(known, name="train", progress=_part(progress, 0, len(known), count))
    first = duplicates.distinct.first
    alone = torch.equal(first, torch.arange(len(known)))
    rows = known if alone else known[first.to(known.device)]  # large data are copied only where some are equal
    ours = standing(points, rows, duplicates, _part(progress, len(known), len(points), count))
    left_out = standing_left_out(duplicates)
    theirs, null, test = left_out, left_out.ratio, None
    if fresh is not None:
        theirs = standing(fresh, rows, duplicates, _part(progress, len(known) + len(points), len(fresh), count))
        null = torch.cat([left_out.ratio, theirs.ratio])
        test = ct_test(points, rows, fresh, seed=seed)
    if float(theirs.distance.mean()) == 0:
        raise ValueError("held_out must differ from train: every held-out row is also a training row")
    exact = exact_copies(points, rows, ours.datum, kind)
    copies = find_copies(ours, exact, null)
    if test is None:
        z = rank_z_score(ours.distance.numpy(), theirs.distance.numpy())
        test = CTTest(z, float(norm.cdf(z)), (z,), (1.0,), 1)
    evidence = Evidence(ours, theirs, left_out, exact, copies, duplicates, test, fresh is not None)
    data = {"kind": kind, "alpha": alpha, "seed": seed, **figures(evidence, alpha)}
    chosen = samples_shown(evidence, show)
    origin = duplicates.distinct.first[ours.datum[chosen]]
    shape = tuple(train.shape[1:])
    pictures = Shown(
        sample=points[chosen.to(points.device)].cpu().unflatten(1, shape or (1,)),
        datum=known[origin.to(known.device)].cpu().unflatten(1, shape or (1,)),
        rows=tuple(zip(chosen.tolist(), origin.tolist(), ours.ratio[chosen].tolist(), strict=True)),
        samples=points[:_SCATTERED].cpu(),
        train=known[:_SCATTERED].cpu(),
    )
    return present(data, pictures)


def _checked(
    samples: Samples, train: Samples, held_out: Samples | None, alpha: float, kind: str, show: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "N d"], Float[Tensor, "m d"] | None]:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    if show < 0:
        raise ValueError(f"show must not be negative, got {show}")
    sets = {"samples": samples} if held_out is None else {"samples": samples, "held_out": held_out}
    for name, value in sets.items():
        if tuple(value.shape[1:]) != tuple(train.shape[1:]):
            shapes = tuple(value.shape[1:]), tuple(train.shape[1:])
            raise ValueError(f"{name} must have rows of train's shape {shapes[1]}, got {shapes[0]}")
        check_same_range(value, train, kind, name=name)
    points, known = as_pair(samples, train, ("samples", "train"))
    points = points.to(known.device)
    if len(points) < LEAST_SAMPLES:
        raise ValueError(f"samples must have at least {LEAST_SAMPLES} rows, got {len(points)}")
    if held_out is None:
        return points, known, None
    fresh = as_pair(held_out, known, ("held_out", "train"))[0].to(known.device)
    if len(fresh) < LEAST_HELD_OUT:
        raise ValueError(
            f"held_out must have at least {LEAST_HELD_OUT} rows, got {len(fresh)}: "
            "leave it out to compare with the training data themselves"
        )
    return points, known, fresh


def _part(progress: ProgressCallback | None, start: int, size: int, total: int) -> ProgressCallback | None:
    """Progress of one of several searches as that of the whole."""
    if progress is None:
        return None
    return lambda p: progress(Progress("memorization", start + int(size * p.fraction), total))
