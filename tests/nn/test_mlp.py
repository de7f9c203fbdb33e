"""The perceptron: conditioning, forward-mode differentiation, compilation, bad input."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

import fluvial as fv


def net(**options: object) -> fv.nn.MLP:
    torch.manual_seed(0)
    made = fv.nn.MLP((2, 3), width=32, depth=2, **options)
    torch.nn.init.normal_(made.last.weight)
    for block in made.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.3)
    return made


def test_starts_as_the_zero_field() -> None:
    out = fv.nn.MLP((2, 3), width=16)(torch.randn(4, 2, 3), torch.rand(4))
    assert torch.equal(out, torch.zeros(4, 2, 3))


def test_null_label_none_and_minus_one_are_the_same() -> None:
    made, x, t = net(classes=4), torch.randn(3, 2, 3), torch.rand(3)
    assert torch.equal(made(x, t), made(x, t, torch.full((3,), -1)))
    assert not torch.allclose(made(x, t), made(x, t, torch.tensor([0, 1, 2])))
    mixed = made(x, t, torch.tensor([-1, 1, -1]))
    torch.testing.assert_close(mixed[::2], made(x, t)[::2])


def test_embeddings_and_their_null() -> None:
    made, x, t = net(embedding=4), torch.randn(3, 2, 3), torch.rand(3)
    cond = fv.Embedding(torch.randn(3, 4), torch.tensor([True, False, True]))
    assert torch.equal(made(x, t, cond)[1], made(x, t)[1])
    assert not torch.allclose(made(x, t, cond)[::2], made(x, t)[::2])
    assert not torch.allclose(made(x, t, cond), made(x, t, fv.Embedding(-cond.value, cond.present)))


def test_time_is_resolved_finely_and_a_scalar_serves_all_rows() -> None:
    made, x = net(), torch.randn(3, 2, 3)
    assert torch.equal(made(x, torch.tensor(0.3)), made(x, torch.full((3,), 0.3)))
    assert (made(x, torch.tensor(0.30)) - made(x, torch.tensor(0.31))).norm() > 1e-3


def test_no_second_time_means_no_gap() -> None:
    made, x, t = net(gap=True), torch.randn(3, 2, 3), torch.rand(3)
    assert torch.equal(made(x, t), made(x, t, r=t))
    assert not torch.allclose(made(x, t), made(x, t, r=t + 0.1))


def test_forward_mode_equals_finite_differences() -> None:
    made = net(gap=True).double()
    x, t = torch.randn(3, 2, 3, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    tangents = (torch.randn_like(x), torch.ones_like(t))
    _, moved = torch.func.jvp(lambda x, t: made(x, t, r=t + 0.2), (x, t), tangents)
    step = 1e-6
    ahead = made(x + step * tangents[0], t + step, r=t + step + 0.2)
    behind = made(x - step * tangents[0], t - step, r=t - step + 0.2)
    torch.testing.assert_close(moved, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)


def test_in_half_precision() -> None:
    made, x, t = net(gap=True, classes=3), torch.randn(8, 2, 3), torch.rand(8)
    labels = torch.arange(8) % 4 - 1
    with torch.autocast("cpu", torch.bfloat16):
        short = made(x, t, labels, t)
    out = made(x, t, labels, t)
    assert 0 < (short - out).norm() / out.norm() < 0.05
    short.square().mean().backward()


# The checks of shapes at run time, which the tests have on, are not for tracing: it runs in a process without them.
COMPILED = """
import torch, fluvial as fv
torch.manual_seed(0)
net = fv.nn.MLP((2, 3), width=8, depth=1, classes=3, gap=True)
for parameter in net.parameters():
    torch.nn.init.normal_(parameter, std=0.2)
batch = fv.Batch(torch.randn(4, 2, 3), torch.tensor([0, 2, -1, 1]))
losses, gradients = [], []
for each in (net, torch.compile(net, fullgraph=True)):
    net.zero_grad()
    losses.append(fv.MeanFlow(share=1.0)(each, batch, generator=torch.Generator().manual_seed(0)).loss)
    losses[-1].backward()
    gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_compiled_equals_eager_and_learns_mean_flows() -> None:
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fv.nn.MLP(()), "shape must hold positive sizes"),
        (lambda: fv.nn.MLP((2,), width=12), "width must be a positive multiple of 8, got 12"),
        (lambda: fv.nn.MLP((2,), depth=0), "depth must be at least 1"),
        (lambda: fv.nn.MLP((2,), classes=0), "classes must be at least 1"),
        (lambda: net()(torch.zeros(2, 3, 2), torch.zeros(2)), r"x must have shape \(B, 2, 3\), got \(2, 3, 2\)"),
        (lambda: net()(torch.zeros(2, 2, 3), torch.zeros(2), torch.zeros(2).long()), "takes no labels"),
        (
            lambda: net(classes=3)(torch.zeros(1, 2, 3), torch.zeros(1), torch.tensor([3])),
            "labels must be below 3, got 3",
        ),
        (lambda: net()(torch.zeros(1, 2, 3), torch.zeros(1), r=torch.ones(1)), "build it with gap=True"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_derivative_in_time_of_a_net_with_a_gap_is_tame():
    """Mean Flows regress on it: with the factor 1000 of other nets it would be hundreds of times as large."""
    made = fv.nn.MLP((2,), width=32, depth=2, gap=True)
    torch.nn.init.normal_(made.last.weight, std=0.1)
    t, r = torch.rand(64), torch.ones(64)
    x = torch.randn(64, 2)
    slope = torch.func.jvp(lambda t: made(x, t, None, r), (t,), (torch.ones(64),))[1]
    assert float(slope.detach().square().mean()) < 1
