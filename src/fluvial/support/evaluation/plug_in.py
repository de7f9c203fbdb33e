r"""The plug-in generator: the exact flow of the support itself, which copies it.

The exact field of :math:`m` support points transports noise to the support plus Gaussian noise of the path's last
standard deviation :math:`s = \sigma_1`: a kernel density estimate of bandwidth s. So it is drawn from without an ODE, a
support point and its noise. Its points lie :math:`s \sqrt{d}` from the support: with a small s it repeats what it was
given. A larger s gives points that are new, and spreads them in all directions alike.

Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", propositions 4.2 and 4.4.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.kinds import checked
from fluvial.metrics.matrix import TILE_BYTES, tiles
from fluvial.metrics.mmd import checked_bandwidths
from fluvial.metrics.pairwise import as_set_pairs, as_sets, mean_over_pairs
from fluvial.support.tasks.base import require_counts


@checked
def plug_in_samples(support: Tensor, n: int, bandwidth: float, generator: torch.Generator) -> Float[Tensor, "B n d"]:
    """Points where the exact flow of each support takes independent noise: random support points plus Gaussian noise.

    This is the distribution at ``t = 1`` of the exact field of the support, for a path whose last standard deviation is
    ``bandwidth``, with no error of a solver.

    Args:
        support: Shape (B, m, d).
        n: How many points for each support.
        bandwidth: Standard deviation of the noise, in the data's units; 0 repeats the support.
        generator: Where the randomness comes from.

    Returns:
        Shape (B, n, d), of the support's type.

    Raises:
        ValueError: If the support is empty, not finite or of another shape, ``n`` below 1 or ``bandwidth`` negative or
            not finite.

    Source:
        Matsui Smola 2026, proposition 4.2.

    Example:
        >>> from fluvial.support.evaluation.plug_in import plug_in_samples
        >>> plug_in_samples(torch.tensor([[[3.0]]]), 2, 0.0, torch.Generator())
        tensor([[[3.],
                 [3.]]])
    """
    points = as_sets(support, "support")
    require_counts(n=n)
    if not 0 <= bandwidth < math.inf:
        raise ValueError(f"bandwidth must be at least 0 and finite, got {bandwidth:g}")
    largest = torch.finfo(points.dtype).max / 100  # no draw of a normal number comes near it
    if bandwidth > largest:
        raise ValueError(f"bandwidth must be at most {largest:.3g} for {points.dtype}, got {bandwidth:g}")
    count, m, d = points.shape
    which = torch.randint(m, (count, n, 1), generator=generator).to(points.device)
    noise = torch.randn(count, n, d, generator=generator, dtype=points.dtype).to(points.device)
    return points.gather(1, which.expand(-1, -1, d)) + bandwidth * noise


def support_distances(samples: Tensor, support: Tensor) -> Float[Tensor, "B n"]:
    """Distance from each sample to the nearest point of its task's support.

    Args:
        samples: Shape (B, n, d).
        support: Shape (B, m, d).

    Returns:
        Shape (B, n), float64, in the data's units.

    Raises:
        ValueError: If a set is empty or not finite, or the numbers of tasks or the dimensions differ.

    Example:
        >>> from fluvial.support.evaluation.plug_in import support_distances
        >>> support_distances(torch.tensor([[[1.0]]]), torch.tensor([[[0.0], [1.5]]]))
        tensor([[0.5000]], dtype=torch.float64)
    """
    return torch.stack([_nearest(x, s, 1)[:, 0] for x, s in _pairs(samples, support)])


def copy_ratios(samples: Tensor, support: Tensor) -> Float[Tensor, "B n"]:
    """Distance to the nearest support point over that to the second nearest (NNDR); repeated points count once.

    Args:
        samples: Shape (B, n, d).
        support: Shape (B, m, d).

    Returns:
        Shape (B, n), float64, in [0, 1]; NaN where a support has a single point.

    Raises:
        ValueError: As for :func:`support_distances`.

    Example:
        >>> from fluvial.support.evaluation.plug_in import copy_ratios
        >>> copy_ratios(torch.tensor([[[1.0]]]), torch.tensor([[[0.0], [5.0]]]))
        tensor([[0.2500]], dtype=torch.float64)
    """
    ratios = []
    for x, s in _pairs(samples, support):
        distinct = torch.unique(s, dim=0)
        if len(distinct) == 1:
            ratios.append(torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device))
            continue
        first, second = _nearest(x, distinct, 2).unbind(1)
        ratios.append(first / second)
    return torch.stack(ratios)


def copy_distance(samples: Tensor, support: Tensor) -> Float[Tensor, " B"]:
    """Mean distance from the samples to the nearest point of their support.

    For the plug-in with a small bandwidth s it is ``s sqrt(d)`` or a little less, see :func:`expected_copy_distance`.

    Args:
        samples: Shape (B, n, d).
        support: Shape (B, m, d).

    Returns:
        Shape (B,), float64, in the data's units.

    Raises:
        ValueError: As for :func:`support_distances`.

    Example:
        >>> from fluvial.support.evaluation.plug_in import copy_distance
        >>> copy_distance(torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [1.5]]]))
        tensor([0.2500], dtype=torch.float64)
    """
    return support_distances(samples, support).mean(1)


def expected_copy_distance(bandwidth: float, d: int) -> float:
    r"""Mean distance of the plug-in's points from a support whose points lie much further apart than that.

    .. math:: s \sqrt{2}\, \Gamma\big(\tfrac{d + 1}{2}\big) / \Gamma\big(\tfrac{d}{2}\big) \approx s \sqrt{d},

    the mean of the chi distribution; an upper bound for any support.

    Example:
        >>> from fluvial.support.evaluation.plug_in import expected_copy_distance
        >>> round(expected_copy_distance(0.01, 16), 5)
        0.03938
    """
    return bandwidth * math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))


def plug_in_mmd2(
    support: Tensor, targets: Tensor, bandwidth: float, kernel_bandwidth: Tensor | float
) -> Float[Tensor, " B"]:
    r"""Squared MMD between the plug-in's distribution and the targets' one, without drawing from the former.

    Noise of variance :math:`s^2` turns a Gaussian kernel of variance :math:`\sigma^2` into one of
    :math:`\sigma^2 + s^2`, times :math:`(\sigma^2 / (\sigma^2 + s^2))^{d/2}`. It is what
    :func:`fluvial.metrics.mmd2` of the plug-in's samples and the targets estimates, with the samples' share of the
    noise taken away.

    Args:
        support: Shape (B, m, d).
        targets: Shape (B, n, d), n >= 2.
        bandwidth: The plug-in's s, in the data's units.
        kernel_bandwidth: The kernel's sigma, one for all or shape (B,).

    Returns:
        Shape (B,), float64; unbiased with respect to the targets.

    Example:
        >>> from fluvial.support.evaluation.plug_in import plug_in_mmd2
        >>> plug_in_mmd2(torch.zeros(1, 1, 1), torch.zeros(1, 2, 1), 0.0, 1.0)
        tensor([0.], dtype=torch.float64)
    """
    points, others = as_set_pairs(support, targets, ("support", "targets"))
    as_sets(others, "targets", minimum=2)
    m, d = points.shape[1:]
    found = torch.zeros(len(points), dtype=torch.float64)
    widths = checked_bandwidths(kernel_bandwidth, len(points))
    for row, (s, y, width) in enumerate(zip(points, others, widths, strict=True)):
        centre = y.double().mean(0)
        s, y = s.double() - centre, y.double() - centre

        def mean(a: Tensor, b: Tensor | None, noises: int, width: float = width) -> float:
            variance = width**2 + noises * bandwidth**2
            scaled = mean_over_pairs(a, b, lambda squares: squares.mul_(-0.5 / variance).exp_())
            return float(scaled) * math.exp(-0.5 * d * math.log(variance / width**2))

        # two draws share their support point once in m times
        alone = math.exp(-0.5 * d * math.log1p(2 * (bandwidth / width) ** 2))
        within = alone if m == 1 else (alone + (m - 1) * mean(s, None, 2)) / m
        found[row] = within + mean(y, None, 0) - 2 * mean(s, y, 1)
    return found


def _pairs(samples: Tensor, support: Tensor) -> list[tuple[Tensor, Tensor]]:
    points, others = as_set_pairs(samples, support, ("samples", "support"))
    return list(zip(points, others, strict=True))


def _nearest(x: Float[Tensor, "n d"], support: Float[Tensor, "m d"], k: int) -> Float[Tensor, "n k"]:
    """The k smallest distances of each row, from differences: products would lose those of copies."""
    parts = []
    for tile in tiles(len(x), len(support), TILE_BYTES):
        distances = torch.cdist(x[tile].double(), support.double(), compute_mode="donot_use_mm_for_euclid_dist")
        parts.append(distances.topk(k, largest=False).values)
    return torch.cat(parts)
