r"""Kernel weights of a block of tasks, in whatever way is accurate there.

Everything is taken about the centre :math:`c` of each support: with :math:`p = A (x - \alpha c)` and :math:`k_i = A
(s_i - c)`, ``A`` a head's projection (the identity without one), the logits are

.. math:: \ell_i = -\frac{\|p - \alpha k_i\|^2}{2 \sigma^2}
          = \frac{\alpha}{\sigma^2} \langle p, k_i \rangle - \frac{\alpha^2}{2 \sigma^2} \|k_i\|^2 + \text{const}.

The second form is a product of lifted queries and keys of one more column; :math:`\|p\|^2` is the same for all points
and cancels in the softmax. In a type with unit roundoff :math:`\epsilon` rounding moves a logit by no more than

.. math:: \delta = \sqrt{d + 8}\, \epsilon\, \frac{\alpha}{\sigma^2} \big(\|p\| r + \tfrac{\alpha}{2} r^2\big),

``r`` the largest norm of a key, but for a negligible probability, and the noise :math:`(x - \alpha m) / \sigma` by no
more than :math:`\delta (1 + 2 \alpha R / \sigma)`, ``R`` the largest norm of a value. Where that is little the product
serves, in the points' own type through fused attention or in float64; elsewhere differences are taken before they are
squared.

Sources: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing", corollary 5.3, for the lift; Higham
and Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis", theorem 3.1, for the square root.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from fluvial.paths import GaussianPath
from fluvial.smoothing.logits import unit_roundoff

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
"""Largest error of the predicted noise that rounding of logits may cause, relative to its usual norm ``sqrt(d)``."""

# Fused attention on CPUs is fastest where the columns are a multiple of this; on CUDA it needs one of 4.
_COLUMNS = 8


@dataclass(frozen=True)
class Block:
    """Points of some tasks, their times and supports.

    Args:
        x: Points, shape ``(b, n, d)``.
        t: Times, float64, shape ``(b, n)``.
        support: Shape ``(b, m, d)``; what is absent is 0.
        mask: Which of the support are there, shape ``(b, m)``; None for all.
    """

    x: Float[Tensor, "b n d"]
    t: Float[Tensor, "b n"]
    support: Float[Tensor, "b m d"]
    mask: Bool[Tensor, "b m"] | None

    def part(self, tasks: slice | Tensor, rows: slice = slice(None)) -> "Block":
        """Some of the tasks, and of each some of the rows."""
        mask = None if self.mask is None else self.mask[tasks]
        return Block(self.x[tasks][:, rows], self.t[tasks][:, rows], self.support[tasks], mask)

    def centre(self) -> Float[Tensor, "b 1 d"]:
        """Mean of each support, float64. The field does not depend on it, so that it carries no gradient."""
        with torch.no_grad():
            if self.mask is None:
                mean: Tensor = self.support.mean(1, keepdim=True, dtype=torch.float64)
                return mean
            total = self.support.sum(1, keepdim=True, dtype=torch.float64)
            return total / self.mask.sum(1)[:, None, None]


@dataclass(frozen=True)
class Heads:
    """How heads see points: through projections, mixed by convex weights.

    Args:
        projections: Shape ``(H, r, d)``; None for the points as they are.
        shares: Share of each head in the mean, shape ``(H,)``; None where there is one.
    """

    projections: Float[Tensor, "H r d"] | None = None
    shares: Float[Tensor, "H"] | None = None

    def seen(self, points: Float[Tensor, "b n d"]) -> Float[Tensor, "b H n r"]:
        """The points as each head sees them, in their own type."""
        if self.projections is None:
            return points[:, None]
        seen: Tensor = points[:, None] @ self.projections.to(points.dtype).transpose(1, 2)
        return seen

    def mixed(self, parts: Float[Tensor, "b H n k"]) -> Float[Tensor, "b n k"]:
        """The heads' results as one."""
        if self.shares is None:
            return parts[:, 0]
        return torch.einsum("bhnk,h->bnk", parts, self.shares.to(parts.dtype))

    def stretch(self) -> Tensor | float:
        """Bound on the factor by which a head lengthens a vector, squared; exact where its rows are orthonormal."""
        if self.projections is None:
            return 1.0
        gram = self.projections.detach().double() @ self.projections.detach().double().transpose(1, 2)
        return gram.abs().sum(2).max()


def noise_error(block: Block, path: GaussianPath, heads: Heads) -> Float[Tensor, "b n"]:
    """Bound on the error of the predicted noise, relative to its usual norm, from products in the points' type."""
    with torch.no_grad():
        alpha, sigma, centre, dim = path.alpha(block.t), path.sigma(block.t), block.centre(), block.x.shape[2]
        moved = block.x - (alpha[..., None] * centre).to(block.x.dtype)
        slack = 2 * unit_roundoff(block.x.dtype) * torch.linalg.vector_norm(centre, dim=2)
        length = torch.linalg.vector_norm(moved, dim=2).double() + slack
        norms = torch.linalg.vector_norm(block.support.double() - centre, dim=2)
        # An absent point is at 0, which may be far from the others.
        norms = norms if block.mask is None else norms.masked_fill(~block.mask, 0.0)
        radius = norms.amax(1, keepdim=True)
        size = heads.stretch() * alpha / sigma.square() * (length * radius + 0.5 * alpha * radius.square())
        error = (dim + 8) ** 0.5 * unit_roundoff(block.x.dtype) * size * (1 + 2 * alpha * radius / sigma)
        relative: Tensor = error / dim**0.5
        return relative


def kernel_weights(
    block: Block, path: GaussianPath, heads: Heads, subtract: Bool[Tensor, "b n"] | None
) -> Float[Tensor, "b n m"]:
    """Weights of the support at each point, the heads' mixed; float64.

    Args:
        block: Points and supports.
        path: The probability path.
        heads: How they are seen.
        subtract: Rows that need differences; None if no row does.
    """
    alpha, sigma = _rates(block, path)
    p, k, _ = _seen(block, alpha, heads)
    queries, keys = _lifted(p, k, alpha, sigma)
    logits = queries @ keys.transpose(2, 3)
    if subtract is not None:
        late = subtract[:, None, :, None]
        # Rows that do not need it may have alpha = 0.
        squares = _squared_distances(p / torch.where(late, alpha, 1.0), k)
        logits = torch.where(late, -0.5 * (alpha / sigma).square() * squares, logits)
    if block.mask is not None:
        logits = logits.masked_fill(~block.mask[:, None, None], -torch.inf)
    return heads.mixed(torch.softmax(logits, 3))


def fused_offset(block: Block, path: GaussianPath, heads: Heads) -> Float[Tensor, "b n d"]:
    """Posterior mean less the support's centre by fused attention in the points' type, as float64."""
    alpha, sigma = _rates(block, path)
    p, k, values = _seen(block, alpha, heads)
    queries, keys = (part.to(block.x.dtype) for part in _lifted(p, k, alpha, sigma))
    dim = values.shape[3]
    columns = -(-max(keys.shape[3], dim) // _COLUMNS) * _COLUMNS
    # Fused attention on CPUs wants values as wide as keys; without projections the keys hold the values.
    queries, keys = _widened(queries, columns), _widened(keys, columns)
    own = heads.projections is not None
    v = _widened(values.to(keys.dtype), columns).expand(-1, keys.shape[1], -1, -1) if own else keys
    there = None if block.mask is None else block.mask[:, None, None].expand(-1, 1, block.x.shape[1], -1)
    seen = nn.functional.scaled_dot_product_attention(queries, keys, v, attn_mask=there, scale=1.0)
    return heads.mixed(seen[..., :dim]).double()


def velocity(block: Block, path: GaussianPath, offset: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    r"""The affine map from the mean to the velocity, in the points' type.

    It is :math:`\dot\alpha m + \frac{\dot\sigma}{\sigma} \big((x - m) + (1 - \alpha) m\big)`, with ``x - m`` taken
    about the centre, in float64.

    Args:
        block: Points and supports.
        path: The probability path.
        offset: Posterior mean less the support's centre, float64.
    """
    t, centre = block.t, block.centre()
    mean, rate = centre + offset, (path.sigma_dot(t) / path.sigma(t))[..., None]
    residual = torch.addcmul((block.x.double() - centre) - offset, path.one_minus_alpha(t)[..., None], mean)
    return torch.addcmul(path.alpha_dot(t)[..., None] * mean, rate, residual).to(block.x.dtype)


def differentiates_forward(*tensors: Tensor) -> bool:
    """Whether a tangent, or a transform of ``torch.func``, travels with any of the tensors."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return any(wrapped(part) or forward_ad.unpack_dual(part).tangent is not None for part in tensors)


def _rates(block: Block, path: GaussianPath) -> tuple[Tensor, Tensor]:
    """Alpha and sigma, ``(b, 1, n, 1)``; a sigma of 0 stands for its limit, in which the nearest points share all."""
    alpha, sigma = path.alpha(block.t), path.sigma(block.t)
    return alpha[:, None, :, None], sigma[:, None, :, None].clamp_min(1e-100)


def _seen(block: Block, alpha: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Points and support as heads see them, and the values ``(b, 1, m, d)``; about the centre and in float64, since
    the centre may be far larger than the spread."""
    centre = block.centre()
    points, values = torch.addcmul(block.x.double(), alpha[:, 0], centre, value=-1), block.support.double() - centre
    return heads.seen(points), heads.seen(values), values[:, None]


def _lifted(p: Tensor, k: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys whose products are the logits, up to a constant of the row."""
    gain = alpha / sigma.square()
    last = (-0.5 * alpha * gain).expand(*p.shape[:3], 1)
    return torch.cat([gain * p, last], 3), torch.cat([k, k.square().sum(3, keepdim=True)], 3)


def _squared_distances(p: Float[Tensor, "b H n r"], k: Float[Tensor, "b H m r"]) -> Float[Tensor, "b H n m"]:
    """From differences. ``torch.cdist`` has no forward derivative: then one coordinate after the other."""
    if not differentiates_forward(p, k):
        return torch.cdist(p, k, compute_mode="donot_use_mm_for_euclid_dist").square()
    pairs = zip(p.unbind(3), k.unbind(3), strict=True)
    return torch.stack([(a[..., :, None] - b[..., None, :]).square() for a, b in pairs]).sum(0)


def _widened(x: Tensor, columns: int) -> Tensor:
    """The same with columns of 0 up to ``columns``."""
    return nn.functional.pad(x, (0, columns - x.shape[-1]))
