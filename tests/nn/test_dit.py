"""The transformer on patches: conditioning, forward-mode differentiation, compilation, autocast, bad input."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import jaxtyping
import pytest
import torch

import fluvial as fv
from fluvial.conditions import Embedding, Tokens
from fluvial.nn.attention import TokenAttention
from fluvial.nn.dit import DiT
from fluvial.nn.patches import from_patches, grid_positions, to_patches
from fluvial.training.step import TrainStep

SHAPE = (2, 4, 6)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Annotations unchecked, for what is compiled; the checks around a dataclass have to go as well."""
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    for name in ("__init__", "__post_init__"):
        monkeypatch.setattr(Tokens, name, inspect.unwrap(getattr(Tokens, name)))
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


def net(**options: object) -> DiT:
    """A net whose every part plays a role."""
    torch.manual_seed(0)
    made = DiT(SHAPE, width=16, depth=2, heads=2, **options)
    for name, weight in made.named_parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.2 if "modulation" in name else 0.5)
    return made


def points(rows: int = 3, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(rows, *SHAPE, dtype=dtype), torch.rand(rows, dtype=dtype)


CONDITIONS = {
    "classes": (4, torch.tensor([0, 3, 1])),
    "embedding": (5, Embedding.of(torch.linspace(-1, 1, 15).reshape(3, 5))),
    "tokens": (5, Tokens.of(torch.linspace(-1, 1, 30).sin().reshape(3, 2, 5))),
}


def test_starts_as_the_zero_field() -> None:
    x, t = points()
    assert torch.equal(DiT(SHAPE, width=16, depth=2, tokens=5)(x, t, CONDITIONS["tokens"][1]), torch.zeros_like(x))


@pytest.mark.parametrize("side", [1, 2])
def test_patches_are_the_pixels_of_their_place(side: int) -> None:
    x, _ = points()
    patches = to_patches(x, side)
    for index, patch in enumerate(patches.unbind(1)):
        row, column = side * (index // (6 // side)), side * (index % (6 // side))
        assert torch.equal(patch, x[:, :, row : row + side, column : column + side].flatten(1))
    assert torch.equal(from_patches(patches, SHAPE, side), x)


def test_positions_tell_all_places_apart_and_offsets_look_alike() -> None:
    places = grid_positions(5, 7, 16)
    assert places.abs().max() <= 1 and torch.cdist(places, places).add(torch.eye(35)).min() > 0.1
    products = (places @ places.T).reshape(5, 7, 5, 7)
    assert products[0, 0, 2, 3] == pytest.approx(float(products[1, 2, 3, 5]), abs=1e-5)


def test_patches_talk_to_each_other_and_know_where_they_are() -> None:
    made, (x, t) = net(), points()
    moved = x.clone()
    moved[:, :, 0, 0] += 1
    changed = (made(moved, t) - made(x, t)).abs().amax((0, 1))
    assert changed.min() > 1e-4
    same = made(torch.zeros_like(x), t)
    assert (same[:, :, :2, :2] - same[:, :, 2:, 2:4]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", sorted(CONDITIONS))
def test_conditions_matter_and_none_is_the_null(kind: str) -> None:
    size, cond = CONDITIONS[kind]
    made, (x, t) = net(**{kind: size}), points()
    none = made(x, t)
    torch.testing.assert_close(made(x, t, fv.conditions.null_like(cond)), none)
    assert (made(x, t, cond) - none).abs().amax((1, 2, 3)).min() > 1e-4
    mixed = made(x, t, fv.conditions.keep_where(cond, torch.tensor([False, True, False])))
    torch.testing.assert_close(mixed[::2], none[::2])
    torch.testing.assert_close(mixed[1], made(x, t, cond)[1])


def test_the_scale_of_token_attention_can_be_set_at_sampling_time() -> None:
    (size, cond), (x, t) = CONDITIONS["tokens"], points()
    made = net(tokens=size)
    for part in made.modules():
        if isinstance(part, TokenAttention):
            part.scale = 0.0
    assert torch.equal(made(x, t, cond), made(x, t))


def test_rows_do_not_influence_each_other_and_a_scalar_time_serves_all() -> None:
    made, (x, t) = net(), points()
    torch.testing.assert_close(made(x, t)[1:2], made(x[1:2], t[1:2]))
    assert torch.equal(made(x, torch.tensor(0.3)), made(x, torch.full((3,), 0.3)))
    assert torch.equal(made(x, 0.3), made(x, torch.full((3,), 0.3)))
    assert (made(x, 0.30) - made(x, 0.31)).norm() > 1e-3


def test_no_second_time_means_no_gap() -> None:
    made, (x, t) = net(gap=True), points()
    assert made.gap and torch.equal(made(x, t), made(x, t, r=t))
    assert not torch.allclose(made(x, t), made(x, t, r=t + 0.1))


@pytest.mark.parametrize("kind", [None, *sorted(CONDITIONS)])
def test_forward_mode_equals_finite_differences(kind: str | None) -> None:
    size, cond = (None, None) if kind is None else CONDITIONS[kind]
    made = net(gap=True, **({} if kind is None else {kind: size})).double()
    x, t = points(dtype=torch.float64)
    along = torch.randn_like(x), torch.ones_like(t)
    _, moved = torch.func.jvp(lambda x, t: made(x, t, cond, t + 0.2), (x, t), along)
    step = 1e-6
    ahead = made(x + step * along[0], t + step, cond, t + step + 0.2)
    behind = made(x - step * along[0], t - step, cond, t - step + 0.2)
    torch.testing.assert_close(moved, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(CONDITIONS))
def test_mean_flow_trains_it(kind: str, seeded: Callable[[int], torch.Generator]) -> None:
    """The loss on fixed draws falls, and every weight has a gradient."""
    size, cond = CONDITIONS[kind]
    made, (x, _) = net(gap=True, **{kind: size}), points()
    optimizer, losses = torch.optim.Adam(made.parameters(), 1e-2), []
    for _ in range(15):
        loss = fv.MeanFlow(share=2 / 3)(made, fv.Batch(x, cond), generator=seeded(0))
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()
        losses.append(float(loss.loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    silent = [n for n, weight in made.named_parameters() if weight.grad is None and not n.endswith("null")]
    assert silent == []


def test_bf16_autocast_stays_near_and_trains_in_float32() -> None:
    made, (x, t) = net(tokens=5), points()
    exact = made(x, t, CONDITIONS["tokens"][1])
    with torch.autocast("cpu", torch.bfloat16):
        rough = made(x, t, CONDITIONS["tokens"][1])
    assert rough.dtype == torch.bfloat16 and (rough.float() - exact).norm() < 0.03 * exact.norm()
    rough.float().square().mean().backward()
    assert {weight.grad.dtype for weight in made.parameters() if weight.grad is not None} == {torch.float32}


def test_mean_flow_step_under_autocast(seeded: Callable[[int], torch.Generator]) -> None:
    made, (x, _) = net(gap=True), points(8)
    fused: list[torch.dtype] = []
    real = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = lambda q, *a, **k: (fused.append(q.dtype), real(q, *a, **k))[1]
    try:
        rough = TrainStep(made, fv.MeanFlow(), lambda: torch.autocast("cpu", torch.bfloat16))
        loss = rough(fv.Batch(x), seeded(0)).loss
    finally:
        torch.nn.functional.scaled_dot_product_attention = real
    # in each of two blocks for the tangent of the improved form and for the gradient; the derivative does without
    assert len(fused) == 4
    exact = TrainStep(made, fv.MeanFlow(), nullcontext)(fv.Batch(x), seeded(0)).loss
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, *sorted(CONDITIONS)])
def test_compiled_equals_eager_without_a_graph_break(kind: str | None, unchecked: None) -> None:
    torch._dynamo.reset()
    size, cond = (None, None) if kind is None else CONDITIONS[kind]
    made, (x, t) = net(gap=True, **({} if kind is None else {kind: size})), points()
    compiled = torch.compile(copy.deepcopy(made), fullgraph=True, backend="aot_eager")
    for r in (None, t + 0.1):
        torch.testing.assert_close(compiled(x, t, cond, r), made(x, t, cond, r))
    compiled(x, t, cond).square().sum().backward()
    made(x, t, cond).square().sum().backward()
    torch.testing.assert_close(compiled.first.weight.grad, made.first.weight.grad)


@pytest.mark.slow
def test_forward_mode_compiled_by_inductor(unchecked: None) -> None:
    torch._dynamo.reset()
    made, (x, t) = net(gap=True), points()
    made.blocks = made.blocks[:1]

    def both(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        along = torch.ones_like(x), torch.ones_like(t)
        primal, moved = torch.func.jvp(lambda x, t: made(x, t, None, t + 0.2), (x, t), along)
        return primal, moved

    with torch.no_grad():
        torch.testing.assert_close(torch.compile(both, fullgraph=True)(x, t), both(x, t), rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    made, (x, t) = net(dropout=0.5), points()
    assert not torch.equal(made(x, t), made(x, t))
    made.eval()
    assert torch.equal(made(x, t), made(x, t)) and torch.equal(made(x, t), net()(x, t))


def test_default_heads_divide_every_width() -> None:
    heads = {width: DiT((1, 4, 4), width=width, depth=1).blocks[0].attention.heads for width in (32, 96, 192, 224, 384)}
    assert heads == {32: 1, 96: 1, 192: 3, 224: 2, 384: 6}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DiT((4,)), r"shape must be that of an image \(C, H, W\), got \(4,\)"),
        (lambda: DiT((1, 0, 4)), r"shape must be that of an image \(C, H, W\), got \(1, 0, 4\)"),
        (lambda: DiT((1, 28, 30), patch=4), "patch must be positive and divide the sides 28 and 30, got 4"),
        (lambda: DiT((1, 4, 4), patch=0), "patch must be positive and divide the sides 4 and 4, got 0"),
        (lambda: DiT((1, 4, 4), width=18), "width must be a positive multiple of 4, got 18"),
        (lambda: DiT((1, 4, 4), depth=0), "depth must be at least 1, got 0"),
        (lambda: DiT((1, 4, 4), width=16, heads=3), "heads must be positive and divide the width 16, got 3"),
        (lambda: DiT((1, 4, 4), dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: DiT((1, 4, 4), classes=3, tokens=4), "a net takes one kind of condition, got classes and tokens"),
        (lambda: net()(torch.zeros(2, 2, 6, 4), 0.5), r"x must have shape \(B, 2, 4, 6\), got \(2, 2, 6, 4\)"),
        (lambda: net()(points()[0], 0.5, CONDITIONS["tokens"][1]), "takes no tokens: build it with tokens="),
        (lambda: net(tokens=4)(points()[0], 0.5, CONDITIONS["tokens"][1]), "tokens must have length 4, got 5"),
        (lambda: net()(points()[0], 0.5, r=0.7), "build it with gap=True"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
