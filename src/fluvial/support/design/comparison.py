"""One field sampled on several grids of time: the same tasks, supports, noise and targets, so that grids alone differ.

Figures are taken task by task and their differences from the first grid get intervals over tasks. Beside the distances
to fresh targets, which hold the error of the field and the chance of the support as well, stands the distance of each
sample from where the field itself would take its noise: the error of the solver alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.energy import batched_energy_distance
from fluvial.metrics.mmd import batched_median_distance, batched_mmd2
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.solvers import solve
from fluvial.support.evaluation.intervals import Interval, difference_interval, mean_interval
from fluvial.support.evaluation.modes import evaluation_mode
from fluvial.support.tasks.base import Family, require_counts

_FOLLOWED = 100  # samples of a task that are followed to where the field takes them
_REFERENCE_STEPS = 240


@dataclass(frozen=True)
class GridComparison:
    """Samples of one field on several grids, each figure of shape ``(B,)``, one for each task, float64.

    Args:
        names: The grids; the first is what the others are compared with.
        evaluations: Evaluations of the field on each.
        mmd2: Unbiased squared MMD from the targets, by grid.
        energy: Unbiased energy distance from the targets, by grid.
        distance: Root-mean-square distance from the ends of the exact flow of the same noise, by grid, in data units.
    """

    names: tuple[str, ...]
    evaluations: Mapping[str, int]
    mmd2: Mapping[str, Float[Tensor, " B"]]
    energy: Mapping[str, Float[Tensor, " B"]]
    distance: Mapping[str, Float[Tensor, " B"]]

    def difference(self, name: str, figure: str = "mmd2") -> Interval:
        """Mean over tasks of a figure on a grid minus that on the first one, with its 95 % interval.

        Args:
            name: The grid.
            figure: ``"mmd2"``, ``"energy"`` or ``"distance"``.

        Raises:
            ValueError: If there is no such grid or figure.
        """
        values = self._figure(figure)
        if name not in values:
            raise ValueError(f"name must be one of {', '.join(self.names)}, got {name!r}")
        return difference_interval(values[name], values[self.names[0]])

    def rows(self) -> list[dict[str, Any]]:
        """Plain values for a table or ``json.dump``: one row for each grid."""
        found = []
        for name in self.names:
            row: dict[str, Any] = {"grid": name, "evaluations": self.evaluations[name]}
            for figure in ("mmd2", "energy", "distance"):
                row[figure] = mean_interval(self._figure(figure)[name]).to_dict()
                row[f"{figure}_difference"] = self.difference(name, figure).to_dict()
            found.append(row)
        return found

    def _figure(self, figure: str) -> Mapping[str, Tensor]:
        known = {"mmd2": self.mmd2, "energy": self.energy, "distance": self.distance}
        if figure not in known:
            raise ValueError(f"figure must be one of {', '.join(known)}, got {figure!r}")
        return known[figure]


@checked
def compare_grids(
    model: Callable[..., Tensor],
    family: Family,
    grids: Mapping[str, Sequence[float]],
    *,
    method: str = "euler",
    m: int = 50,
    tasks: int = 100,
    points: int = 500,
    reference: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> GridComparison:
    """Samples a field for batches of tasks on each grid, from the same noise, and compares with fresh targets.

    Args:
        model: Field for a batch of tasks, ``model(x (B, n, d), t (B,), support (B, m, d))``: a trained
            :class:`~fluvial.nn.SupportNet`, or :class:`~fluvial.support.KernelAttention`.
        family: The tasks, those of no training.
        grids: Nodes of time by name, as for ``fv.solve``; the first is the baseline.
        method: A fixed-step method.
        m: Size of the supports.
        tasks: How many tasks, at least 2.
        points: Samples and targets of each task, at least 2; the kernel's bandwidth is the median distance of the
            targets.
        reference: Nodes on which 100 samples of each task are followed with Heun's method to the end of the flow; 240
            equal steps if absent.
        device: Where the model computes.
        seed: Seed of tasks and noise.
        progress: Called after each grid.

    Returns:
        The figures of each task.

    Raises:
        ValueError: If there is no grid, a number is out of range, or a grid is none for ``fv.solve``.

    Example:
        >>> from fluvial.support import KernelAttention
        >>> from fluvial.support.design import compare_grids
        >>> from fluvial.support.tasks import Moons
        >>> grids = {"coarse": [0, 0.5, 1], "fine": np.linspace(0, 1, 21)}
        >>> found = compare_grids(KernelAttention(), Moons(), grids, tasks=4, points=50)
        >>> found.difference("fine", "distance").high < 0
        True
    """
    require_counts(m=m)
    for argument, count in (("tasks", tasks), ("points", points)):
        if count < 2:
            raise ValueError(f"{argument} must be at least 2, got {count}")
    if not grids:
        raise ValueError("grids must hold at least one grid")
    drawn = family.batch(tasks, m, points, generator(seed, 0))
    support, targets = drawn.support.to(device), drawn.targets
    x0 = torch.randn(targets.shape, generator=generator(seed, 1), dtype=targets.dtype).to(device)
    bandwidth = batched_median_distance(targets)
    followed = x0[:, :_FOLLOWED]
    figures: tuple[dict[str, Tensor], ...] = ({}, {}, {})
    evaluations = {}
    with torch.no_grad(), evaluation_mode(model):
        way: dict[str, Any] = {"steps": _REFERENCE_STEPS} if reference is None else {"grid": reference}
        ends = solve(model, followed, method="heun", cond=support, **way).x.cpu().double()
        for number, (name, grid) in enumerate(grids.items(), start=1):
            found = solve(model, x0, method=method, grid=grid, cond=support)
            x, evaluations[name] = found.x.cpu(), found.evaluations
            error = (x[:, :_FOLLOWED].double() - ends).square().sum(-1).mean(1).sqrt()
            values = (batched_mmd2(x, targets, bandwidth), batched_energy_distance(x, targets), error)
            for figure, value in zip(figures, values, strict=True):
                figure[name] = value
            if progress is not None:
                progress(Progress("compare grids", number, len(grids)))
    return GridComparison(tuple(grids), evaluations, *figures)
