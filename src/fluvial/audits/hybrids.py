"""From which time on a learned field decides what comes out: the exact field until tau and the learned one after.

From one set of noises the exact field alone ends on training data. With the learned field after tau, samples leave
them where what the exact field did until then still allows another end. The reverse, learned until tau and exact
after, ends on training data too; whether on the same ones tells how early the learned field goes its own way.

Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", section 4.2 and figure 3. The source measures
LPIPS to the nearest training image; here the distance is Euclidean, and the reverse and the share of equal ends are
added.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from fluvial.audits.draws import check_count, check_rows, check_same_path, check_same_rows, choose_rows, crossing
from fluvial.audits.finding import Finding
from fluvial.audits.hybrid_view import SHOWN, hybrid_finding
from fluvial.audits.hybrid_walk import Counter, Mover
from fluvial.fields.base import Field
from fluvial.kinds import checked
from fluvial.metrics import nearest_neighbours
from fluvial.metrics.frechet import GaussianStatistics
from fluvial.paths import GaussianPath
from fluvial.progress import ProgressCallback
from fluvial.randomness import generator, noise
from fluvial.solvers import FIXED_METHODS

DEFAULT_TAUS = 10
_KINDS = ("image", "points", "table")


@checked
def hybrid(
    field: Field,
    exact: Field,
    train: Float[Tensor, "N ..."],
    *,
    held_out: Float[Tensor, "M ..."] | None = None,
    taus: Sequence[float] | int | None = None,
    collapse_time: float | None = None,
    n: int = 256,
    steps: int = 100,
    method: str = "euler",
    cond: Tensor | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    kind: str = "image",
    reservation: str = "",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Finding:
    """Samples of the exact field until tau and the learned one after, and of the reverse, over one set of noises.

    All hybrids share one grid of ``steps`` equal steps, to whose nodes the taus are rounded; the way until tau is
    walked once for all of them. Each sample is what :func:`fluvial.solvers.solve` makes of ``Hybrid(exact, field,
    tau)`` on that grid. No gradients are recorded.

    Args:
        field: The learned field.
        exact: The exact field that it was trained towards.
        train: The data of the exact field, shape (N, *D).
        held_out: Data of the same source that were not trained on, shape (M, *D), for the Fréchet distance; None
            leaves it out.
        taus: Times of the change, in [0, 1]; 0 and 1 are always among them. Or how many, by default 10: 1 itself and
            the rest at equal distances from 0 to twice the collapse time, to 1 if that is not known.
        collapse_time: When the posterior of the training data collapses, in (0, 1), as
            :func:`fluvial.collapse_time` measures it; None if it is not known.
        n: Noises, at least 2; all are moved together.
        steps: Steps of the solver from t = 0 to 1.
        method: Fixed-step method of the solver: ``"euler"``, ``"midpoint"``, ``"heun"`` or ``"rk4"``.
        cond: Conditions of the noises, shape (n, ...), handed to both fields.
        features: Features in which the Fréchet distance is measured; the data themselves by default.
        kind: What the data are: ``"image"``, ``"points"`` or ``"table"``. Images of shape (1 or 3, H, W) are shown.
        reservation: Why the finding does not bear on the verdict; empty if it does.
        seed: Seed of the noises.
        progress: Called after every step of the solver.

    Returns:
        A finding whose ``data`` holds ``taus`` and, in ``exact_first`` and ``learned_first``, lists over them:
        ``share`` of the samples whose nearest training datum is the one where the exact field alone ends, with its
        ``share_interval`` (95 %, Wilson), ``distance`` (mean, to the nearest training datum, in data units) and
        ``frechet`` (to ``held_out``, in squared units of the features, else None). ``critical_tau`` is where the
        share comes to one half, linear between taus: for ``exact_first`` the time from which it is above, 0 if it
        always is; for ``learned_first`` the time from which it is below, None if it never is. ``midway_tau`` is where
        the exact-first share has come half of its way from tau = 0 to 1. With a collapse time there are
        ``critical_over_collapse``, ``early_change`` (largest difference of the exact-first share from that at tau = 0,
        over tau <= t_c / 2) and ``late_share`` (its least value over tau >= 3 t_c / 2, None if there is no such tau).
        ``reference_distance`` and ``reference_frechet`` are those of as many held-out and training data.

    Raises:
        TypeError: If data are no floating point numbers.
        ValueError: If an argument is out of range, shapes disagree, or an integration fails.

    Source:
        Bertrand et al. 2025, section 4.2, figure 3.

    Example:
        >>> points = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        >>> other = fv.ExactField(points + torch.tensor([0.0, 3.0]))
        >>> found = hybrid(other, fv.ExactField(points), points, taus=[0.0, 1.0], n=8, kind="points")
        >>> [round(distance, 3) for distance in found.data["exact_first"]["distance"]]
        [3.0, 0.0]
    """
    _check(train, held_out, n, steps, method, kind, seed)
    _check_fields(field, exact, train, cond, n)
    nodes = _nodes(taus, collapse_time, steps)
    x0 = noise(seed, 0, n, tuple(train.shape[1:]), train.dtype).to(train.device)
    mover = Mover(steps, method, cond, Counter(progress, 2 * sum(steps - k for k in nodes[1:]) + 2 * steps))
    # the learned field first: it is the cheaper one, and the one that may fail
    walks = {"learned_first": mover.states(field, x0, nodes), "exact_first": mover.states(exact, x0, nodes)}
    alone = {name: states[-1] for name, states in walks.items()}
    judge = _Judge.of(alone["exact_first"], train, held_out, features)
    curves, pictures = {}, {}
    for name, after, other in (("exact_first", field, "learned_first"), ("learned_first", exact, "exact_first")):
        inner = [mover.rest(after, x, node) for x, node in zip(walks[name][1:-1], nodes[1:-1], strict=True)]
        ends = [alone[other], *inner, alone[name]]
        curves[name] = _curves([judge(x) for x in ends])
        pictures[name] = [x[:SHOWN].cpu() for x in ends]
    times = [node / steps for node in nodes]
    data = {"taus": times, "n": n, "steps": steps, "method": method, "seed": seed, "collapse_time": collapse_time}
    data |= {**curves, **_critical(times, curves, collapse_time, steps), **_references(judge, train, held_out, n, seed)}
    return hybrid_finding(data, pictures if kind == "image" else {}, reservation)


def _check(train: Tensor, held_out: Tensor | None, n: int, steps: int, method: str, kind: str, seed: int) -> None:
    for name, value, minimum in (("n", n, 2), ("steps", steps, 2), ("seed", seed, 0)):
        check_count(name, value, minimum)
    if method not in FIXED_METHODS:
        raise ValueError(f"method must be one of {', '.join(FIXED_METHODS)}, got {method!r}")
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    check_rows("train", train)
    if held_out is not None:
        check_rows("held_out", held_out, minimum=2)
        check_same_rows(train, held_out)


def _check_fields(field: Field, exact: Field, train: Tensor, cond: Tensor | None, n: int) -> None:
    path, shape = getattr(exact, "path", None), getattr(exact, "shape", None)
    if isinstance(path, GaussianPath):
        check_same_path("field", field, path)
    if isinstance(shape, tuple) and shape != tuple(train.shape[1:]):
        raise ValueError(
            f"exact must be a field of data of the shape of train's, {tuple(train.shape[1:])}, got {shape}"
        )
    if cond is not None and len(cond) != n:
        raise ValueError(f"cond must have {n} rows, one for each noise, got {len(cond)}")


def _nodes(taus: Sequence[float] | int | None, collapse: float | None, steps: int) -> list[int]:
    """The nodes of the grid where fields change, the first and the last among them."""
    if collapse is not None and not 0 < collapse < 1:
        raise ValueError(f"collapse_time must be in (0, 1), got {collapse}")
    if taus is None or isinstance(taus, int):
        count = DEFAULT_TAUS if taus is None else taus
        check_count("taus", count, 3)
        last = 1.0 if collapse is None else min(2 * collapse, 1.0)
        taus = [last * k / (count - 2) for k in range(count - 1)]
    times = [float(tau) for tau in taus]
    if not times or not all(0 <= tau <= 1 for tau in times):
        raise ValueError(f"taus must be numbers in [0, 1], at least one, got {times}")
    return sorted({0, steps, *(round(tau * steps) for tau in times)})


@dataclass(frozen=True)
class _Judge:
    """Holds samples against the training data, the ends of the exact field, and held-out data."""

    train: Tensor
    ends: Tensor
    held_out: GaussianStatistics | None
    features: Callable[[Tensor], Tensor]

    @classmethod
    def of(
        cls, exact_ends: Tensor, train: Tensor, held_out: Tensor | None, features: Callable[[Tensor], Tensor] | None
    ) -> "_Judge":
        describe = features if features is not None else lambda x: x.flatten(1)
        statistics = None if held_out is None else GaussianStatistics.of(describe(held_out))
        return cls(train, train[nearest_neighbours(exact_ends, train).index], statistics, describe)

    def __call__(self, x: Tensor) -> dict[str, Any]:
        found = nearest_neighbours(x, self.train)
        # by value: equal data are one place
        same: Bool[Tensor, " B"] = (self.train[found.index] == self.ends).flatten(1).all(1)
        share = float(same.double().mean())
        return {
            "share": share,
            "share_interval": _wilson(share, len(x)),
            "distance": float(found.distance.mean()),
            "frechet": self.frechet(x),
        }

    def frechet(self, x: Tensor) -> float | None:
        """Fréchet distance to the held-out data, in features."""
        return None if self.held_out is None else GaussianStatistics.of(self.features(x)).distance(self.held_out)


def _wilson(share: float, count: int) -> list[float]:
    """Wilson's 95 % interval of a share."""
    z2 = 1.96**2 / count
    middle, half = share + z2 / 2, math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return [max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))]


def _curves(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def _critical(
    times: Sequence[float], curves: dict[str, dict[str, Any]], collapse: float | None, steps: int
) -> dict[str, Any]:
    share, reverse = curves["exact_first"]["share"], curves["learned_first"]["share"]
    critical = {
        "exact_first": crossing(times, share, 0.5),
        "learned_first": crossing(times, [1 - part for part in reverse], 0.5),
    }
    midway, slack = crossing(times, share, (share[0] + 1) / 2), 0.5 / steps  # taus were rounded to nodes
    if collapse is None:
        return {"critical_tau": critical, "midway_tau": midway}
    early = [abs(part - share[0]) for tau, part in zip(times, share, strict=True) if tau <= 0.5 * collapse + slack]
    late = [part for tau, part in zip(times, share, strict=True) if tau >= 1.5 * collapse - slack]
    return {
        "critical_tau": critical,
        "midway_tau": midway,
        "critical_over_collapse": {k: None if tau is None else tau / collapse for k, tau in critical.items()},
        "early_change": max(early),
        "late_share": min(late) if late else None,
    }


def _references(judge: _Judge, train: Tensor, held_out: Tensor | None, n: int, seed: int) -> dict[str, float | None]:
    """What fresh data would show: n held-out data's distance to train, and n training data's Fréchet distance."""
    if held_out is None:
        return {"reference_distance": None, "reference_frechet": None}
    fresh = held_out[choose_rows(len(held_out), min(n, len(held_out)), generator(seed, 0)).to(held_out.device)]
    known = train[choose_rows(len(train), n, generator(seed, 1)).to(train.device)]
    distance = float(nearest_neighbours(fresh, train).distance.mean())
    return {"reference_distance": distance, "reference_frechet": judge.frechet(known)}
