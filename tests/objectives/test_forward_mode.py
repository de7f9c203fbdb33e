"""The short rules of forward mode against torch's own, central differences, and what they must leave alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

import fluvial as fv
from fluvial.objectives import forward_mode
from fluvial.objectives.forward_mode import derivative_along

Function = Callable[..., Tensor]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


ROWS, IMAGES = randn(5, 6), randn(3, 6, 4, 5)
W, V, B = randn(6, 6), randn(6), randn(6)
LAST = torch.channels_last

SHORT: dict[str, tuple[Function, Tensor]] = {
    "linear": (lambda x: F.linear(x, W, B), ROWS),
    "linear, named": (lambda x: F.linear(input=x, weight=W, bias=B), ROWS),
    "linear without bias": (lambda x: F.linear(x, W), ROWS),
    "conv1d": (lambda x: F.conv1d(x, randn(8, 6, 3), padding=1), randn(2, 6, 7)),
    "conv2d": (lambda x: F.conv2d(x, randn(4, 3, 3, 3), V[:4], 2, 1, groups=2), IMAGES),
    "conv2d, channels last": (
        lambda x: F.conv2d(x, randn(4, 6, 3, 3), V[:4]),
        IMAGES.contiguous(memory_format=LAST),
    ),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, randn(6, 2, 2, 2), V[:2], stride=2), IMAGES),
    "layer_norm": (lambda x: F.layer_norm(x, (6,)), ROWS),
    "layer_norm with weights": (lambda x: F.layer_norm(x, (6,), V, bias=B), ROWS),
    "layer_norm over two axes": (lambda x: F.layer_norm(x, [4, 5], randn(4, 5)), IMAGES),
    "layer_norm of a view": (lambda x: F.layer_norm(x.mT, (5,)), ROWS),
    "group_norm": (lambda x: F.group_norm(x, 2), IMAGES),
    "group_norm with weights": (lambda x: F.group_norm(x, 3, V, B, 1e-3), IMAGES),
    "group_norm, channels last": (lambda x: F.group_norm(x, 3, V, B), IMAGES.contiguous(memory_format=LAST)),
    "group_norm of rows": (lambda x: F.group_norm(x, 2, V, B), ROWS),
    "group_norm of a view": (lambda x: F.group_norm(x.transpose(2, 3), 2, V), IMAGES),
    "softmax": (lambda x: x.softmax(-1), IMAGES),
    "softmax along rows": (lambda x: F.softmax(x.mT, dim=0), ROWS),
    "product": (lambda x: x * V, ROWS),
    "product, other way": (lambda x: V[:, None, None, None] * x[:1, :1], IMAGES),
    "product with a number": (lambda x: 2 * x, ROWS),
    "matrix product": (lambda x: x @ W, ROWS),
    "matrix product, other way": (lambda x: torch.matmul(randn(2, 5), x), ROWS),
    "quotient": (lambda x: x / V, ROWS),
    "sum": (lambda x: x + V, ROWS),
    "sum, other way": (lambda x: torch.add(input=V, other=x[0, 0]), ROWS),
    "sum with a number": (lambda x: 1 + x, ROWS),
    "difference": (lambda x: x - V, ROWS),
    "difference, other way": (lambda x: torch.sub(V, x[:, :1]), ROWS),
}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each rule that was asked applied."""
    found: list[bool] = []

    def spied(rule: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
        def spy(*args: Any, **named: Any) -> Tensor | None:
            result = rule(*args, **named)
            found.append(result is not None)
            return result

        return spy

    monkeypatch.setattr(forward_mode, "_RULES", {func: spied(rule) for func, rule in forward_mode._RULES.items()})
    return found


def torchs(function: Function, x: Tensor, v: Tensor) -> Tensor:
    with forward_ad.dual_level():
        slope: Tensor = forward_ad.unpack_dual(function(forward_ad.make_dual(x, v))).tangent
    return slope


@pytest.mark.parametrize("name", SHORT)
def test_a_short_rule_is_torchs(name: str, used: list[bool]) -> None:
    function, x = SHORT[name]
    v = torch.randn_like(x)
    found = derivative_along(function, (x,), (v,))
    expected = torchs(function, x.contiguous(), v.contiguous())  # its group_norm fails on channels last
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert used == [True]


LONG: dict[str, Function] = {
    "both move": lambda x: x * x.sin() + (x - 2 * x) @ x.mT @ x / x,
    "the weights move": lambda x: F.linear(x, x[:, :6].mT @ x, x[0]) + F.layer_norm(x, (6,), x[1], B),
    "scaled sum": lambda x: torch.add(x, V, alpha=3) + torch.sub(V, x, alpha=2),
    "rounded": lambda x: torch.div(x, V, rounding_mode="floor") + x,
    "wider type": lambda x: x.float() + V,
    "softmax in another type": lambda x: x.softmax(-1, dtype=torch.float32),
    "nothing moves": lambda x: F.linear(W, W, B)[:5] + V * 2 + x,
}


@pytest.mark.parametrize("name", LONG)
def test_where_none_fits_the_rule_is_torchs(name: str) -> None:
    function, x, v = LONG[name], ROWS, torch.randn_like(ROWS)
    rtol = 1e-6 if name in ("wider type", "softmax in another type") else 1e-11
    torch.testing.assert_close(derivative_along(function, (x,), (v,)), torchs(function, x, v), rtol=rtol, atol=rtol)


def test_operations_in_place_after_a_sum_change_one_tangent_alone() -> None:
    def function(x: Tensor) -> Tensor:
        y = x + 1
        y.mul_(3)
        return x * 10 + y

    v = torch.randn_like(ROWS)
    torch.testing.assert_close(derivative_along(function, (ROWS,), (v,)), 13 * v)


def nets() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    return {
        "mlp": (fv.nn.MLP((6,), width=16, depth=2, gap=True), (6,)),
        "plain": (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.RMSNorm(8), nn.Linear(8, 6), nn.Softplus()), (6,)),
        "convolutions": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 2, 3)), (2, 5, 5)),
        "transformer": (nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval(), (5, 8)),
    }


@pytest.mark.parametrize("name", nets())
def test_whole_nets_equal_central_differences(name: str) -> None:
    """The transformer's fused attention has no forward mode of its own."""
    net, shape = nets()[name]
    for parameter in net.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    x, v, step = randn(4, *shape), randn(4, *shape), 1e-6
    function = (lambda x: net(x, x.flatten(1)[:, 0])) if name == "mlp" else net
    found = derivative_along(function, (x,), (v,))
    assert not found.requires_grad
    with torch.no_grad():
        expected = (function(x + step * v) - function(x - step * v)) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_a_compiled_net_is_run_as_it_was_written() -> None:
    """Inductor's code writes into buffers and has no forward mode; this backend counts its calls instead."""
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            calls.append(1)
            return graph.forward(*args)

        return run

    net = nn.Linear(6, 6).double()
    compiled = torch.compile(net, backend=backend)
    compiled(ROWS)
    assert calls == [1]
    v = torch.randn_like(ROWS)
    torch.testing.assert_close(derivative_along(compiled, (ROWS,), (v,)), v @ net.weight.detach().mT)
    assert calls == [1]
    compiled(ROWS)
    assert calls == [1, 1]


def test_what_does_not_move_has_no_slope_and_an_error_leaves_nothing_behind() -> None:
    assert torch.equal(derivative_along(lambda x: W, (ROWS,), (ROWS,)), torch.zeros_like(W))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        derivative_along(lambda x: F.linear(x, W[:, :2]), (ROWS,), (ROWS,))
    torch.testing.assert_close(derivative_along(lambda x: 2 * x, (ROWS,), (ROWS,)), 2 * ROWS)
    assert nn.Linear(6, 6)(ROWS.float()).requires_grad
