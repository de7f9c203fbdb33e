"""What nets know beside their point: each kind of condition, its null, the gap, bad input."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fluvial.conditions import Embedding, Tokens, null_like
from fluvial.nn.conditioning import Conditioning, with_null

X = torch.zeros(3, 2)
T = torch.tensor([0.1, 0.5, 0.9])


def made(**options: Any) -> Conditioning:
    torch.manual_seed(0)
    return Conditioning(16, **options)


def by_hand(net: Conditioning, extra: Tensor | float = 0.0, gap: Tensor | None = None) -> Tensor:
    """Sum of the features of time, gap and condition, through two layers."""
    h = net.time_in(net.time(T)) + extra
    if net.gap_in is not None:
        h = h + net.gap_in(net.time(torch.zeros(3) if gap is None else gap))
    return nn.functional.silu(net.out(nn.functional.silu(h)))


def vectors(present: list[bool]) -> Embedding:
    g = torch.Generator().manual_seed(1)
    return Embedding(torch.randn(3, 5, generator=g), torch.tensor(present))


def test_time_alone() -> None:
    net = made()
    torch.testing.assert_close(net(X, T), by_hand(net))
    assert torch.equal(net(X, 0.5), net(X, torch.full((3,), 0.5)))


def test_labels_have_a_row_each_and_one_for_none() -> None:
    net = made(classes=4)
    labels = torch.tensor([3, -1, 0])
    assert net.label is not None
    torch.testing.assert_close(net(X, T, labels), by_hand(net, net.label.table.weight[torch.tensor([3, 4, 0])]))
    assert torch.equal(net(X, T), net(X, T, null_like(labels)))
    assert torch.equal(net(X, T, labels)[1], net(X, T)[1]) and not torch.equal(net(X, T, labels)[2], net(X, T)[2])


def test_embeddings_that_are_present_count_and_others_are_the_learned_null() -> None:
    net = made(embedding=5)
    cond = vectors([True, False, True])
    assert net.vector_in is not None and net.null is not None
    extra = torch.stack([net.vector_in(cond.value[0]), net.null, net.vector_in(cond.value[2])])
    torch.testing.assert_close(net(X, T, cond), by_hand(net, extra))
    torch.testing.assert_close(net(X, T), by_hand(net, net.null))
    assert torch.equal(net(X, T), net(X, T, null_like(cond)))


def test_the_values_of_absent_embeddings_play_no_part_even_in_the_gradient() -> None:
    net = made(embedding=5)
    gradients = []
    for value in (0.0, float("nan")):
        cond = vectors([True, False, True])
        cond.value[1] = value
        net.zero_grad()
        net(X, T, cond).square().sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert a is not None and torch.equal(a, b)
    assert float(net.null.grad.norm()) > 0  # type: ignore[union-attr]


def test_embeddings_come_in_the_type_of_the_points() -> None:
    net = made(embedding=5).double()
    cond = vectors([True, True, False])
    found = net(X.double(), T, cond)
    assert found.dtype == torch.float64
    assert torch.equal(found, net(X.double(), T.double(), Embedding(cond.value.double(), cond.present)))


def test_tokens_are_met_elsewhere() -> None:
    net = made(tokens=5)
    assert torch.equal(net(X, T, Tokens.of(torch.randn(3, 2, 5))), net(X, T))


def test_no_second_time_is_no_gap() -> None:
    net = made(gap=True)
    torch.testing.assert_close(net(X, T), by_hand(net))
    assert torch.equal(net(X, T), net(X, T, None, T))
    torch.testing.assert_close(net(X, T, None, 0.95), by_hand(net, gap=0.95 - T))
    assert (net(X, T, None, T + 0.05) - net(X, T)).norm(dim=1).min() > 1e-3


def test_times_are_scaled_by_1000_but_with_a_gap_not() -> None:
    for options, scale in (({}, 1000.0), ({"gap": True}, 1.0), ({"gap": True, "time_scale": 7.0}, 7.0)):
        assert float(made(**options).time.frequencies[0]) == scale
    assert float(made(time_scale=7.0).time.frequencies[0]) == 7


@pytest.mark.parametrize("kind", ["labels", "embedding"])
def test_forward_mode_equals_central_differences(kind: str) -> None:
    net = made(gap=True, **({"classes": 3} if kind == "labels" else {"embedding": 5})).double()
    cond = torch.tensor([0, -1, 2]) if kind == "labels" else vectors([True, False, True])
    x, t, step = X.double(), T.double(), 1e-5

    def function(t: Tensor) -> Tensor:
        features: Tensor = net(x, t, cond, torch.ones_like(t))
        return features

    _, slope = torch.func.jvp(function, (t,), (torch.ones_like(t),))
    torch.testing.assert_close(slope, (function(t + step) - function(t - step)) / (2 * step), rtol=1e-7, atol=1e-9)


def test_rows_without_tokens_get_the_null_and_others_do_not() -> None:
    null = nn.Parameter(torch.arange(4.0))
    value = torch.randn(3, 2, 4)
    tokens = Tokens(value, torch.tensor([[True, True], [False, False], [False, True]]))
    found = with_null(tokens, null, 3)
    assert torch.equal(found.value, torch.cat([null.expand(3, 1, 4), value], 1))
    assert found.mask.tolist() == [[False, True, True], [True, False, False], [False, False, True]]
    none = with_null(None, null, 3)
    assert torch.equal(none.value, null.expand(3, 1, 4)) and none.mask.all()
    assert with_null(Tokens.of(value.double()), null, 3).value.dtype == torch.float64
    none.value.sum().backward()
    assert null.grad is not None and null.grad.tolist() == [3.0] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 15}, "width must be even and at least 2, got 15"),
        ({"width": 0}, "width must be even and at least 2, got 0"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
        ({"tokens": -1}, "tokens must be at least 1, got -1"),
        ({"classes": 2, "tokens": 3}, "one kind of condition, got classes and tokens"),
        ({"time_scale": 0.0}, "scale must be positive, got 0.0"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conditioning(**{"width": 16, **options})


LABELS, VECTORS, TOKENS = torch.tensor([0, 1, -1]), Embedding.of(torch.zeros(3, 5)), Tokens.of(torch.zeros(3, 2, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: made()(X, T, LABELS), "takes no labels: build it with classes="),
        (lambda: made(classes=2)(X, T, VECTORS), "takes no embeddings: build it with embedding="),
        (lambda: made(embedding=5)(X, T, TOKENS), "takes no tokens: build it with tokens="),
        (lambda: made(tokens=5)(X, T, LABELS), "takes no labels"),
        (lambda: made(classes=2)(X, T, LABELS[:2]), "cond must have 3 rows, one for each point, got 2"),
        (lambda: made(embedding=5)(X, T, VECTORS[:1]), "cond must have 3 rows, one for each point, got 1"),
        (lambda: made(classes=1)(X, T, LABELS), "labels must be below 1, got 1"),
        (lambda: made(embedding=4)(X, T, VECTORS), "embeddings must have length 4, got 5"),
        (lambda: made(tokens=4)(X, T, TOKENS), "tokens must have length 4, got 5"),
        (lambda: made(embedding=5)(X, T, torch.zeros(3, 5)), r"an Embedding or Tokens, got \(3, 5\)"),
        (lambda: made(classes=2)(X, T, [0, 1, 1]), "got list"),
        (lambda: made()(X, T, None, T), "takes no second time r: build it with gap=True"),
        (lambda: made()(X, T[:2]), r"t must be a scalar or have shape \(3,\), got \(2,\)"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
