"""The probe sees what a model attends to, whatever the route, and leaves no trace."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack

from fluvial.conditions import Tokens
from fluvial.nn.attention import SelfAttention, TokenAttention, attend
from fluvial.support.probing import AttentionRecord, probe


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _rows(weights: Tensor, record: AttentionRecord) -> Tensor:
    """The rows that a record looked at, of weights ``(B, h, n, m)``."""
    assert record.rows is not None
    at = record.rows.queries
    return weights.detach()[at[:, 0], :, at[:, 1]].transpose(0, 1).double()


def _agree(record: AttentionRecord, weights: Tensor) -> None:
    assert record.rows is not None
    torch.testing.assert_close(record.rows.attention, _rows(weights, record), atol=1e-6, rtol=1e-5)


MASKS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "none": lambda: {},
    "padding": lambda: {"key_padding_mask": torch.tensor([[0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0] * 5]).bool()},
    "rows": lambda: {"attn_mask": torch.tensor([[0, 1, 0, 0, 0]] * 3 + [[1, 0, 0, 0, 0]] * 3).bool()},
    "both": lambda: MASKS["padding"]() | MASKS["rows"](),
    "heads": lambda: {"attn_mask": _random(3 * 2, 6, 5, seed=9)},
}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "settings", [{}, {"kdim": 7, "vdim": 7}, {"add_bias_kv": True, "add_zero_attn": True}], ids=str
)
def test_multihead_attention(batch_first: bool, need_weights: bool, mask: str, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=batch_first, **settings).eval()
    x, y = _random(3, 6, 8), _random(3, 5, settings.get("kdim", 8), seed=1)
    x, y = (x, y) if batch_first else (x.transpose(0, 1), y.transpose(0, 1))
    given = MASKS[mask]()
    _, weights = module(x, y, y, average_attn_weights=False, **given)
    expected = module(x, y, y, need_weights=need_weights, **given)
    with probe(module, keep=True) as record:
        found = module(x, y, value=y, need_weights=need_weights, **given)
    assert torch.equal(found[0], expected[0])
    assert len(record.records) == 1 and record.records[0].tokens == weights.shape[-1]
    _agree(record.records[0], weights)


def test_multihead_attention_without_a_batch_and_as_a_function() -> None:
    module = nn.MultiheadAttention(8, 2)
    x, y = _random(6, 8), _random(5, 8, seed=1)

    class Functional(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Any:
            out = module.out_proj
            return nn.functional.multi_head_attention_forward(
                x, y, y, 8, 2, module.in_proj_weight, module.in_proj_bias, None, None, False, 0.0, out.weight, out.bias
            )

    _, weights = module(x, y, y, average_attn_weights=False)
    for model, given in ((module, (x, y, y)), (Functional(), (x, y))):
        with probe(model, keep=True) as record:
            model(*given)
        assert [r.layer for r in record.records] == [type(model).__name__]
        _agree(record.records[0], weights[None])


class Cross(nn.Module):
    """Cross-attention by a function, with projections of its own."""

    def __init__(self, function: Callable[..., Tensor], heads: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)
        self.function, self.heads = function, heads

    def project(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        q, k = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query(x), self.key(y)))
        return q, k

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q, k = self.project(x, y)
        return self.function(q, k)


def _softmax_of(logits: Tensor, v: Tensor) -> Tensor:
    return logits.softmax(-1) @ v


FUSED = nn.functional.scaled_dot_product_attention
BIAS = _random(6, 5, seed=3)
VISIBLE = torch.tensor([True, True, False, True, True])
CAUSAL = torch.ones(6, 5).tril().bool()
ROUTES: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Tensor], float]] = {
    "fused": (lambda q, k: FUSED(q, k, k), lambda s: s / 2, 0.5),
    "fused, scaled": (lambda q, k: FUSED(q, k, k, scale=0.3), lambda s: 0.3 * s, 0.3),
    "fused, masked": (
        lambda q, k: FUSED(q, k, k, attn_mask=VISIBLE[None, None, None]),
        lambda s: (s / 2).masked_fill(~VISIBLE, -torch.inf),
        0.5,
    ),
    "fused, biased": (lambda q, k: FUSED(q, k, k, attn_mask=BIAS), lambda s: s / 2 + BIAS, 0.5),
    "fused, causal": (
        lambda q, k: FUSED(q, k, k, is_causal=True), lambda s: (s / 2).masked_fill(~CAUSAL, -torch.inf), 0.5
    ),
    "ours": (
        lambda q, k: attend(q, k, k, VISIBLE.expand(3, 5)), lambda s: (s / 2).masked_fill(~VISIBLE, -torch.inf), 0.5
    ),
    "written": (lambda q, k: _softmax_of(q @ k.mT * 0.5, k), lambda s: s / 2, 0.5),
    "written, scaled before": (lambda q, k: _softmax_of((q * 0.5) @ k.transpose(-2, -1), k), lambda s: s / 2, 0.5),
    "written, divided, masked": (
        lambda q, k: _softmax_of((torch.matmul(q, k.mT) / 4).masked_fill(~VISIBLE, -torch.inf), k),
        lambda s: (s / 4).masked_fill(~VISIBLE, -torch.inf),
        0.25,
    ),
    "written, in place": (
        lambda q, k: _softmax_of((q @ k.mT).mul_(2.0).add_(BIAS), k), lambda s: 2 * s + BIAS, 2.0
    ),
    "written, einsum": (
        lambda q, k: torch.softmax(0.5 * torch.einsum("bhid,bhjd->bhij", q, k), dim=-1) @ k, lambda s: s / 2, 0.5
    ),
    "written, einsum, channels first": (
        lambda q, k: torch.softmax(torch.einsum("bhct,bhcs->bhts", 0.7 * q.mT, k.mT * 0.7), -1) @ k,
        lambda s: 0.49 * s,
        0.49,
    ),
    "written, cast": (lambda q, k: _softmax_of((q @ k.mT).float() * 0.5, k), lambda s: s / 2, 0.5),
    "written, folded": (
        lambda q, k: _softmax_of(torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT) * 0.5, k.flatten(0, 1)),
        lambda s: s / 2,
        0.5,
    ),
    "written, baddbmm": (
        lambda q, k: _softmax_of(
            torch.baddbmm(torch.empty(6, 6, 5), q.flatten(0, 1), k.flatten(0, 1).mT, beta=0, alpha=0.5), k.flatten(0, 1)
        ),
        lambda s: s / 2,
        0.5,
    ),
}  # fmt: skip
BIASED = ("fused, biased", "written, in place")


@pytest.mark.parametrize("route", ROUTES)
def test_other_routes_give_the_softmax_computed_by_hand(route: str) -> None:
    function, logits, scale = ROUTES[route]
    module, x, y = Cross(function), _random(3, 6, 8), _random(3, 5, 8, seed=1)
    expected = module(x, y)
    with probe(module, keep=True) as record:
        found = module(x, y)
    assert torch.equal(found, expected) and found.requires_grad
    assert len(record.records) == 1
    q, k = module.project(x, y)
    only = record.records[0]
    _agree(only, torch.softmax(logits(q @ k.mT), -1))
    assert only.squared_bandwidth == pytest.approx(1 / scale) and only.biased == (route in BIASED)
    # The kernel by distances, over the tokens that are there.
    assert only.rows is not None
    distances = torch.cdist(q.double(), k.double()).square() * -scale / 2
    there = logits(torch.zeros(3, 2, 6, 5)) > -torch.inf
    kernel = torch.softmax(distances.masked_fill(~there, -torch.inf), -1)
    torch.testing.assert_close(only.rows.kernel, _rows(kernel, only), atol=1e-6, rtol=1e-5)


def _written_in_place(q: Tensor, k: Tensor) -> Tensor:
    logits = q @ k.mT
    logits[..., 2] = -torch.inf
    return _softmax_of(logits, k)


@pytest.mark.parametrize(
    "function",
    [
        _written_in_place,
        lambda q, k: _softmax_of((q @ k.mT).clamp_(-1, 1), k),
        lambda q, k: _softmax_of((q @ k.mT).square(), k),
        lambda q, k: torch.softmax(q @ k.mT, -2) @ k,
    ],
)
def test_what_is_not_followed_is_not_recorded(function: Callable[..., Tensor]) -> None:
    module = Cross(function)
    with torch.no_grad(), probe(module) as record:
        module(_random(3, 6, 8), _random(3, 5, 8, seed=1))
    assert record.records == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype: torch.dtype) -> None:
    module = Cross(lambda q, k: FUSED(q, k, k)).to(dtype)
    x, y = _random(3, 6, 8, dtype=dtype), _random(3, 5, 8, seed=1, dtype=dtype)
    with probe(module, keep=True) as record:
        found = module(x, y)
    assert torch.equal(found, module(x, y))
    q, k = (part.double() for part in module.project(x, y))
    _agree(record.records[0], torch.softmax(q @ k.mT / 2, -1))


def test_a_tangent_passes_and_its_attention_is_seen() -> None:
    module = Cross(lambda q, k: attend(q, k, k))
    x, y = _random(3, 6, 8), _random(3, 5, 8, seed=1)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        expected = torch.autograd.forward_ad.unpack_dual(module(dual, y))
        with probe(module) as record:
            found = torch.autograd.forward_ad.unpack_dual(module(dual, y))
    assert torch.equal(found.primal, expected.primal) and torch.equal(found.tangent, expected.tangent)
    assert len(record.records) == 1
    with probe(module) as record:
        torch.func.vmap(lambda x, y: module(x[None], y[None]))(x, y)
    with pytest.raises(ValueError, match=r"torch\.func"):
        record.report()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_fast_path_of_torchs_transformer_is_kept(
    norm_first: bool, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x, mask = _random(3, 6, 8), {"mask": torch.ones(6, 6).triu(1).bool()} if masked else {}
    calls, fused = [], torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(1) or fused(*a))
    with torch.no_grad():
        expected = model(x, **mask)
        assert len(calls) == 2
        with probe(model, self_attention=True, keep=True) as record:
            found = model(x, **mask)
    assert len(calls) == 4 and torch.equal(found, expected)
    assert [r.layer for r in record.records] == ["layers.0", "layers.1"]
    first, inside = model.layers[0], x
    if norm_first:
        inside = first.norm1(x)
    given = {"attn_mask": mask["mask"]} if masked else {}
    _agree(record.records[0], first.self_attn(inside, inside, inside, average_attn_weights=False, **given)[1])
    with torch.enable_grad(), probe(model.train(False), self_attention=True) as record:
        model(x.requires_grad_(), **mask)
    assert [r.layer for r in record.records] == ["layers.0.self_attn", "layers.1.self_attn"]


def test_the_fast_path_of_multihead_attention_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), _random(3, 6, 8)
    calls, fused = [], torch._native_multi_head_attention
    monkeypatch.setattr(torch, "_native_multi_head_attention", lambda *a: calls.append(1) or fused(*a))
    with torch.no_grad(), probe(module, self_attention=True, keep=True) as record:
        _, weights = module(x, x, x, average_attn_weights=False)
    assert calls == [1]
    _agree(record.records[0], weights)


def test_decoders_cross_attention_is_told_from_their_self_attention() -> None:
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2)
    x, memory = _random(3, 6, 8), _random(3, 6, 8, seed=1)
    with probe(model) as record:
        model(x, memory)
    assert [r.layer for r in record.records] == ["layers.0.multihead_attn", "layers.1.multihead_attn"]


def test_equal_numbers_of_tokens_do_not_hide_cross_attention() -> None:
    module, x, y = TokenAttention(8, 8, 2), _random(3, 6, 8), Tokens.of(_random(3, 6, 8, seed=1))
    with probe(module) as record:
        module(x, y)
    assert len(record.records) == 1
    for other in (SelfAttention(8, 2), Cross(lambda q, k: FUSED(q, k, k))):
        run = (lambda: other(x)) if isinstance(other, SelfAttention) else (lambda: other(x, x))  # noqa: B023
        with probe(other) as record:
            run()
        with pytest.raises(ValueError, match="self-attention, left out unless"):
            record.report()
        with probe(other, self_attention=True) as record:
            run()
        assert len(record.records) == 1
    normalised = Cross(lambda q, k: FUSED(nn.functional.layer_norm(q, (4,)) * 2, nn.functional.normalize(k), k))
    with probe(normalised) as record:
        normalised(x, _random(3, 6, 8, seed=1))
        normalised(x, x)
    assert len(record.records) == 1


def _traces() -> tuple[int, int, int]:
    hooks = len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)
    return (*hooks, len(_get_current_function_mode_stack()))


def test_nothing_remains_also_after_an_error() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)

        def forward(self, x: Tensor, t: float) -> Tensor:
            self.attention(x, x[:5], x[:5])
            if t > 0.5:
                raise RuntimeError("stop")
            return x

    before, model, x = _traces(), Fails(), _random(6, 8)
    record = probe(model)
    with record:
        assert _traces() != before
        with pytest.raises(AssertionError, match="query"):
            model.attention(x[0, 0], x, x)  # fails where the mode is off
        assert len(_get_current_function_mode_stack()) == before[2] + 1
        model(x, t=0.25)
    with pytest.raises(RuntimeError, match="stop"), record:
        model(x, 0.75)
    assert _traces() == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [r.time for r in record.records] == [0.25, 0.75]
    model(x, 0.1)
    assert len(record.records) == 2


def test_modes_of_others_are_left_as_they_are() -> None:
    module, x, y = nn.MultiheadAttention(8, 2), _random(6, 8), _random(5, 8, seed=1)
    with probe(module) as record, torch.device("cpu"):
        module(x, y, y)
        assert len(_get_current_function_mode_stack()) == 2
    assert len(record.records) == 1


def test_times_are_read_given_and_chosen() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor, t: Any, cond: Tensor) -> Tensor:
            out: Tensor = self.attention(x, cond, cond)[0]
            return out

    net, x, y = Net(), _random(3, 6, 8), _random(3, 5, 8, seed=1)
    with probe(net) as record:
        net(x, 0.25, y)
        net(x, torch.full((3,), 0.5), y)
        net(x, cond=y, t=torch.tensor([0.1, 0.2, 0.3]))
        record.time = 0.75
        net(x, 0.0, y)
        assert record.at(None) is record
        net(x, torch.tensor(1), y)
    assert [r.time for r in record.records] == [0.25, 0.5, None, 0.75, 1.0]
    assert [r.call for r in record.records] == [0, 1, 2, 3, 4]
    with probe(net, times=(0.1, 0.9)) as record:
        for t in torch.linspace(0, 1, 11):
            net(x, t, y)
    assert record.report().times == pytest.approx((0.1, 0.9))
    with probe(net, batch=slice(1, 2), queries=4, keep=True) as record:
        net(x, 0.1, y)
    assert record.records[0].rows is not None
    assert record.records[0].rows.queries.shape == (4, 2) and set(record.records[0].rows.queries[:, 0].tolist()) == {1}


def test_the_same_seed_gives_the_same_figures_and_none_touches_the_random_state() -> None:
    module, x, y = Cross(lambda q, k: FUSED(q, k, k)), _random(9, 60, 8), _random(9, 5, 8, seed=1)
    state, found = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        with probe(module, seed=seed) as record:
            module(x, y)
        found.append(record.report().to_dict()["records"])
    assert found[0] == found[1] != found[2] and torch.equal(state, torch.get_rng_state())


def test_what_is_kept_does_not_grow_with_the_model() -> None:
    import gc

    def held() -> int:
        gc.collect()
        return sum(x.numel() for x in gc.get_objects() if type(x) is Tensor)

    module, x, y = Cross(lambda q, k: _softmax_of(q @ k.mT, k)), _random(2, 50, 8), _random(2, 300, 8, seed=1)
    with torch.no_grad(), probe(module) as record:
        module(x, y)
        before = held()
        for _ in range(3):
            module(x, y)
        assert held() == before
    assert len(record.records) == 4 and all(r.rows is None for r in record.records)


def test_report(tmp_path: Any) -> None:
    model = nn.ModuleDict({"near": Cross(lambda q, k: FUSED(q, k, k)), "other": Cross(lambda q, k: FUSED(q, k, k))})
    model["near"].function = lambda q, k: FUSED(q, k.sign(), k)  # keys of one norm
    x, y = _random(3, 6, 8), _random(3, 5, 8, seed=1)
    with probe(model) as record:
        for t in (0.0, 1.0):
            record.time = t
            model["near"](x, y), model["other"](x, y)
    report = record.report()
    assert report.layers == ("near", "other") and report.times == (0.0, 1.0)
    assert report.mean("spearman", layer="near") == pytest.approx(1) and report.share(layer="near") == 1
    assert report.mean("norm_spread", layer="near") == 0
    assert report.mean("spearman") == pytest.approx((1 + report.mean("spearman", layer="other")) / 2)
    assert report.select("near").mean("pearson", time=1.0) == pytest.approx(1)
    assert len(report.rows) == 4 and report.table().count("\n") == 5
    assert "| near | 0 | 2 | 5 | 1.00 | 100% | 1.00 |" in report.table()
    saved = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert saved["by_time"][1]["share"] == report.share(time=1.0) and len(saved["records"]) == 4
    assert report.verdict.startswith("In 2 layers,") and report.verdict.count(".") >= 3
    finding = report.finding()
    assert finding.verdict == report.verdict and finding.rows == report.rows
    assert report.figure()[1:4] == b"PNG" and report.figure() != report.figure(dark=True)
    with pytest.raises(ValueError, match=r"names must match one of the 2 layers such as near, got x\*"):
        report.select("x*")
    with pytest.raises(ValueError, match="name must be one of spearman"):
        report.mean("rho")


def test_errors_say_what_was_looked_for() -> None:
    module, x, y = Cross(lambda q, k: FUSED(q, k, k)), _random(3, 6, 8), _random(3, 5, 8, seed=1)
    nothing = r"no cross-attention: it looks for .* saw none; run the model inside the with"
    with probe(nn.Linear(8, 8)) as record:
        pass
    with pytest.raises(ValueError, match=nothing):
        record.report()
    for settings, message in (
        ({"names": "*/image"}, r"1 layer that names='\*/image' leaves out, such as Cross"),
        ({"times": (0.5,)}, "1 call: at other times than times="),
        ({"batch": slice(9, None)}, "1 call: no queries in the rows"),
    ):
        with probe(module, **settings) as record:
            module(x, y)
        with pytest.raises(ValueError, match=message):
            record.report()
    with probe(module) as record:
        module(x, y[:, :2]), module(x, y)
    assert record.report().notes == ("1 call not recorded: attention to one or two tokens, whose ranks say nothing.",)
    negative = Cross(lambda q, k: FUSED(q, k, k, scale=-1.0))
    with probe(negative) as record:
        negative(x, y)
    with pytest.raises(ValueError, match="1 call: a scale that is not positive"):
        record.report()
    for value, error, message in (
        ({"model": 3}, TypeError, "model must be a torch module or a pipeline of diffusers, got int"),
        ({"queries": 0}, ValueError, "queries must be a whole number of at least 1, got 0"),
        ({"permutations": 1}, ValueError, "permutations must be a whole number of at least 2, got 1"),
        ({"seed": -1}, ValueError, "seed must be a whole number of at least 0, got -1"),
        ({"times": ()}, ValueError, "times must hold at least one time"),
        ({"names": ()}, TypeError, "names must be patterns"),
    ):
        with pytest.raises(error, match=message):
            probe(**({"model": module} | value))
    with probe(module) as record, pytest.raises(RuntimeError, match="under way already"):
        record.__enter__()


@pytest.mark.slow  # it imports the compiler
def test_compiled_models_are_refused() -> None:
    compiled = nn.Sequential(nn.Linear(2, 2))
    compiled[0].compile()
    for model in (torch.compile(nn.Linear(2, 2)), compiled):
        with pytest.raises(ValueError, match=r"model must not be compiled, .* got a compiled Linear"):
            probe(model)
