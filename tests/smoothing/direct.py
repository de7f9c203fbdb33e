"""Direct sums in float64, from differences, that the engine is held against; and data that are hard on it."""

from dataclasses import dataclass

import torch
from torch import Tensor

import fluvial as fv

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sums:
    """Posterior of each row: weights ``(B, N)``, mean ``(B, d)``, log of the sum of kernels ``(B,)``."""

    weights: Tensor
    mean: Tensor
    log_kernel: Tensor
    data: Tensor

    @property
    def entropy(self) -> Tensor:
        """In nats, ``(B,)``."""
        return -torch.xlogy(self.weights, self.weights).sum(1)

    @property
    def effective(self) -> Tensor:
        """Effective sample size, ``(B,)``."""
        return 1 / self.weights.square().sum(1)

    @property
    def spread(self) -> Tensor:
        """Trace of the covariance, ``(B,)``."""
        apart = torch.stack([(self.data - mean).square().sum(1) for mean in self.mean])
        return (self.weights * apart).sum(1)


def in_data_units(support: Tensor) -> Tensor:
    """A support as float64 numbers, ``(N, d)``."""
    data = support.double().flatten(1)
    return data / 127.5 - 1 if support.dtype == torch.uint8 else data


def exponents(support: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, prior: Tensor | None = None) -> Tensor:
    """Exponents of all points at every row, float64 ``(B, N)``."""
    data = in_data_units(support)
    rows = zip(x.double().flatten(1), alpha.double(), sigma.double(), strict=True)
    found = torch.stack([-0.5 * ((row - a * data).square().sum(1) / s.square()) for row, a, s in rows])
    return found if prior is None else found + prior.double()


def direct(
    support: Tensor, x: Tensor, t: Tensor, path: fv.GaussianPath | None = None, prior: Tensor | None = None
) -> Sums:
    """The posterior by definition; at sigma = 0 its limit."""
    path = fv.CondOT() if path is None else path
    times = t.double().expand(len(x))
    sigma = path.sigma(times)
    found = exponents(support, x, path.alpha(times), sigma.masked_fill(sigma == 0, 1e-30), prior)
    weights, data = torch.softmax(found, 1), in_data_units(support)
    top = data[weights.argmax(1)]
    # About the top point, so that nothing cancels where it is nearly alone.
    offset = torch.stack([w @ (data - at) for w, at in zip(weights, top, strict=True)])
    return Sums(weights, top + offset, torch.logsumexp(found, 1), data)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(kind: str, n: int, d: int, seed: int = 0) -> Tensor:
    """Data of a kind that is hard on approximate products, float32 ``(n, d)``."""
    g = generator(seed)
    data = torch.randn(n, d, generator=g, dtype=torch.float64)
    if kind == "offset":
        data += 100
    elif kind == "duplicates":
        data = data[: max(1, n // 3)].repeat(3, 1)
        data = torch.cat([data, data[: n - len(data)]]) if len(data) < n else data
    elif kind == "near":
        data = data[torch.arange(n) % max(1, n // 4)] + 1e-3 * data
    elif kind == "dominant":
        data[:, d // 2] *= 1e4
    elif kind == "huge":
        data *= 1e8
    elif kind == "tiny":
        data *= 1e-12
    elif kind == "constant":
        data = torch.linspace(0.5, 1, n, dtype=torch.float64)[:, None].expand(n, d).contiguous()
    elif kind == "low rank":  # near neighbours at every scale
        data = torch.randn(n, 2, generator=g, dtype=torch.float64) @ torch.randn(2, d, generator=g, dtype=torch.float64)
    elif kind != "normal":
        raise ValueError(kind)
    return data.float()


def pixels(kind: str, n: int, d: int, seed: int = 0) -> Tensor:
    """Images of a kind that is hard on approximate products, uint8 ``(n, d)``."""
    g = generator(seed)
    data = torch.randint(0, 256, (n, d), generator=g)
    if kind == "flat":  # a figure on white
        data[:, d // 4 :] = 255
    elif kind == "extremes":
        data[: n // 3], data[n // 3 : n // 2] = 0, 255
        data[0, 0], data[1, 1] = 1, 2
    elif kind == "constant":
        data[:] = (torch.arange(n) % 256)[:, None]
    elif kind == "one grey":
        data[:] = 77
    elif kind != "random":
        raise ValueError(kind)
    return data.to(torch.uint8)


FLOATS = ("normal", "offset", "duplicates", "near", "dominant", "huge", "tiny", "constant", "low rank")
PIXELS = ("random", "flat", "extremes", "constant", "one grey")


def data_of(kind: str, n: int, d: int, seed: int = 0) -> Tensor:
    """``"pixels <kind>"`` or a kind of floats."""
    return pixels(kind.removeprefix("pixels "), n, d, seed) if kind.startswith("pixels ") else floats(kind, n, d, seed)


def noisy(
    support: Tensor, t: float, rows: int, path: fv.GaussianPath | None = None, seed: int = 1, size: float | None = None
) -> Pair:
    """Points on the path, float64 ``(rows, d)``, and their times: even rows near a datum, odd ones between two.

    Args:
        support: The data.
        t: Time.
        rows: How many.
        path: CondOT if absent.
        seed: Of the noise.
        size: Typical size of a coordinate's variation, in which the noise is measured; 1 if absent.
    """
    g, data, path = generator(seed), in_data_units(support), fv.CondOT() if path is None else path
    times = torch.full((rows,), t, dtype=torch.float64)
    index = torch.randint(len(data), (rows,), generator=g)
    other = torch.randint(len(data), (rows,), generator=g)
    share = torch.where(torch.arange(rows) % 2 == 1, 0.5, 1.0)[:, None].double()
    at = share * data[index] + (1 - share) * data[other]
    noise = torch.randn(rows, data.shape[1], generator=g, dtype=torch.float64) * (1.0 if size is None else size)
    return path.alpha(times)[:, None] * at + path.sigma(times)[:, None] * noise, times
