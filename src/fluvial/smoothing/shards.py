r"""A support that is split over the ranks of a process group.

Every rank smooths over its own points; what they exchange is of the size of the question, never of the data. With
:math:`L_r` the log of a rank's prior-weighted sum of kernels, its share is :math:`p_r \propto e^{L_r}`, and means and
covariances follow from the ranks' own by the laws of total expectation and variance. As in one process, the mean is
kept as the heaviest point of all ranks plus an offset from it.
"""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from fluvial.smoothing.query import Moments, Query
from fluvial.smoothing.support import Support


class Shards:
    """This rank's part of a support, and the others'.

    Args:
        support: This rank's points; its reach becomes that of all.
        group: The ranks.

    Attributes:
        points: Number of points on all ranks.

    Raises:
        ValueError: If the ranks' points have different dimensions.
        RuntimeError: If a rank is gone.
    """

    def __init__(self, support: Support, group: dist.ProcessGroup) -> None:
        self._support, self._group = support, group
        self._rank = dist.get_rank(group)
        facts: list[tuple[int, int, list[int]]] = [(0, 0, [])] * dist.get_world_size(group)
        labels = [] if support.labels is None else torch.unique(support.labels).tolist()
        try:
            dist.all_gather_object(facts, (len(support), support.dim, labels), group=group)
        except RuntimeError as error:
            raise _lost(error) from error
        dims = sorted({dim for _, dim, _ in facts})
        if len(dims) > 1:
            raise ValueError(f"support must have one dimension on all ranks, got {dims}")
        counts = [count for count, _, _ in facts]
        self.points, self._before = sum(counts), sum(counts[: self._rank])
        self.labels = sorted({label for _, _, there in facts for label in there})
        centre = support.centre * len(support)
        centre = self._sum(centre) / self.points
        reach = support.reach + float(torch.linalg.vector_norm(support.centre - centre))
        support.reach = float(self._max(torch.tensor([reach], dtype=torch.float64)))

    def joined(self, query: Query, found: Moments) -> tuple[Tensor, Moments]:
        """The heaviest points of all ranks, in data units, ``(B, d)``, and the moments over all points.

        Args:
            query: The rows, in data units; the same on every rank.
            found: Moments over this rank's points, with statistics.

        Raises:
            ValueError: If the ranks were not given the same rows.
            RuntimeError: If a rank is gone.
        """
        own = found.log_kernel - torch.log(found.normaliser)
        check = query.x.double().sum()
        best = self._max(torch.cat([own, check[None], -check[None]]))
        if float(best[-2] + best[-1]) != 0 and bool(torch.isfinite(check)):
            raise ValueError("x must be the same on every rank of the group")
        best = best[:-2]
        world = dist.get_world_size(self._group)
        owner = -self._max(-torch.where(own == best, float(self._rank), float(world)).double())
        mine = owner == self._rank
        top = self._support.data(found.top_index, query.x.dtype)
        heaviest = self._sum(torch.where(mine[:, None], top, torch.zeros_like(top)))
        fall = torch.nan_to_num(own - best, nan=0.0, posinf=0.0)
        fall = torch.where(own == -torch.inf, -torch.inf, fall)
        scale = torch.exp(fall)
        weight = scale * found.normaliser
        total = self._sum(weight)
        share = (weight / total)[:, None]
        unit = self._support.unit
        offset = self._sum(share.to(top.dtype) * ((top - heaviest) + found.offset * unit)) / unit
        finite = torch.where(scale > 0, fall, 0.0)
        sums = torch.stack([
            scale.square() * found.squares,
            scale * (found.surprise + finite * found.normaliser),
            scale * found.omitted,
            torch.where(mine, found.top_index + self._before, 0).double(),
        ])  # fmt: skip
        squares, surprise, omitted, index = self._sum(sums)
        slack = self._max(found.slack)
        return heaviest, replace(
            found, top_index=index.long(), offset=offset, normaliser=total, squares=squares, surprise=surprise,
            log_kernel=best + torch.log(total), slack=slack, omitted=omitted,
        )  # fmt: skip

    def trace(self, local: Tensor, found: Moments, mean: Tensor, whole: Moments, whole_mean: Tensor) -> Tensor:
        """Trace of the covariance over all points, in data units, from the ranks' own; float64 ``(B,)``.

        Args:
            local: Trace over this rank's points, in data units.
            found: This rank's moments.
            mean: Its mean, in data units.
            whole: The moments over all points.
            whole_mean: Their mean.
        """
        share = torch.exp(found.log_kernel - whole.log_kernel)
        apart = (mean.double() - whole_mean.double()).square().sum(1)
        return self._sum(torch.where(share > 0, share * (local + apart), 0.0))

    def log_total(self, local: Tensor) -> Tensor:
        """Log of the sum over ranks of what ``local`` is the log of, ``(B,)``."""
        best = self._max(local)
        return best + torch.log(self._sum(torch.exp(local - torch.where(best == -torch.inf, 0.0, best))))

    def _sum(self, value: Tensor) -> Tensor:
        return self._reduced(value, dist.ReduceOp.SUM)

    def _max(self, value: Tensor) -> Tensor:
        return self._reduced(value, dist.ReduceOp.MAX)

    def _reduced(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        result = value.contiguous().clone()
        try:
            dist.all_reduce(result, operation, group=self._group)
        except RuntimeError as error:
            raise _lost(error) from error
        return result


def _lost(error: RuntimeError) -> RuntimeError:
    reason = (str(error).splitlines() or ["no reason given"])[0]
    return RuntimeError(f"exact field: a rank of the group is gone or out of step ({reason})")
