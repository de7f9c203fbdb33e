r"""Empirical Flow Matching: a less noisy target with the same mean.

The conditional velocity is averaged over the posterior of a small bank of data, in which the pair's own datum
:math:`x_1` counts exactly once. On any path, with :math:`h = \sigma/\alpha` and a bank :math:`b_1, \dots, b_M`
without the own datum,

.. math::
    u = u_t(x_t | x_1) + \Big(\dot\alpha - \alpha \frac{\dot\sigma}{\sigma}\Big) \sum_j w_j (b_j - x_1), \qquad
    w_j = \frac{e^{\ell_j}}{1 + \sum_k e^{\ell_k}}, \qquad
    \ell_j = -\frac{\langle x_0, x_1 - b_j \rangle}{h} - \frac{\|x_1 - b_j\|^2}{2 h^2}

where the own datum has exponent 0 and stands in the normaliser alone. The bank is drawn without replacement and the
own datum is dropped where it was drawn; by exchangeability the target is then unbiased, and with the whole data set
as its bank it is the exact field. Leaving the own datum out, or counting it twice, biases it.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fluvial.fields.base import Field
from fluvial.kinds import checked
from fluvial.objectives.base import Batch, Loss, noise_like, require_call, squared_error, times_like
from fluvial.paths import GaussianPath, align
from fluvial.times import Times, Uniform


@runtime_checkable
class DataSource(Protocol):
    """The part of a data set that a bank is drawn from."""

    def __len__(self) -> int: ...

    def take(self, indices: Tensor, /) -> tuple[Tensor, Tensor | None]: ...


@checked
@dataclass(frozen=True, eq=False)
class EFM:
    """Regression on the posterior mean velocity over a random bank of the data.

    Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", equations 7 and 8, proposition 2. There the
        bank
    is drawn with replacement; without replacement and without the own datum it is unbiased too, with less variance.

    Args:
        path: Probability path.
        data: The whole training set: a tensor ``(N, *D)`` or a data set with ``take``.
        bank_size: Data in a bank, own datum not counted; the whole set if it is not larger.
        labels: Class of each datum ``(N,)``; a data set's own labels if absent. Needed for batches with labels,
            whose rows average over their own class alone (a row with label -1 over all data).
        times: Distribution of the times.

    Raises:
        ValueError: If the data is empty or not finite, ``bank_size < 1``, labels do not fit, a batch has a condition
            that is no label, labels although the data has none, or rows that are not among the data and no ``index``.

    Example:
        >>> data = torch.randn(100, 2)
        >>> g = torch.Generator().manual_seed(0)
        >>> EFM(fv.CondOT(), data, bank_size=32)(lambda x, t, cond: x, fv.Batch(data[:8]), generator=g).per_sample.shape
        torch.Size([8])
    """

    path: GaussianPath
    data: Tensor | DataSource
    bank_size: int = 256
    labels: Tensor | None = None
    times: Times = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        if isinstance(self.data, Tensor) and (self.data.ndim < 2 or not self.data.is_floating_point()):
            raise ValueError(
                f"data must be floating with shape (N, *D), got {self.data.dtype} {tuple(self.data.shape)}"
            )
        if len(self.data) == 0:
            raise ValueError("data must hold at least one datum, got none")
        if isinstance(self.data, Tensor) and not bool(torch.isfinite(self.data).all()):
            raise ValueError("data must be finite, got NaN or infinity")
        if self.bank_size < 1:
            raise ValueError(f"bank_size must be at least 1, got {self.bank_size}")
        if self.labels is not None and self.labels.is_floating_point():
            raise ValueError(f"labels must be whole numbers, got {self.labels.dtype}")
        if self.labels is not None and tuple(self.labels.shape) != (len(self.data),):
            raise ValueError(f"labels must have shape ({len(self.data)},), got {tuple(self.labels.shape)}")

    def __call__(self, net: Field, batch: Batch, *, generator: torch.Generator) -> Loss:
        """Loss of ``net`` on ``batch``; all draws come from ``generator``."""
        require_call(net, batch, generator)
        x1 = batch.x1
        x0 = noise_like(x1, generator)
        t = times_like(self.times, x1, generator)
        target = self.target(x0, batch, t, generator=generator)
        return squared_error(net(self.path.sample(x0, x1, t).xt, t, batch.cond), target, t)

    def target(self, x0: Tensor, batch: Batch, t: Tensor, *, generator: torch.Generator) -> Tensor:
        """Target velocity for given noise and times, shape ``(B, *D)``; draws the bank from ``generator``."""
        x1, noise = batch.x1.flatten(1), x0.flatten(1)
        inverse_bandwidth = (self.path.alpha(t) / self.path.sigma(t)).expand(len(x1))
        pull = torch.empty_like(x1)
        for rows, members in self._groups(batch):
            index, bank = self._draw(members, generator, x1)
            if not len(rows):
                continue  # another process has the rows of this label, and draws the same bank
            own = self._locate(x1[rows], members) if batch.index is None else batch.index[rows]
            drawn = own.to(index.device)[:, None] == index
            pull[rows] = _pull(noise[rows], x1[rows], bank, inverse_bandwidth[rows], drawn)
        gain = align(self.path.wronskian(t) / self.path.sigma(t), x1)
        correction = torch.where(align(self.path.sigma(t), x1) == 0, 0.0, gain * pull)  # at the end no pull is left
        return self.path.sample(x0, batch.x1, t).ut + correction.reshape(x0.shape)

    def _groups(self, batch: Batch) -> list[tuple[Tensor, Tensor | None]]:
        """Rows that share a bank, with the positions in the data that it is drawn from (None for all)."""
        if batch.cond is None:
            return [(torch.arange(len(batch)), None)]
        if not isinstance(batch.cond, Tensor) or batch.cond.is_floating_point() or batch.cond.ndim != 1:
            raise ValueError(
                "Empirical Flow Matching needs labels (B,) as condition: other conditions have no bank of their own"
            )
        data_labels = self.labels if self.labels is not None else getattr(self.data, "labels", None)
        if data_labels is None:
            raise ValueError("the batch has labels but the data has none: pass labels= to EFM")
        groups: list[tuple[Tensor, Tensor | None]] = []
        for label in (torch.unique(batch.cond) if batch.classes is None else batch.classes).tolist():
            members = None if label < 0 else torch.nonzero(data_labels == label).flatten()
            if members is not None and len(members) == 0:
                raise ValueError(f"label {label} has no datum to average over")
            groups.append((torch.nonzero(batch.cond == label).flatten(), members))
        return groups

    def _draw(self, members: Tensor | None, generator: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
        """Positions in the data and values ``(M, d)`` of a bank drawn without replacement."""
        count = len(self.data) if members is None else len(members)
        index = torch.randperm(count, generator=generator, device=generator.device)[: self.bank_size]
        if members is not None:
            index = members.to(index.device)[index]
        return index.to(like.device), self._values(index).to(like)

    def _values(self, index: Tensor) -> Tensor:
        values = self.data[index.to(self.data.device)] if isinstance(self.data, Tensor) else self.data.take(index)[0]
        return values.flatten(1)

    def _locate(self, x1: Tensor, members: Tensor | None) -> Tensor:
        """Position of each row among the data (of its class). Any one of several equal data serves."""
        where = torch.arange(len(self.data)) if members is None else members
        both = torch.cat([self._values(where).to(x1), x1])
        group = torch.unique(both, dim=0, return_inverse=True)[1]
        first = torch.full((len(both),), -1, device=x1.device)
        first[group[: len(where)]] = torch.arange(len(where), device=x1.device)
        own = first[group[len(where) :]]
        if bool((own < 0).any()):
            missing = f"{int((own < 0).sum())} of {len(x1)} rows of x1 are not among the data (of their class)"
            raise ValueError(f"{missing}: pass index= in the batch to say which datum each row was made from")
        return where.to(x1.device)[own]


@torch.no_grad()
def _pull(x0: Tensor, x1: Tensor, bank: Tensor, inverse_bandwidth: Tensor, drawn: Tensor) -> Tensor:
    """Posterior mean of ``b - x1`` over the own datum (exponent 0) and the bank without it, shape ``(B, d)``.

    The exponents are one product of ``[s x0 + s^2 x1, -s^2 / 2]`` and ``[b, |b|^2]`` about the bank's centre, up to the
    row's constant; ``s`` is the inverse bandwidth. In float64: late, they are small differences of large numbers.
    """
    centre = bank.mean(0, dtype=torch.float64)
    own, others = x1.double() - centre, bank.double() - centre
    at_end = torch.isinf(inverse_bandwidth)[:, None]  # sigma = 0: every other datum is infinitely far
    s = inverse_bandwidth.double()[:, None].masked_fill(at_end, 0.0)
    noise = s * x0.double()
    query = torch.cat([noise + s.square() * own, -0.5 * s.square()], 1)
    keys = torch.cat([others, others.square().sum(1, keepdim=True)], 1)
    constant = -((noise + 0.5 * s.square() * own) * own).sum(1, keepdim=True)
    logits = torch.addmm(constant, query, keys.T).masked_fill_(drawn | at_end, -torch.inf)
    top = logits.amax(1, keepdim=True).clamp_min_(0.0)
    relative = logits.sub_(top).exp_()
    mass = relative.sum(1, keepdim=True)
    pull = torch.addmm(-mass * own, relative, others) / (mass + torch.exp(-top))
    return pull.to(x1.dtype)
