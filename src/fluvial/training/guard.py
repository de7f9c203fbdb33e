r"""A guard over updates: from a loss or gradient that is not finite, or a loss that leaps, no update is made.

The judgement is made on the device in the very step, by the flag that fused AdamW has for mixed precision: weights,
moments and the optimiser's own count stay as they are. The host looks at the judgements every ten steps, in one read.

A loss leaps where it lies further above the median of the last 64 than ``spike`` times their median absolute deviation,
which counts as a twentieth of the median at least: losses that hardly vary do not leap at once.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluvial.objectives import Loss
from fluvial.ranks import Ranks

WATCH_EVERY = 10
"""Steps after which skipped updates are told at the latest."""
WINDOW = 64
"""Losses that a leap is measured against."""
LEAST_SPREAD = 0.05


class SkippedUpdate(UserWarning):
    """An update was not made, because its loss or gradient was not finite, or its loss leapt."""


@dataclass(frozen=True)
class Skipped:
    """An update that was not made.

    Args:
        step: Its number, from 1.
        loss: Its loss.
        grad_norm: Norm of its gradient, before clipping.
        times: Least and greatest time among the rows to blame (of all, where no single one is); None where rows have
            none.

    Example:
        >>> print(Skipped(37, float("nan"), float("inf"), (0.91, 0.99)))
        update 37 was skipped: loss nan, gradient norm inf, times 0.91 to 0.99
    """

    step: int
    loss: float
    grad_norm: float
    times: tuple[float, float] | None = None

    @property
    def finite(self) -> bool:
        """Whether loss and gradient were finite: the loss leapt."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    def __str__(self) -> str:
        why = "the loss leapt to" if self.finite else "loss"
        times = "" if self.times is None else f", times {self.times[0]:.4g} to {self.times[1]:.4g}"
        return f"update {self.step} was skipped: {why} {self.loss:.4g}, gradient norm {self.grad_norm:.4g}{times}"

    def warn(self) -> None:
        """Say so as a warning."""
        warnings.warn(SkippedUpdate(str(self)), stacklevel=2)


@dataclass(frozen=True)
class _Judged:
    step: int
    bad: Tensor
    loss: Tensor
    norm: Tensor
    limit: Tensor
    per_sample: Tensor
    times: Tensor | None


class Guard:
    """Judges updates on the device, and tells the host of those that were skipped.

    Args:
        spike: How many median absolute deviations above the median a loss leaps; 0 lets losses leap.
        ranks: The processes that train together, which all judge alike.
        gradients: Whether a gradient that is not finite counts; a scaler of fp16 deals with those itself.

    Attributes:
        skipped: Updates skipped since the training began, up to the last look.
        in_a_row: Those without one made between.
        broken: Whether a look found values that were not finite, and nothing was done about it yet.
    """

    def __init__(self, spike: float, ranks: Ranks, *, gradients: bool = True) -> None:
        self._spike, self._ranks, self._gradients = spike, ranks, gradients
        self._recent = torch.full((WINDOW,), math.nan, device=ranks.device)
        self._limit = self._recent.new_full((), math.inf)
        self._judged: list[_Judged] = []
        self.skipped, self.in_a_row, self.broken = 0, 0, False

    def limit(self, step: int) -> Tensor:
        """The loss above which the one of step ``step`` (from 0) leaps; made anew every ten steps, infinite in the
        first 64."""
        if self._spike and step >= WINDOW and step % WATCH_EVERY == 0:
            centre = self._recent.nanmedian()  # those of skipped updates may be missing
            spread = (self._recent - centre).abs().nanmedian().clamp(min=LEAST_SPREAD * centre.abs())
            self._limit = torch.nan_to_num(centre + self._spike * spread, nan=math.inf, posinf=math.inf)
        return self._limit

    def judge(self, step: int, loss: Tensor, norm: Tensor, found: Loss, limit: Tensor) -> Tensor:
        """Whether the update is to be skipped: 1 or 0, float32, on the device.

        Args:
            step: Updates made before.
            loss: Loss of the whole batch.
            norm: Norm of the gradient before clipping.
            found: What the objective returned for this process's rows.
            limit: As :meth:`limit` was before.
        """
        loss, norm = loss.detach().float(), norm.detach().float()
        bad = ~torch.isfinite(loss + norm if self._gradients else loss) | (loss > limit)
        if self._spike:
            place = step % WINDOW
            self._recent[place] = torch.where(bad, self._recent[place], loss)
        # Not the loss that was found: it holds the whole graph.
        self._judged.append(_Judged(step, bad, loss, norm, limit, found.per_sample, found.times))
        return bad.float()

    def look(self) -> list[Skipped]:
        """The updates skipped since the last look; waits for the device. All processes look at once."""
        judged, self._judged = self._judged, []
        if not judged:
            return []
        flags = torch.stack([one.bad for one in judged]).tolist()
        for bad in flags:
            self.in_a_row = self.in_a_row + 1 if bad else 0
        self.skipped += sum(flags)
        found = [self._skipped(one) for one, bad in zip(judged, flags, strict=True) if bad]
        self.broken = self.broken or not all(skipped.finite for skipped in found)
        return found

    def _skipped(self, judged: _Judged) -> Skipped:
        times = None
        if judged.times is not None:
            blamed = ~torch.isfinite(judged.per_sample) | (judged.per_sample > judged.limit)
            any_here = self._ranks.largest(blamed.any().float())
            t = judged.times[blamed | (any_here == 0)].float()
            ends = t.new_full((2,), -math.inf) if len(t) == 0 else torch.stack([-t.min(), t.max()])
            low, high = self._ranks.largest(ends).tolist()
            times = (-low, high)
        return Skipped(judged.step + 1, float(judged.loss), float(judged.norm), times)

    def values(self) -> dict[str, Any]:
        """What a checkpoint holds as JSON, once all has been looked at."""
        values = [value if math.isfinite(value) else None for value in (*self._recent.tolist(), float(self._limit))]
        return {
            "recent": values[:-1] if self._spike else [],
            "limit": values[-1],
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "broken": self.broken,
        }

    def restore(self, values: Any, where: Path) -> None:
        """Continue from a checkpoint's JSON; None is that of a training before there were guards.

        Raises:
            ValueError: If it holds something else.
        """
        if values is None:
            return
        try:
            recent = [math.nan if value is None else float(value) for value in values["recent"]]
            skipped, in_a_row, broken = int(values["skipped"]), int(values["in_a_row"]), bool(values["broken"])
            limit = math.inf if values["limit"] is None else float(values["limit"])
            if len(recent) not in (0, WINDOW):
                raise ValueError(f"{len(recent)} losses")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{where} holds no state of the guard: {error}") from error
        self.skipped, self.in_a_row, self.broken = skipped, in_a_row, broken
        if recent and self._spike:  # which may have been edited
            self._limit = self._recent.new_full((), limit)
            self._recent = torch.tensor(recent, device=self._recent.device)
