"""Maximum likelihood against closed forms, explicit Jacobians, finite differences and its own other ways."""

import gc
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad_vec
from scipy.linalg import expm
from torch import Tensor, nn

import fluvial as fv
from fluvial.objectives import MaximumLikelihood
from fluvial.objectives.recomputed import recomputed
from fluvial.randomness import generator
from fluvial.training.step import TrainStep

RNODE = {"kinetic": 0.3, "jacobian": 0.2}


def _net(shape: tuple[int, ...] = (2,), kind: Callable[..., nn.Module] = fv.nn.MLP, **options: Any) -> nn.Module:
    """A small net in float64 whose velocity is not zero, as a fresh one's is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = kind(shape, **{"width": 16, "depth": 1, **options}).double()
        for parameter in net.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return net


def _points(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def _gradient(objective: MaximumLikelihood, net: nn.Module, batch: fv.Batch) -> Tensor:
    net.zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)  # dropout
        objective(net, batch, generator=generator(3)).loss.backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_gradient_is_the_loss_s_slope(divergence: str) -> None:
    net, batch = _net(), fv.Batch(_points(5, 2))
    objective = MaximumLikelihood(steps=2, divergence=divergence, **RNODE)
    found = _gradient(objective, net, batch)
    weights = list(net.parameters())
    along = [_points(*p.shape, seed=number) for number, p in enumerate(weights)]
    values = []
    for h in (1e-5, -2e-5):
        for p, direction in zip(weights, along, strict=True):
            p.data += h * direction
        values.append(objective(net, batch, generator=generator(3)).loss.item())
    slope = (values[0] - values[1]) / 2e-5
    expected = float(found @ torch.cat([direction.flatten() for direction in along]))
    assert abs(slope - expected) < 1e-7 * max(1.0, abs(expected))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Any]] = {
    "points": (_net, (6, 2), None),
    "labels": (lambda: _net(classes=3), (6, 2), torch.tensor([0, 1, 2, -1, 0, 1])),
    "images": (lambda: _net((1, 4, 4), fv.nn.UNet, width=8, multipliers=(1,), stem=1, dropout=0.3), (2, 1, 4, 4), None),
    "attention": (lambda: _net((1, 8, 8), fv.nn.DiT, patch=4), (2, 1, 8, 8), None),
}


@pytest.mark.parametrize("name", CASES)
def test_recomputing_gives_the_gradient_of_backpropagation(name: str) -> None:
    """Up to rounding, dropout's masks included; in float64 to 1e-12 of its norm."""
    make, shape, cond = CASES[name]
    net, batch = make(), fv.Batch(_points(*shape), cond)
    kept, again = (_gradient(MaximumLikelihood(2, "heun", adjoint, **RNODE), net, batch) for adjoint in (False, True))
    assert kept.norm() > 1e-3
    assert (kept - again).norm() < 1e-12 * kept.norm()


def test_recomputing_keeps_no_graph_of_its_steps() -> None:
    kept = {}
    for adjoint in (False, True):
        for steps in (2, 8):
            live: weakref.WeakSet[Any] = weakref.WeakSet()

            class Saved:
                def __init__(self, tensor: Tensor, live: weakref.WeakSet[Any] = live) -> None:
                    self.tensor, self.leaf = tensor.detach(), tensor.is_leaf  # itself, it would hold its graph
                    live.add(self)

            with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
                loss = MaximumLikelihood(steps, "euler", adjoint)(
                    _net(), fv.Batch(_points(4, 2)), generator=generator(0)
                )
            gc.collect()
            kept[adjoint, steps] = sum(saved.tensor.numel() for saved in live if not saved.leaf)
            del loss
    assert kept[False, 8] > 3.5 * kept[False, 2] > 500
    assert kept[True, 8] - kept[True, 2] <= 6 * 4 * (2 + 3)  # six more states: of 4 data, 2 numbers and 3 integrals


def test_recomputed_values_reach_weights_and_the_graph_before_them() -> None:
    w, u = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, 0.4))
    outside = u.sin()  # belongs to both steps
    z = _points(3)
    end = recomputed(lambda z: outside * (w * z).sin(), recomputed(lambda z: z + outside * w, z))
    found = torch.autograd.grad(end.sum(), [w, u])
    expected = torch.autograd.grad((u.sin() * (w * (z + u.sin() * w)).sin()).sum(), [w, u])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["points", "labels", "images"])
def test_loss_is_the_negative_log_density_per_dimension(name: str) -> None:
    make, shape, cond = CASES[name]
    net, x = make().eval(), _points(*shape)
    with torch.no_grad():
        found = MaximumLikelihood(3, "midpoint", divergence="exact")(net, fv.Batch(x, cond), generator=generator(0))
    expected = fv.log_prob(net, x, cond, steps=3, method="midpoint").log_prob / math.prod(shape[1:])
    torch.testing.assert_close(found.per_sample, -expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.loss.detach(), -expected.mean(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.logs["nll"], found.loss.detach(), rtol=0, atol=0)
    assert found.logs["evaluations"] == 6


def test_random_directions_are_unbiased() -> None:
    """Each of many equal rows has its own direction; the trajectory does not depend on it."""
    net, x, g = _net((3,)), _points(1, 3), generator(4)
    exact = MaximumLikelihood(3, divergence="exact", **RNODE)(net, fv.Batch(x), generator=g)
    with torch.no_grad():
        many = MaximumLikelihood(3)(net, fv.Batch(x.expand(4000, 3)), generator=g)
        norms = MaximumLikelihood(3, jacobian=1.0)(net, fv.Batch(x.expand(4000, 3)), generator=g)
    for values, expected in (
        (many.per_sample, exact.logs["nll"]),
        (norms.per_sample, exact.logs["nll"] + exact.logs["jacobian"]),
    ):
        error = values.std() / len(values) ** 0.5
        assert error > 1e-5 and (values.mean() - expected).abs() < 4 * error
    torch.testing.assert_close(many.logs["kinetic"], exact.logs["kinetic"])
    two = MaximumLikelihood(3, probes=2)(net, fv.Batch(x.expand(4000, 3)), generator=g).per_sample
    assert two.var() / many.per_sample.var() == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_terms_of_a_linear_field_are_those_of_its_matrix_exponential(divergence: str) -> None:
    a = torch.tensor([[0.3, -1.2, 0.1], [0.8, -0.5, 0.4], [0.0, 0.6, 0.9]], dtype=torch.float64)
    if divergence == "hutchinson":  # a direction is exact for both where the matrix is diagonal
        a = a.diag().diag()
    x1 = _points(4, 3)
    objective = MaximumLikelihood(40, divergence=divergence, **RNODE)
    found = objective(lambda x, t, cond: x @ a.T, fv.Batch(x1), generator=generator(0))

    def velocities(t: float) -> np.ndarray:
        states = x1.numpy() @ expm((t - 1) * a.numpy()).T
        return ((states @ a.numpy().T) ** 2).sum(1)

    x0 = x1 @ torch.from_numpy(expm(-a.numpy())).T
    nll = (0.5 * x0.square().sum(1) + 1.5 * math.log(2 * math.pi) + a.trace()) / 3
    kinetic = torch.from_numpy(quad_vec(velocities, 0, 1, epsabs=1e-12)[0]) / 3
    jacobian = a.square().sum() / 3
    torch.testing.assert_close(found.per_sample, nll + 0.3 * kinetic + 0.2 * jacobian, rtol=1e-7, atol=1e-7)
    for name, expected in (("nll", nll), ("kinetic", kinetic), ("jacobian", jacobian)):
        torch.testing.assert_close(found.logs[name], expected.mean(), rtol=1e-7, atol=1e-7)


class Affine(nn.Module):
    """Velocity ``A x + b``, whose flow of noise is any Gaussian near enough."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        out: Tensor = self.layer(x)
        return out


@pytest.mark.parametrize("dim", [1, 2])
def test_training_reaches_the_likelihood_of_the_fitted_gaussian(dim: int) -> None:
    """The best Gaussian has the data's own mean and covariance; its mean NLL is its entropy."""
    mix = torch.tensor([[1.2, 0.5], [-0.4, 0.7]], dtype=torch.float64)[:dim, :dim]
    x = _points(300, dim) @ mix + 0.8
    net, objective = Affine(dim), MaximumLikelihood(10, divergence="exact")
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=60, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(net, fv.Batch(x), generator=generator(0)).loss
        loss.backward()
        return loss

    start = closure().item()
    optimizer.step(closure)
    covariance = torch.cov(x.T, correction=0).reshape(dim, dim)
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance).item() / dim
    assert closure().item() == pytest.approx(entropy, abs=1e-5) and start > entropy + 0.1


def test_grey_levels_are_filled_evenly() -> None:
    x = torch.tensor([[-1.0, 0.0], [0.5, 1.0]]).repeat(500, 1)  # five levels, half a unit apart
    seen = []

    def field(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    found = MaximumLikelihood(1, "euler", levels=5)(field, fv.Batch(x), generator=generator(0))
    noise = seen[0] - x
    assert -0.25 <= noise.min() < -0.24 and 0.24 < noise.max() <= 0.25 and noise.mean().abs() < 0.02
    expected = 0.5 * seen[0].square().mean(1) + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(found.per_sample, expected)


def test_a_training_step_makes_the_objective_s_gradient() -> None:
    net, batch = _net().float(), fv.Batch(_points(6, 2).float())
    objective = MaximumLikelihood(2, adjoint=True, **RNODE)
    step = TrainStep(net, objective, nullcontext)
    found = _gradient(lambda _, batch, generator: step(batch, generator), net, batch)
    assert torch.equal(found, _gradient(objective, net, batch))
    low = TrainStep(net, objective, lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    rough = _gradient(lambda _, batch, generator: low(batch, generator), net, batch)
    assert 0 < (rough - found).norm() < 0.1 * found.norm()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("adjoint", [False, True])
def test_the_host_does_not_wait(adjoint: bool) -> None:
    net, x = _net().float().cuda(), _points(6, 2).float().cuda()
    objective, g = MaximumLikelihood(2, adjoint=adjoint, levels=9, **RNODE), generator(0)
    objective(net, fv.Batch(x), generator=g).loss.backward()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        objective(net, fv.Batch(x), generator=g).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 2.0}, r"steps must be an integer of at least 1, got 2\.0"),
        ({"probes": 0}, "probes must be an integer of at least 1, got 0"),
        ({"levels": 1}, "levels must be an integer of at least 2, got 1"),
        ({"method": "dopri5"}, "method must be one of euler, midpoint, heun, rk4, got 'dopri5'"),
        ({"divergence": "field"}, "divergence must be one of hutchinson, exact, got 'field'"),
        ({"kinetic": -0.1}, r"kinetic must be finite and not negative, got -0\.1"),
        ({"jacobian": float("nan")}, "jacobian must be finite and not negative, got nan"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _unchecked(**options)


def _unchecked(**options: Any) -> MaximumLikelihood:
    """As a program without run-time checks of types calls it."""
    values = {name: field.default for name, field in MaximumLikelihood.__dataclass_fields__.items()}
    made = object.__new__(MaximumLikelihood)
    for name, value in {**values, **options}.items():
        object.__setattr__(made, name, value)
    made.__post_init__()
    return made


def test_bad_fields() -> None:
    batch = fv.Batch(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"the net must return shape \(3, 2\), got \(3, 1\)"):
        MaximumLikelihood()(lambda x, t, cond: x[:, :1], batch, generator=generator(0))
    with pytest.raises(ValueError, match="makes single points of noise"):
        MaximumLikelihood()(fv.ExactField(torch.zeros(2, 2)), batch, generator=generator(0))


@pytest.mark.slow
def test_regularisation_shortens_trajectories_and_spares_evaluations() -> None:
    """RNODE: less kinetic energy and fewer evaluations of dopri5, for a strong weight and at a price in likelihood."""
    x = fv.load_dataset("moons").train.x
    energy, spent, nll = {}, {}, {}
    for weight in (0.0, 0.3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = fv.nn.MLP((2,), width=32, depth=1, time_scale=1.0)
        objective = MaximumLikelihood(6, "midpoint", kinetic=weight, jacobian=weight)
        optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, betas=(0.9, 0.95))
        for update in range(150):
            g = generator(0, update)
            loss = objective(net, fv.Batch(x[torch.randint(len(x), (64,), generator=g)]), generator=g).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            found = MaximumLikelihood(16, divergence="exact")(net, fv.Batch(x[:500]), generator=g)
            end = fv.solve(net, torch.randn(500, 2, generator=generator(1)), method="dopri5")
        energy[weight], nll[weight], spent[weight] = found.logs["kinetic"], found.loss, end.evaluations
    assert energy[0.3] < 0.8 * energy[0.0]
    assert spent[0.3] < spent[0.0]
    assert nll[0.0] < 0.6 and nll[0.3] < 0.93  # that of the best Gaussian


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", [False, True])
def test_two_processes_make_the_gradient_of_one(adjoint: bool, tmp_path: Path) -> None:
    """Through DistributedDataParallel, each with half of the rows."""
    worker = Path(__file__).with_name("maximum_likelihood_worker.py")
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, worker, tmp_path, str(int(adjoint))]
    workers = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in workers]
    finally:
        for process in workers:
            process.kill()
    assert [process.returncode for process in workers] == [0, 0], "\n".join(errors)
    one, *ranks = (np.load(tmp_path / f"{name}.npy") for name in ("one", "0", "1"))
    for found in ranks:
        assert (np.linalg.norm(found - one, axis=1) < 1e-12 * np.linalg.norm(one, axis=1)).all()


def test_a_velocity_that_autograd_does_not_see_is_refused() -> None:
    batch = fv.Batch(torch.randn(4, 2, generator=generator(0), dtype=torch.float64))
    for divergence in ("exact", "hutchinson"):
        objective = MaximumLikelihood(steps=2, divergence=divergence)
        with pytest.raises(ValueError, match="its velocity depends on x and autograd does not see how"):
            objective(lambda x, t, cond=None: -x.detach(), batch, generator=generator(1))
