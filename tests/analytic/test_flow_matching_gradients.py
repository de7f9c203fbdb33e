"""Why regressing on conditional velocities works: one gradient, another constant, more variance. And what breaks it.

The regression on the exact field of a finite data set (Flow Matching) is held against Conditional and Empirical Flow
Matching at the same draws of data, noise and times. ``pytest -s`` prints what is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fluvial as fv
from fluvial.objectives import efm
from fluvial.objectives.base import Objective, squared_error
from fluvial.randomness import generator
from fluvial.times import Times, Uniform

DIM, POINTS = 2, 16
SUPPORT = 1.5 * torch.randn(POINTS, DIM, generator=generator(0)) + torch.tensor([1.0, 0.5])


def random_net(seed: int, dim: int, time_scale: float | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = fv.nn.MLP((dim,), width=8, depth=1, time_scale=time_scale)
        for parameter in net.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return net


@dataclass(frozen=True)
class Early:
    """Uniform times before the end, for a path that is singular there."""

    end: float

    def __call__(self, count: int, **options: Any) -> Tensor:
        return self.end * Uniform()(count, **options)


@dataclass(frozen=True)
class Setting:
    """A net, the path and the times."""

    seed: int
    path: fv.GaussianPath
    times: Times = field(default_factory=Uniform)

    def net(self) -> nn.Module:
        """A net that is far from its optimum."""
        return random_net(self.seed, DIM)


SETTINGS = {
    "CondOT": Setting(0, fv.CondOT(0.1)),
    "convex path": Setting(2, fv.FromBandwidth(lambda t: (1 - t**2) / t**2 + 0.1, lambda t: -2 / t**3)),
    "Cosine, t < .95": Setting(1, fv.Cosine(), Early(0.95)),
}


class Seen:
    """The net, remembering the points and times that an objective asked it at, and what it said."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self.x, self.t, self.v = x, t, self.net(x, t)
        return self.v


@dataclass(frozen=True)
class Measured:
    """Gradients ``(batches, parameters)`` and losses ``(batches,)`` of each objective at the same draws."""

    gradients: dict[str, Tensor]
    losses: dict[str, Tensor]
    variance: Tensor

    @property
    def norm(self) -> float:
        """Norm of Flow Matching's mean gradient."""
        return float(self.gradients["FM"].mean(0).norm())

    def error(self, objective: str) -> tuple[float, float]:
        """Distance of the mean gradient from Flow Matching's and its standard error, relative to the latter's norm."""
        apart = self.gradients[objective] - self.gradients["FM"]
        noise = apart.var(0).sum().div(len(apart)).sqrt()
        return float(apart.mean(0).norm()) / self.norm, float(noise) / self.norm


def measured(setting: Setting, net: nn.Module, batches: int, rows: int, bank: int | None = None) -> Measured:
    """Batches of independent draws; Empirical Flow Matching too, if there is a size of the bank."""
    gradients: dict[str, list[Tensor]] = {"FM": [], "CFM": []} | ({} if bank is None else {"EFM": []})
    losses: dict[str, list[Tensor]] = {name: [] for name in gradients}
    variances, together = [], max(1, 2**16 // rows)
    exact = fv.ExactField(SUPPORT, setting.path)
    for start in range(0, batches, together):
        asked = [drawn(setting, net, rows, bank, k) for k in range(start, min(start + together, batches))]
        x, t = (torch.cat([getattr(seen, name) for seen, _ in asked]) for name in ("x", "t"))
        with torch.no_grad():
            targets = exact(x, t).split(rows)
        for (seen, found), target in zip(asked, targets, strict=True):
            for name, loss in (found | {"FM": squared_error(seen.v, target).loss}).items():
                gradients[name].append(flat_gradient(loss, net))
                losses[name].append(loss.detach())
        variances += conditional_variance(SUPPORT, setting.path, x, t).split(rows)
    return Measured(
        {name: torch.stack(parts).double() for name, parts in gradients.items()},
        {name: torch.stack(parts).double() for name, parts in losses.items()},
        torch.stack(variances).mean(1),
    )


def drawn(setting: Setting, net: nn.Module, rows: int, bank: int | None, k: int) -> tuple[Seen, dict[str, Tensor]]:
    """Batch ``k``: where the net was asked, and the losses of the objectives, which draw the same noise and times."""
    index, seen = torch.randint(POINTS, (rows,), generator=generator(1, k)), Seen(net)
    batch = fv.Batch(SUPPORT[index], index=index)
    objectives: dict[str, Objective] = {"CFM": fv.CFM(setting.path, times=setting.times)}
    if bank is not None:
        objectives["EFM"] = fv.EFM(setting.path, SUPPORT, bank, times=setting.times)
    return seen, {name: each(seen, batch, generator=generator(2, k)).loss for name, each in objectives.items()}


def flat_gradient(loss: Tensor, net: nn.Module) -> Tensor:
    parts = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def conditional_variance(support: Tensor, path: fv.GaussianPath, x: Tensor, t: Tensor) -> Tensor:
    """Var[u | xt] of each row, a mean over elements as in the losses, from weights taken one by one; float64."""
    x, t, support = x.double(), t.double(), support.double()
    residual = x[:, None] - path.alpha(t)[:, None, None] * support
    weights = (-0.5 * residual.square().sum(2) / path.sigma(t)[:, None].square()).softmax(1)
    mean = weights @ support
    spread = (weights * (support - mean[:, None]).square().mean(2)).sum(1)
    return (path.wronskian(t) / path.sigma(t)).square() * spread


def interval(values: Tensor) -> tuple[float, float]:
    """A 99 % interval of the mean of independent values."""
    middle, half = float(values.mean()), 2.576 * float(values.std()) / len(values) ** 0.5
    return middle - half, middle + half


@pytest.mark.parametrize("rest", [0.3, 0.15])
@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_and_losses_by_quadrature(seed: int, rest: float) -> None:
    """In one dimension the means over noise and time are integrals: both identities hold to seven digits."""
    path, net = fv.CondOT(rest), random_net(seed, 1, time_scale=1.0).double()
    support = torch.tensor([[-1.5], [0.2], [1.0]], dtype=torch.float64)
    noise = torch.linspace(-9, 9, 300, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(part) / 2 for part in np.polynomial.legendre.leggauss(48))
    k, i, j = torch.cartesian_prod(torch.arange(len(support)), torch.arange(300), torch.arange(48)).T
    mass = (-0.5 * noise.square()).softmax(0)[i] * weights[j] / len(support)
    t = nodes[j] + 0.5
    point = path.sample(noise[i, None], support[k], t)
    v, exact = net(point.xt, t), fv.ExactField(support, path)
    conditional = ((v - point.ut).square()[:, 0] * mass).sum()
    marginal = ((v - exact(point.xt, t)).square()[:, 0] * mass).sum()
    expected = flat_gradient(marginal, net)
    apart = (flat_gradient(conditional, net) - expected).norm() / expected.norm()
    constant = float((conditional_variance(support, path, point.xt, t) * mass).sum())
    assert expected.norm() > 0.1 and constant > 0.1
    assert apart < 1e-7
    assert float((conditional - marginal).detach()) == pytest.approx(constant, rel=1e-7)


@cache
def at_length(name: str) -> Measured:
    """819,200 draws of a setting."""
    return measured(SETTINGS[name], SETTINGS[name].net(), batches=50, rows=16384)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CondOT", "convex path"])
def test_conditional_and_marginal_regression_have_one_gradient(name: str) -> None:
    found = at_length(name)
    error, noise = found.error("CFM")
    print(f"\n{name}: gradients of CFM and FM differ by {error:.2%} +- {noise:.2%}, norm {found.norm:.2f}")
    assert found.norm > 1
    assert noise < 0.003
    assert error < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_losses_differ_by_the_conditional_variance(name: str) -> None:
    found = at_length(name)
    apart, constant = found.losses["CFM"] - found.losses["FM"], float(found.variance.mean())
    noise = float(apart.std()) / len(apart) ** 0.5 / constant
    losses = " and ".join(f"{float(found.losses[each].mean()):.4f}" for each in ("CFM", "FM"))
    print(
        f"\n{name}: losses {losses} differ by {float(apart.mean()):.4f} +- {noise:.2%}, E Var[u|xt] is {constant:.4f}"
    )
    assert noise < 0.003
    assert float(apart.mean()) == pytest.approx(constant, rel=0.01)


def trained_net(setting: Setting) -> nn.Module:
    """The setting's net after 120 steps of Conditional Flow Matching."""
    net, objective = setting.net(), fv.CFM(setting.path, times=setting.times)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for step in range(120):
        x1 = SUPPORT[torch.randint(POINTS, (256,), generator=generator(3, step))]
        optimizer.zero_grad()
        objective(net, fv.Batch(x1), generator=generator(4, step)).loss.backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("net", [Setting.net, pytest.param(trained_net, marks=pytest.mark.slow)])
def test_gradients_of_less_noisy_targets_vary_less(net: Callable[[Setting], nn.Module]) -> None:
    """Total variance of the gradient of a batch of 64, with 99 % intervals that do not overlap."""
    setting = SETTINGS["CondOT"]
    found = measured(setting, net(setting), batches=200, rows=64, bank=8)
    ranges = {}
    for name in ("FM", "EFM", "CFM"):
        squares = (found.gradients[name] - found.gradients[name].mean(0)).square().sum(1) * 200 / 199
        ranges[name] = interval(squares)
    print(f"\n{net.__name__}: " + ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in ranges.items()))
    assert ranges["FM"][1] < ranges["EFM"][0] and ranges["EFM"][1] < ranges["CFM"][0]


def test_targets_themselves_vary_less() -> None:
    """A net that is the exact field has no loss but the variance of its targets."""
    path, ranges = fv.CondOT(0.1), {}
    exact = fv.ExactField(SUPPORT, path)
    objectives = {"EFM 12": fv.EFM(path, SUPPORT, 12), "EFM 4": fv.EFM(path, SUPPORT, 4), "CFM": fv.CFM(path)}
    for name, objective in objectives.items():
        losses = []
        for k in range(24):
            index = torch.randint(POINTS, (1024,), generator=generator(1, k))
            losses.append(objective(exact, fv.Batch(SUPPORT[index], index=index), generator=generator(2, k)).loss)
        ranges[name] = interval(torch.stack(losses).double())
    print("\ntargets: " + ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in ranges.items()))
    assert 0 < ranges["EFM 12"][1] < ranges["EFM 4"][0] and ranges["EFM 4"][1] < ranges["CFM"][0]


def pull_with(copies: int) -> Callable[..., Tensor]:
    """Empirical Flow Matching's average by hand, its own datum counted so many times."""

    def pull(x0: Tensor, x1: Tensor, bank: Tensor, inverse_bandwidth: Tensor, drawn: Tensor) -> Tensor:
        s, apart = inverse_bandwidth.double(), bank.double() - x1.double()[:, None]
        logits = s[:, None] * (apart * x0.double()[:, None]).sum(2) - 0.5 * s.square()[:, None] * apart.square().sum(2)
        own = torch.full_like(s, copies).log()[:, None]
        weights = torch.cat([own, logits.masked_fill(drawn, -torch.inf)], 1).softmax(1)[:, 1:]
        return (weights[..., None] * apart).sum(1).to(x1.dtype)

    return pull


def test_the_average_by_hand_is_the_library_s() -> None:
    draws = generator(7)
    x0, x1, bank = (torch.randn(rows, DIM, generator=draws, dtype=torch.float64) for rows in (50, 50, 9))
    s, where = 3 * torch.rand(50, generator=draws, dtype=torch.float64), torch.rand(50, 9, generator=draws) < 0.1
    torch.testing.assert_close(pull_with(1)(x0, x1, bank, s, where), efm._pull(x0, x1, bank, s, where))


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1, 0])
def test_empirical_flow_matching_has_that_gradient_if_its_own_datum_counts_once(
    copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, it agrees; with the own datum left out of the normaliser, the same check refuses."""
    if copies != 1:
        monkeypatch.setattr(efm, "_pull", pull_with(copies))
    setting = SETTINGS["CondOT"]
    error, noise = measured(setting, setting.net(), batches=1400, rows=1024, bank=12).error("EFM")
    print(f"\nown datum counted {copies} times: gradients of EFM and FM differ by {error:.2%} +- {noise:.2%}")
    if copies == 1:
        assert noise < 0.003
        assert error < 0.01
    else:
        assert error > 0.01 + 3 * noise
