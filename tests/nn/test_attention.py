"""Attention: its two ways of computing agree, each runs where it should, and tokens are a set."""

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fluvial.conditions import Tokens
from fluvial.nn.attention import SelfAttention, TokenAttention, attend


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations unchecked, for what is compiled."""
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Types of the queries that fused attention was called with."""
    seen: list[torch.dtype] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(q: Tensor, *args: object, **options: object) -> Tensor:
        seen.append(q.dtype)
        return real(q, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    return seen


def heads(rows: int = 3, m: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q = torch.randn(rows, 2, 4, 6, dtype=dtype)
    k, v = torch.randn(2, rows, 2, m, 6, dtype=dtype)
    mask = torch.rand(rows, m) < 0.6
    mask[:, 0] = True
    return q, k, v, mask


@pytest.mark.parametrize("masked", [False, True])
def test_both_ways_equal_the_sum_written_out(masked: bool, fused: list[torch.dtype]) -> None:
    q, k, v, mask = heads()
    there = mask if masked else None
    expected = torch.empty_like(q)
    for row, head, place in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        weight = (q[row, head, place] * k[row, head]).sum(-1).div(6**0.5).exp()
        weight = weight * mask[row] if masked else weight
        expected[row, head, place] = (weight[:, None] * v[row, head]).sum(0) / weight.sum()
    torch.testing.assert_close(attend(q, k, v, there), expected, rtol=1e-12, atol=1e-12)
    assert fused == [torch.float64]
    primal, _ = torch.func.jvp(lambda q: attend(q, k, v, there), (q,), (torch.ones_like(q),))
    torch.testing.assert_close(primal, expected, rtol=1e-12, atol=1e-12)
    assert len(fused) == 1


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_path_depends_on_whether_any_argument_has_a_tangent(which: int, fused: list[torch.dtype]) -> None:
    parts = list(heads()[:3])
    with forward_ad.dual_level():
        attend(*parts)
        assert len(fused) == 1
        parts[which] = forward_ad.make_dual(parts[which], torch.ones_like(parts[which]))
        moved = forward_ad.unpack_dual(attend(*parts)).tangent
    assert len(fused) == 1 and moved is not None
    parts = list(heads()[:3])

    def shifted(step: float) -> Tensor:
        return attend(*(part + step * (i == which) for i, part in enumerate(parts)))

    torch.testing.assert_close(moved, (shifted(1e-6) - shifted(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("masked", [False, True])
def test_jvp_equals_central_differences(masked: bool) -> None:
    q, k, v, mask = heads()
    there = mask if masked else None
    tangents = tuple(torch.randn_like(part) for part in (q, k, v))
    _, moved = torch.func.jvp(lambda q, k, v: attend(q, k, v, there), (q, k, v), tangents)
    ahead, behind = (
        attend(*(part + step * tangent for part, tangent in zip((q, k, v), tangents, strict=True)), there)
        for step in (1e-6, -1e-6)
    )
    torch.testing.assert_close(moved, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-8)


def test_jacobians_forward_and_reverse_agree() -> None:
    q, k, v, mask = heads(rows=1)
    forward, reverse = (kind(lambda q: attend(q, k, v, mask))(q) for kind in (torch.func.jacfwd, torch.func.jacrev))
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)


def test_bf16_autocast_runs_the_fused_one(fused: list[torch.dtype]) -> None:
    """In float32 on CPUs, whose fused attention is slow backwards in half precision."""
    torch.manual_seed(0)
    attention, x = SelfAttention(16, 2), torch.randn(2, 9, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(x)
    assert fused == [torch.float32] and out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), attention(x), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("masked", [False, True])
def test_compiled_equals_eager_without_a_graph_break(masked: bool, unchecked: None) -> None:
    torch._dynamo.reset()
    q, k, v, mask = heads(dtype=torch.float32)
    there = mask if masked else None
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v, there), attend(q, k, v, there))

    def slope(q: Tensor) -> Tensor:
        out: Tensor = torch.func.jvp(lambda q: attend(q, k, v, there), (q,), (torch.ones_like(q),))[1]
        return out

    torch.testing.assert_close(torch.compile(slope, fullgraph=True, backend="aot_eager")(q), slope(q))


def test_self_attention_is_equivariant_under_permutations() -> None:
    torch.manual_seed(0)
    attention, x, order = SelfAttention(12, 3).double(), torch.randn(2, 7, 12).double(), torch.randperm(7)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], rtol=1e-12, atol=1e-12)


def token_attention(**options: float) -> TokenAttention:
    torch.manual_seed(0)
    made = TokenAttention(12, tokens=5, heads=3, **options).double()
    torch.nn.init.normal_(made.out.weight)
    torch.nn.init.normal_(made.out.bias)
    return made


def tokens() -> tuple[Tensor, Tokens]:
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]).bool()
    return torch.randn(3, 7, 12).double(), Tokens(torch.randn(3, 6, 5).double(), mask)


def test_token_attention_starts_at_zero() -> None:
    x, cond = tokens()
    assert torch.equal(TokenAttention(12, 5, 3).double()(x, cond), torch.zeros(3, 7, 12).double())


def test_tokens_matter_and_their_order_does_not() -> None:
    attention, (x, cond), order = token_attention(), tokens(), torch.tensor([3, 5, 0, 2, 1, 4])
    out = attention(x, cond)
    permuted = attention(x, Tokens(cond.value[:, order], cond.mask[:, order]))
    torch.testing.assert_close(permuted, out, rtol=1e-13, atol=1e-13)
    changed = attention(x, Tokens(cond.value + cond.mask[:, :, None], cond.mask))
    assert (changed - out)[:2].abs().amin((1, 2)).min() > 1e-4


@pytest.mark.parametrize("junk", [0.0, 1e30, torch.inf, torch.nan])
def test_absent_tokens_do_not_matter(junk: float) -> None:
    attention, (x, cond) = token_attention(), tokens()
    out = attention(x, cond)
    assert torch.equal(attention(x, Tokens(cond.value.masked_fill(~cond.mask[:, :, None], junk), cond.mask)), out)
    two = cond.mask[1].clone()
    two[2:] = False
    few = attention(x[1:2], Tokens(cond.value[1:2, :2], two[None, :2]))
    torch.testing.assert_close(attention(x[1:2], Tokens(cond.value[1:2], two[None])), few, rtol=1e-13, atol=1e-13)


def test_a_row_without_tokens_attends_to_the_null() -> None:
    attention, (x, cond) = token_attention(), tokens()
    none = attention(x, None)
    nobody = attention(x, Tokens(cond.value, torch.zeros_like(cond.mask)))
    torch.testing.assert_close(nobody, none, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(attention(x, cond)[2], none[2], rtol=1e-13, atol=1e-13)
    expected = attention.out(attention.key_value(attention.null)[12:]).expand_as(none)
    torch.testing.assert_close(none, expected, rtol=1e-13, atol=1e-13)
    given = attention(x, cond)
    with torch.no_grad():
        attention.null += 1
    moved = (attention(x, cond) - given).abs().amax((1, 2))
    assert moved[2] > 1e-3 and moved[:2].max() == 0


def test_the_scale_is_a_factor_that_can_be_set_later() -> None:
    attention, (x, cond) = token_attention(scale=0.5), tokens()
    half = attention(x, cond)
    attention.scale = 2.0
    assert torch.equal(attention(x, cond), 4 * half)
    attention.scale = 0.0
    assert not attention(x, cond).any()


def test_token_attention_under_forward_mode() -> None:
    attention, (x, cond) = token_attention(), tokens()
    tangent = torch.randn_like(x)
    _, moved = torch.func.jvp(lambda x: attention(x, cond), (x,), (tangent,))
    ahead, behind = attention(x + 1e-6 * tangent, cond), attention(x - 1e-6 * tangent, cond)
    torch.testing.assert_close(moved, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SelfAttention(10, 3), "heads must be positive and divide the width 10, got 3"),
        (lambda: SelfAttention(10, 0), "heads must be positive and divide the width 10, got 0"),
        (lambda: TokenAttention(10, 4, 3), "heads must be positive and divide the width 10, got 3"),
        (lambda: TokenAttention(10, 0, 2), "tokens must be at least 1, got 0"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
