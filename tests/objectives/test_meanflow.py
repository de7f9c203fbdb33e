"""Mean Flows against the closed form on Gaussian data: there the average velocity is known."""

from typing import Any

import pytest
import torch
from torch import Tensor

import fluvial as fv
from fluvial.conditions import is_present
from fluvial.objectives import self_consistency
from fluvial.objectives.base import noise_like
from fluvial.objectives.forward_mode import derivative_along

SCALE = 0.6


def std(t: Tensor) -> Tensor:
    return ((1 - t) ** 2 + t**2 * SCALE**2).sqrt()


def exact(x: Tensor, t: Tensor, cond: Any = None, r: Tensor | None = None) -> Tensor:
    """Average velocity of data N(0, SCALE^2) on the straight path; with ``r = t``, and without ``r``, the velocity."""
    t = t[:, None]
    now = x * (t * SCALE**2 - (1 - t)) / std(t) ** 2
    if r is None:
        return now
    r = r[:, None]
    same = (r - t).abs() < 1e-9
    return torch.where(same, now, x * (std(r) / std(t) - 1) / torch.where(same, 1.0, r - t))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_batch(rows: int, seed: int = 1) -> fv.Batch:
    return fv.Batch(SCALE * torch.randn(rows, 3, generator=generator(seed), dtype=torch.float64))


def small_net(**options: Any) -> fv.nn.MLP:
    torch.manual_seed(0)
    net = fv.nn.MLP((3,), width=16, depth=2, gap=True, **options).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


class Given:
    """Pairs that are given, not drawn."""

    def __init__(self, t: Tensor, r: Tensor) -> None:
        self.t, self.r = t, r

    def __call__(self, count: int, **options: Any) -> tuple[Tensor, Tensor]:
        return self.t, self.r


def test_the_identity_holds_at_the_exact_average_velocity() -> None:
    """With the marginal velocity as target and tangent, U - v - (r - t) dU/dt vanishes; with a wrong tangent not."""
    x = torch.randn(64, 3, generator=generator(), dtype=torch.float64)
    t = torch.rand(64, generator=generator(1), dtype=torch.float64)
    r = t + (1 - t) * torch.rand(64, generator=generator(2), dtype=torch.float64)
    v = exact(x, t)
    average, gap = exact(x, t, None, r), (r - t)[:, None]
    for improved in (True, False):
        slope = fv.MeanFlow(improved=improved)._slope(exact, x, t, r, v, None)
        assert (average - v - gap * slope).abs().max() < 1e-12
    wrong = fv.MeanFlow(improved=False)._slope(exact, x, t, r, 2 * v, None)
    assert (average - v - gap * wrong).abs().max() > 1e-2


@pytest.mark.parametrize("tangent", [(1, 0, 0), (0, 1, 0), (1, 1, 1), (1, -1, 0)], ids=str)
def test_the_identity_fails_along_other_tangents(tangent: tuple[int, int, int]) -> None:
    """Of ``(x, t, r)``, in units of ``(v, 1, 1)``: the publication's ablation. Only ``(1, 1, 0)`` follows the flow."""
    x = torch.randn(64, 3, generator=generator(), dtype=torch.float64)
    t = 0.9 * torch.rand(64, generator=generator(1), dtype=torch.float64)
    r, v, one = (1 + t) / 2, exact(x, t), torch.ones_like(t)

    def residual(a: float, b: float, c: float) -> Tensor:
        slope = derivative_along(lambda x, t, r: exact(x, t, None, r), (x, t, r), (a * v, b * one, c * one))
        return exact(x, t, None, r) - v - (r - t)[:, None] * slope

    assert residual(1, 1, 0).abs().max() < 1e-12
    assert residual(*tangent).abs().max() > 1e-2


@pytest.mark.parametrize("improved", [True, False])
@pytest.mark.parametrize("coupling", [fv.Independent(), fv.OptimalTransport()], ids=["independent", "ot"])
def test_without_pairs_it_is_conditional_flow_matching(
    coupling: fv.Independent | fv.OptimalTransport, improved: bool
) -> None:
    """Bit for bit, gradients included, whether no row has a second time or all have ``r = t``."""
    times = fv.LogitNormal(0.6, 1.6)

    class Same:
        def __call__(self, count: int, **options: Any) -> tuple[Tensor, Tensor]:
            t = times(count, **options)
            return t, t

    net = small_net()
    plain = fv.CFM(coupling=coupling, times=times)(net, gaussian_batch(32), generator=generator())
    expected = torch.autograd.grad(plain.loss, list(net.parameters()))
    for share in (0.0, 0.5, 1.0):
        objective = fv.MeanFlow(coupling=coupling, pairs=Same(), share=share, improved=improved)
        found = objective(net, gaussian_batch(32), generator=generator())
        assert torch.equal(found.loss, plain.loss) and torch.equal(found.per_sample, plain.per_sample)
        assert all(map(torch.equal, torch.autograd.grad(found.loss, list(net.parameters())), expected))
        assert float(found.logs["share"]) == share


@pytest.mark.parametrize("improved", [True, False])
def test_the_mean_gradient_is_zero_at_the_exact_average_velocity(improved: bool) -> None:
    """At power 0, for perturbations U + a f(x, t, r) of the average velocity, the derivative in a is 0 on average."""
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def net(x: Tensor, t: Tensor, cond: Any = None, r: Tensor | None = None) -> Tensor:
        gap = torch.zeros_like(t) if r is None else r - t
        bumps = weights[0] + weights[1] * x + weights[2] * (gap * t)[:, None] * x
        return exact(x, t, None, r) + bumps

    gradients = []
    for seed in range(40):
        loss = fv.MeanFlow(share=0.7, improved=improved)(
            net, gaussian_batch(512, seed), generator=generator(100 + seed)
        )
        gradients.append(torch.autograd.grad(loss.loss, weights)[0])
    found = torch.stack(gradients)
    error = found.std(0) / len(found) ** 0.5
    assert (found.mean(0).abs() < 4 * error).all() and (error < 0.05).all()


@pytest.mark.parametrize("power", [0.0, 0.75])
@pytest.mark.parametrize("improved", [True, False])
def test_loss_and_gradient_equal_those_written_out(improved: bool, power: float) -> None:
    """Against ``torch.func.jvp`` row by row, in double precision; the derivative and the weight have no gradient."""
    net, labels = small_net(classes=3), torch.tensor([0, -1, 2, 1, 0, -1])
    x1, (t, r) = gaussian_batch(6).x1, torch.rand(2, 6, generator=generator(3), dtype=torch.float64).sort(0).values
    found = fv.MeanFlow(pairs=Given(t, r), share=0.5, power=power, improved=improved)(
        net, fv.Batch(x1, labels), generator=generator()
    )
    x0, losses = noise_like(x1, generator()), []
    for i in range(6):
        one = slice(i, i + 1)
        v, x, end = x1[one] - x0[one], (1 - t[i]) * x0[one] + t[i] * x1[one], r[one] if i < 3 else t[one]
        with torch.no_grad():
            tangent = net(x, t[one], labels[one], t[one]) if improved else v
            along = tangent, torch.ones_like(t[one])
            slope = torch.func.jvp(lambda x, t, i=one, r=end: net(x, t, labels[i], r), (x, t[one]), along)[1]
        square = (net(x, t[one], labels[one], end) - (end - t[one]) * slope - v).square().sum()
        losses.append(square / 3 * (square.detach() + 1e-3) ** -power)
    expected = torch.stack(losses)
    torch.testing.assert_close(found.per_sample, expected.detach(), rtol=1e-11, atol=1e-12)
    parameters = list(net.parameters())
    for a, b in zip(
        torch.autograd.grad(found.loss, parameters), torch.autograd.grad(expected.mean(), parameters), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_weight_is_that_of_the_publication() -> None:
    net = fv.nn.MLP((3,), width=16, depth=1, gap=True).double()
    batch = gaussian_batch(16)
    plain = fv.MeanFlow()(net, batch, generator=generator()).per_sample
    weighted = fv.MeanFlow(power=0.75, offset=0.01)(net, batch, generator=generator()).per_sample
    torch.testing.assert_close(weighted, plain * (3 * plain + 0.01) ** -0.75)


def test_raw_errors_are_logged_whatever_the_weight() -> None:
    net = fv.nn.MLP((3,), width=16, depth=1, gap=True).double()
    logs = [fv.MeanFlow(power=p)(net, gaussian_batch(20), generator=generator()).logs for p in (0.0, 1.0)]
    assert set(logs[0]) == {"error", "error_between", "share"}
    for name in logs[0]:
        torch.testing.assert_close(logs[0][name], logs[1][name])
        assert not logs[0][name].requires_grad


def test_the_derivative_has_no_gradient_and_the_average_has() -> None:
    net = fv.nn.MLP((3,), width=16, depth=1, gap=True).double()
    fv.MeanFlow(share=1.0)(net, gaussian_batch(20), generator=generator()).loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())
    calls: list[tuple[int, bool]] = []

    def counted(x: Tensor, t: Tensor, cond: Any = None, r: Tensor | None = None) -> Tensor:
        calls.append((len(x), r is not None))
        return exact(x, t, cond, r)

    fv.MeanFlow(share=0.25)(counted, gaussian_batch(20), generator=generator())
    assert calls == [(5, False), (5, True), (20, True)]  # the tangent and forward mode on the pairs alone, then all


def test_guidance_moves_the_target_of_labelled_rows_inside_the_interval() -> None:
    labels = torch.tensor([0, 1, -1, 1])
    x, t = torch.zeros(4, 2), torch.tensor([0.1, 0.5, 0.5, 0.9])
    v = torch.full((4, 2), 10.0)

    def net(x: Tensor, t: Tensor, cond: Tensor, r: Any = None) -> Tensor:
        return (cond[:, None] + 1.0).expand_as(x)  # 0 where the label is dropped

    objective = fv.MeanFlow(omega=2.0, kappa=0.5, interval=(0.0, 0.8))
    found = objective._target(net, x, t, v, labels)[:, 0]
    torch.testing.assert_close(found, torch.tensor([20 + 0.5, 20 + 1.0, 10.0, 10.0]))
    assert fv.MeanFlow()._target(net, x, t, v, labels) is v


class Linear:
    """Average velocity ``a x + b(cond)``: ``b`` is a condition's vector, or where it has none the null's."""

    a, null = -0.7, 0.3

    def offset(self, cond: Any, rows: int) -> Tensor:
        if cond is None:
            return torch.full((rows, 3), self.null, dtype=torch.float64)
        if isinstance(cond, fv.Embedding):
            vectors = cond.value
        elif isinstance(cond, fv.Tokens):
            vectors = (cond.value * cond.mask[:, :, None]).sum(1)
        else:
            vectors = torch.stack([cond, cond**2, -cond], 1).double()
        return torch.where(is_present(cond)[:, None], vectors, self.null)

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None, r: Tensor | None = None) -> Tensor:
        return self.a * x + self.offset(cond, len(x))


def conditions(kind: str) -> Any:
    """Six rows, of which the second and the last have none."""
    there = torch.tensor([True, False, True, True, True, False])
    value = torch.randn(6, 2, 3, generator=generator(4), dtype=torch.float64)
    if kind == "labels":
        return torch.where(there, torch.arange(6), -1)
    if kind == "embeddings":
        return fv.Embedding(value[:, 0], there)
    return fv.Tokens(value, there[:, None] & torch.tensor([[True, i % 2 == 0] for i in range(6)]))


@pytest.mark.parametrize("improved", [True, False])
@pytest.mark.parametrize("kind", ["labels", "embeddings", "tokens"])
def test_guidance_works_for_every_kind_of_condition(kind: str, improved: bool) -> None:
    """The loss of a linear net, whose derivative along ``w`` is ``a w``, with the target's formula written out."""
    cond, net, x1 = conditions(kind), Linear(), gaussian_batch(6).x1
    t = torch.tensor([0.3, 0.2, 0.9, 0.1, 0.5, 0.6], dtype=torch.float64)
    r, omega, kappa = (1 + t) / 2, 1.8, 0.4
    objective = fv.MeanFlow(
        pairs=Given(t, r), share=0.5, omega=omega, kappa=kappa, interval=(0.15, 0.8), improved=improved
    )
    found = objective(net, fv.Batch(x1, cond), generator=generator())
    x0, column = noise_like(x1, generator()), t[:, None]
    v, x = x1 - x0, (1 - column) * x0 + column * x1
    free, own = net.a * x + net.null, net.a * x + net.offset(cond, 6)
    guided = torch.tensor([True, False, False, False, True, False])[:, None]  # has one, and its time is inside
    assert (is_present(cond) == torch.tensor([True, False, True, True, True, False])).all()
    target = torch.where(guided, omega * v + (1 - omega - kappa) * free + kappa * own, v)
    gap = torch.where(torch.arange(6) < 3, r - t, 0.0)[:, None]
    target = target + gap * net.a * (own if improved else target)
    torch.testing.assert_close(found.per_sample, (own - target).square().mean(1), rtol=1e-12, atol=1e-12)
    plain = fv.MeanFlow(pairs=Given(t, r), share=0.5, improved=improved)(net, fv.Batch(x1, cond), generator=generator())
    assert ((plain.per_sample - found.per_sample).abs() > 1e-6).tolist() == guided[:, 0].tolist()


def test_a_guided_target_has_its_optimum_at_the_guided_velocity() -> None:
    """The target of ``U_null + w (v - U_null)`` is itself, with the scale ``w = omega / (1 - kappa)``."""
    x, t, labels = torch.zeros(1, 1), torch.zeros(1), torch.zeros(1).long()
    omega, kappa, null, v = 1.5, 0.4, 0.25, torch.full((1, 1), 2.0)
    best = null + omega / (1 - kappa) * (v - null)

    def net(x: Tensor, t: Tensor, cond: Tensor, r: Any = None) -> Tensor:
        return torch.where(cond[:, None] < 0, null, best)

    target = fv.MeanFlow(omega=omega, kappa=kappa)._target(net, x, t, v, labels)
    torch.testing.assert_close(target, best)


def test_published_settings_are_mirrored() -> None:
    published = fv.MeanFlow.published()
    assert (published.share, published.power, published.improved) == (0.25, 1.0, False)
    t, r = published.pairs(20_000, generator=generator())
    theirs = torch.sigmoid(-0.4 + torch.randn(2, 20_000, generator=generator(5)))  # their clock: 1 is noise
    assert abs(float((1 - t).mean()) - float(theirs.amax(0).mean())) < 0.01
    assert abs(float((1 - r).mean()) - float(theirs.amin(0).mean())) < 0.01


@pytest.mark.parametrize("pairs", [fv.OrderedPairs(), fv.SeparatePairs()], ids=repr)
def test_pairs_are_ordered_and_below_one(pairs: fv.OrderedPairs | fv.SeparatePairs) -> None:
    t, r = pairs(5000, generator=generator())
    assert bool((t <= r).all() and (t >= 0).all() and (r < 1).all())
    again = pairs(5000, generator=generator())
    assert torch.equal(t, again[0]) and torch.equal(r, again[1])


def test_two_exact_jumps_are_one() -> None:
    x = torch.randn(32, 3, generator=generator(), dtype=torch.float64)
    t, s, r = torch.rand(3, 32, generator=generator(1), dtype=torch.float64).sort(0).values
    off, whole = self_consistency(exact, x, t, s, r)
    assert float(off.max()) < 1e-20 and float(whole.min()) > 0
    assert float(self_consistency(lambda x, t, c, r: x * (1 + r[:, None]), x, t, s, r)[0].max()) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"power": -1.0}, "power must be finite and not negative"),
        ({"offset": 0.0}, "offset must be positive"),
        ({"omega": float("nan")}, "omega must be finite"),
        ({"kappa": 1.0}, r"kappa must be in \[0, 1\)"),
        ({"interval": (0.5, 0.5)}, "interval must satisfy"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fv.MeanFlow(**options)


def test_a_net_that_returns_another_shape() -> None:
    with pytest.raises(ValueError, match=r"the net must return shape \(10, 3\), got \(10, 1\)"):
        fv.MeanFlow()(lambda x, t, cond=None, r=None: x[:, :1], gaussian_batch(20), generator=generator())
