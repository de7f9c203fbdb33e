r"""How many points will matter to a row: an estimate from points whose own datum is known.

It depends on the bandwidth alone: a few noisy data :math:`s_j + h z` are held against a part of the support, and the
gaps between the exponent of their own datum and the others' are kept. It decides about speed, never about results.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fluvial.smoothing.products import inner

if TYPE_CHECKING:
    from fluvial.smoothing.support import Support

_PROBES = 8
_POINTS = 1024
_RESOLUTION = 0.1  # in the logarithm of the bandwidth
_KEPT = 256


class Probe:
    """Gaps between the exponents of own and other data, measured where they are asked for and then remembered.

    Args:
        support: The points.
    """

    def __init__(self, support: "Support") -> None:
        self._support = support
        self._gaps: dict[int, Tensor] = {}
        self._part: Tensor | None = None

    def shares(self, bandwidths: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Shares of the points whose exponents are less than ``margin`` below the own datum's.

        Args:
            bandwidths: ``sigma / alpha`` in units of the support's values, shape ``(B,)``.
            margin: In nats.

        Returns:
            The 90 % quantile and the mean over the probes at each bandwidth, ``(B,)`` both.
        """
        bins = torch.round(torch.log(bandwidths).clamp(-200, 200) / _RESOLUTION).long()
        different, inverse = torch.unique(bins, return_inverse=True)
        close = [(self._gaps_at(bin_) < margin).double().mean(1) for bin_ in different.tolist()]
        shares = torch.stack(close)
        return shares.quantile(0.9, 1)[inverse], shares.mean(1)[inverse]

    def _gaps_at(self, bin_: int) -> Tensor:
        if bin_ not in self._gaps:
            if len(self._gaps) >= _KEPT:
                self._gaps.clear()
            self._gaps[bin_] = self._measure(math.exp(bin_ * _RESOLUTION))
        return self._gaps[bin_]

    def _measure(self, bandwidth: float) -> Tensor:
        support, g = self._support, torch.Generator().manual_seed(0)
        if self._part is None:
            spread = torch.linspace(0, len(support) - 1, min(len(support), _POINTS)).long()
            self._part = torch.unique(spread).to(support.device)
        own = self._part[torch.randint(len(self._part), (_PROBES,), generator=g)]
        noise = torch.randn(_PROBES, support.dim, generator=g, dtype=torch.float32).to(support.device)
        values = support.values(self._part, torch.float32)
        centre = support.values(own, torch.float32)
        # |y - s_i|^2 - |y - s_j|^2 with y = s_j + h z, from differences of what is as small as it can be.
        apart = support.squared_norms[self._part] + support.squared_norms[own][:, None] - 2 * inner(centre, values)
        along = inner(noise, values) - (noise * centre).sum(1)[:, None]
        gaps = (0.5 * apart.clamp_min(0.0) - bandwidth * along) / bandwidth**2
        return gaps.masked_fill(self._part == own[:, None], math.inf).float()
