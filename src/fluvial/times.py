r"""Which flow times a net is trained on.

The regression has the same optimum at every time, so a time sampler changes no answer: it decides how much of
the training goes to which part of the flow. Times are drawn on the generator's device and moved afterwards,
so that a seed gives the same times wherever the net runs. They lie in [0, 1): at ``t = 1`` some velocities
have no value.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_generator
from fluvial.devices import to_device
from fluvial.kinds import checked

__all__ = ["LogUniformBandwidth", "LogitNormal", "OrderedPairs", "Pairs", "SeparatePairs", "Times", "Uniform"]


@runtime_checkable
class Times(Protocol):
    """Anything that draws flow times: ``times(count, generator=..., dtype=..., device=...) -> (count,)``."""

    def __call__(
        self,
        count: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor: ...


@dataclass(frozen=True)
class Uniform:
    """Uniform times on [0, 1).

    Source: Lipman et al. 2023, "Flow Matching for Generative Modeling", equation 5.

    Example:
        >>> Uniform()(2, generator=torch.Generator().manual_seed(0))
        tensor([0.4963, 0.7682])
    """

    def __call__(
        self,
        count: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, " count"]:
        """Draw ``count`` times.

        Args:
            count: How many, at least 0.
            generator: Where the randomness comes from.
            dtype: Floating-point type of the times.
            device: Where the times go.

        Raises:
            TypeError: If ``count`` is no whole number, or ``generator`` no generator.
            ValueError: If ``count`` is negative or ``dtype`` is not a floating-point type.
        """
        return _below_one(_uniform(count, generator, dtype), dtype, device)


@checked
@dataclass(frozen=True)
class LogitNormal:
    r"""Times whose logit is normal: :math:`\log(t / (1 - t)) \sim N(\mathrm{mean}, \mathrm{std}^2)`.

    Source: Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
    section 3.1.

    Args:
        mean: Mean of the logit; positive values favour times near the data.
        std: Standard deviation of the logit, positive.

    Raises:
        ValueError: If ``mean`` is not finite or ``std`` is not positive and finite.

    Example:
        >>> LogitNormal(mean=0.6, std=1.6)(2, generator=torch.Generator().manual_seed(0))
        tensor([0.9555, 0.5326])
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"mean must be finite, got {self.mean}")
        if not (self.std > 0 and math.isfinite(self.std)):
            raise ValueError(f"std must be positive and finite, got {self.std}")

    def __call__(
        self,
        count: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, " count"]:
        """Draw ``count`` times; arguments and errors as in :meth:`Uniform.__call__`."""
        _check(count, generator, dtype)
        normal = torch.randn(count, generator=generator, dtype=_drawn(dtype), device=generator.device)
        return _below_one(torch.sigmoid(self.mean + self.std * normal), dtype, device)


@checked
@dataclass(frozen=True)
class LogUniformBandwidth:
    r"""Times whose bandwidth is uniform on a logarithmic scale, so that every scale of the data gets equal
    work.

    The bandwidth is that of the straight path, :math:`h = (1 - t)/t`, whatever path the net is trained on:
    this sampler is a distribution of times and knows no path. So :math:`t = 1/(1 + h)` with
    :math:`\log h \sim U[\log \mathrm{low}, \log \mathrm{high}]`, and times lie between 1/(1 + high) and 1/(1
    + low).

    Args:
        low: Smallest bandwidth, in data units.
        high: Largest bandwidth, in data units.

    Raises:
        ValueError: Unless ``0 < low < high`` and both are finite.

    Example:
        >>> LogUniformBandwidth()(2, generator=torch.Generator().manual_seed(0))
        tensor([0.5086, 0.0780])
    """

    low: float = 0.01
    high: float = 100.0

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high and math.isfinite(self.high)):
            raise ValueError(f"bandwidths must satisfy 0 < low < high < inf, got low={self.low}, high={self.high}")

    def __call__(
        self,
        count: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, " count"]:
        """Draw ``count`` times; arguments and errors as in :meth:`Uniform.__call__`."""
        share = _uniform(count, generator, dtype)
        log_low, log_high = math.log(self.low), math.log(self.high)
        return _below_one(torch.sigmoid(-(log_low + (log_high - log_low) * share)), dtype, device)


@runtime_checkable
class Pairs(Protocol):
    """Anything that draws pairs of flow times ``t <= r``, each of shape ``(count,)``, as :class:`Times` draws one."""

    def __call__(
        self,
        count: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> tuple[Tensor, Tensor]: ...


@checked
@dataclass(frozen=True)
class OrderedPairs:
    """Two draws of the same distribution, the earlier as ``t`` and the later as ``r``.

    Source: Geng et al. 2025, "Mean Flows for One-step Generative Modeling", section 4.1.

    Args:
        times: Distribution of both.

    Example:
        >>> t, r = OrderedPairs()(3, generator=torch.Generator().manual_seed(0))
        >>> bool((t <= r).all())
        True
    """

    times: Times = field(default_factory=Uniform)

    def __call__(
        self,
        count: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> tuple[Float[Tensor, " count"], Float[Tensor, " count"]]:
        """Draw ``count`` pairs; arguments and errors as in :meth:`Uniform.__call__`."""
        a, b = (self.times(count, generator=generator, dtype=dtype, device=device) for _ in range(2))
        return torch.minimum(a, b), torch.maximum(a, b)


@checked
@dataclass(frozen=True)
class SeparatePairs:
    """``t`` and ``r`` from a distribution each; where ``r`` comes out before ``t`` it is ``t``.

    The defaults are those of the official CIFAR-10 runs of Mean Flows, mirrored to this clock: ``r`` is nearly always
    close to the data, as in sampling in one step.

    Args:
        start: Distribution of ``t``.
        end: Distribution of ``r``.

    Example:
        >>> t, r = SeparatePairs()(3, generator=torch.Generator().manual_seed(0))
        >>> bool((t <= r).all())
        True
    """

    start: Times = LogitNormal(0.6, 1.6)
    end: Times = LogitNormal(4.0, 1.6)

    def __call__(
        self,
        count: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> tuple[Float[Tensor, " count"], Float[Tensor, " count"]]:
        """Draw ``count`` pairs; arguments and errors as in :meth:`Uniform.__call__`."""
        t, r = (each(count, generator=generator, dtype=dtype, device=device) for each in (self.start, self.end))
        return t, torch.maximum(t, r)


def _check(count: int, generator: torch.Generator, dtype: torch.dtype) -> None:
    require_generator(generator)
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"count must be a whole number, got {count!r}")
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    if count >= 2**63:
        raise ValueError(f"count must be below 2^63, got {count}")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type, got {dtype}")


def _drawn(dtype: torch.dtype) -> torch.dtype:
    """Type in which a draw is made: half precision has too few values between 0 and 1."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _uniform(count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    _check(count, generator, dtype)
    return torch.rand(count, generator=generator, dtype=_drawn(dtype), device=generator.device)


def _below_one(t: Tensor, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Cast, then keep below 1: rounding and a saturated sigmoid both give exactly 1."""
    largest = 1 - torch.finfo(dtype).eps / 2
    return to_device(t.to(dtype).clamp(max=largest), device)
