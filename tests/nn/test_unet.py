"""The U-Net: sizes, conditioning, attention to tokens, forward-mode differentiation, compilation, bad input."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

import fluvial as fv
from fluvial.nn.resnet_blocks import Doubling, Halving, Norm, PixelAttention, ResidualBlock
from fluvial.nn.unet import UNet

SHAPE = (2, 6, 6)


def net(shape: tuple[int, ...] = SHAPE, **options: object) -> UNet:
    """A small net in which nothing is left at zero."""
    torch.manual_seed(0)
    made = UNet(shape, **{"width": 8, "multipliers": (1, 2), **options})
    for layer in made.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.3 if isinstance(layer, nn.Linear) else 0.15)
    return made.eval()


def points(rows: int = 3, shape: tuple[int, ...] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(rows, *shape, generator=g), torch.rand(rows, generator=g)


def test_starts_as_the_zero_field() -> None:
    made, (x, t) = UNet(SHAPE, width=8, multipliers=(1, 2)), points()
    assert torch.equal(made(x, t), torch.zeros_like(x))


@pytest.mark.slow
def test_every_weight_learns() -> None:
    made, (x, t) = UNet(SHAPE, width=8, multipliers=(1, 2)), points()
    before = [parameter.clone() for parameter in made.parameters()]
    target, optimizer = torch.randn_like(x), torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (made(x, t) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert not any(torch.equal(old, new) for old, new in zip(before, made.parameters(), strict=True))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 5), (1, 9, 16), (2, 3, 3)])
def test_odd_sides_are_halved_upwards_and_come_back(shape: tuple[int, ...]) -> None:
    made, (x, t) = net(shape, multipliers=(1, 1, 2)), points(2, shape)
    assert made(x, t).shape == x.shape and made(x, t).std() > 0


def test_one_pixel_and_one_level_are_enough() -> None:
    made, (x, t) = net((1, 1, 1), multipliers=(1,)), points(2, (1, 1, 1))
    assert made(x, t).shape == x.shape


def test_sides_and_number_of_features_are_those_of_the_definition() -> None:
    h = torch.randn(1, 8, 7, 6)
    assert Halving(8)(h).shape[2:] == (4, 3)
    assert Doubling(8)(Halving(8)(h), (7, 6)).shape == h.shape
    doubling = Doubling(8)
    nn.init.dirac_(doubling.conv.weight)
    nn.init.zeros_(doubling.conv.bias)
    doubled = doubling(h, (13, 12))
    torch.testing.assert_close(doubled[:, :, ::2, ::2], h)
    torch.testing.assert_close(doubled[:, :, 1::2, 1::2], h[:, :, :-1])
    assert [Norm(channels).num_groups for channels in (4, 8, 32, 96, 128, 256)] == [1, 2, 8, 8, 32, 32]


def test_the_published_setting_has_35_million_parameters() -> None:
    with torch.device("meta"):
        made = UNet((3, 32, 32), 128, (1, 2, 2, 2), 2, attention=(16,), head_width=64, dropout=0.1)
    assert 33e6 < sum(parameter.numel() for parameter in made.parameters()) < 38e6
    attended = [layer for layer in made.modules() if isinstance(layer, PixelAttention)]
    assert len(attended) == 2 + 1 + 3 and {layer.attention.heads for layer in attended} == {4}


def test_attention_is_where_it_was_asked_for() -> None:
    def count(**options: object) -> list[int]:
        made = UNet((1, 28, 28), 8, (1, 2, 2), **options)
        parts = [*made.down, made.middle, *made.up]
        return [sum(isinstance(layer, PixelAttention) for layer in part.modules()) for part in parts]

    assert count() == [0, 0, 1, 1, 2, 0, 0]
    assert count(attention=(14,)) == [0, 1, 0, 1, 0, 2, 0]
    assert count(attention=()) == [0, 0, 0, 1, 0, 0, 0]


def test_a_stem_works_on_squares_of_pixels() -> None:
    made = net((1, 8, 8), stem=2)
    seen: list[tuple[int, ...]] = []
    made.first.register_forward_hook(lambda _, inputs, out: seen.append(tuple(inputs[0].shape)))
    x, t = points(2, (1, 8, 8))
    assert made(x, t).shape == x.shape and seen == [(2, 4, 4, 4)]
    # One output pixel of each square is one channel of the last convolution.
    nn.init.zeros_(made.last.weight)
    made.last.bias.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(made(x, t)[0, 0, :2, :2], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_a_residual_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(8, 16, 4)
    h, condition = torch.randn(2, 8, 5, 5), torch.randn(2, 4)
    torch.testing.assert_close(block(h, condition), block.past(h))  # the second convolution starts at zero
    for layer in (block.second, block.modulation):
        nn.init.normal_(layer.weight, std=0.3)
    inner = block.second_norm(block.first(nn.functional.silu(block.first_norm(h))))
    scale, shift = (condition @ block.modulation.weight.T).reshape(2, 2, 16).unbind(1)
    inner = nn.functional.silu(inner * (1 + scale[..., None, None]) + shift[..., None, None])
    torch.testing.assert_close(block(h, condition), block.past(h) + block.second(inner))


def test_null_label_none_and_minus_one_are_the_same() -> None:
    made, (x, t) = net(classes=4), points()
    assert torch.equal(made(x, t), made(x, t, torch.full((3,), -1)))
    assert not torch.allclose(made(x, t), made(x, t, torch.tensor([0, 1, 2])))
    mixed = made(x, t, torch.tensor([-1, 1, -1]))
    torch.testing.assert_close(mixed[::2], made(x, t)[::2])


def test_embeddings_condition_their_rows() -> None:
    made, (x, t) = net(embedding=5), points()
    cond = fv.Embedding(torch.randn(3, 5), torch.tensor([True, False, True]))
    torch.testing.assert_close(made(x, t, cond)[1], made(x, t)[1])
    assert not torch.allclose(made(x, t, cond)[0], made(x, t)[0])


def test_tokens_have_no_order_and_absent_ones_no_part() -> None:
    made, (x, t) = net(tokens=5), points()
    value, mask = torch.randn(3, 4, 5), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    out = made(x, t, fv.Tokens(value, mask))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(made(x, t, fv.Tokens(value[:, order], mask[:, order])), out)
    spoilt = value.masked_fill(~mask[:, :, None], torch.nan)
    torch.testing.assert_close(made(x, t, fv.Tokens(spoilt, mask)), out)
    torch.testing.assert_close(out[2], made(x, t)[2])
    torch.testing.assert_close(out[1:2], made(x[1:2], t[1:2], fv.Tokens.of(value[1:2, :2])))
    assert not torch.allclose(out[:2], made(x, t)[:2], atol=1e-2)


def test_time_is_resolved_finely_and_a_scalar_serves_all_rows() -> None:
    made, (x, _) = net(), points()
    torch.testing.assert_close(made(x, 0.3), made(x, torch.full((3,), 0.3)))
    assert (made(x, 0.30) - made(x, 0.31)).norm() > 1e-3


def test_no_second_time_means_no_gap() -> None:
    made, (x, t) = net(gap=True), points()
    assert made.gap and torch.equal(made(x, t), made(x, t, r=t))
    assert not torch.allclose(made(x, t), made(x, t, r=t + 0.1))


def test_rows_do_not_depend_on_one_another() -> None:
    made, (x, t) = net(), points()
    torch.testing.assert_close(made(x, t)[1:2], made(x[1:2], t[1:2]))


def test_the_layout_in_memory_changes_nothing() -> None:
    made, (x, t) = net(), points()
    out = made(x, t)
    torch.testing.assert_close(made(x.to(memory_format=torch.channels_last), t), out)
    torch.testing.assert_close(made.to(memory_format=torch.channels_last)(x, t), out)
    assert out.is_contiguous()


def test_dropout_acts_in_training_alone() -> None:
    made, (x, t) = net(dropout=0.5), points()
    assert torch.equal(made(x, t), made(x, t))
    made.train()
    assert not torch.allclose(made(x, t), made(x, t))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [{}, {"tokens": 3}, {"stem": 2}])
def test_forward_mode_equals_finite_differences(options: dict[str, int], layout: torch.memory_format) -> None:
    made = net(gap=True, **options).double().to(memory_format=layout)
    x, t = (value.double() for value in points())
    tangents = (torch.randn_like(x), torch.ones_like(t))
    cond = fv.Tokens.of(torch.randn(3, 2, 3, dtype=torch.float64)) if options.get("tokens") else None
    _, moved = torch.func.jvp(lambda x, t: made(x, t, cond, t + 0.2), (x, t), tangents)
    step = 1e-6
    ahead = made(x + step * tangents[0], t + step, cond, t + step + 0.2)
    behind = made(x - step * tangents[0], t - step, cond, t - step + 0.2)
    torch.testing.assert_close(moved, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "labels", "tokens"])
def test_a_mean_flow_step_gives_every_weight_a_gradient(kind: str) -> None:
    options = {"none": {}, "labels": {"classes": 3}, "tokens": {"tokens": 3}}[kind]
    conds = {"none": None, "labels": torch.tensor([0, 1, 2, -1]), "tokens": fv.Tokens.of(torch.randn(4, 2, 3))}
    made, (x, _) = net(gap=True, **options), points(4)
    loss = fv.MeanFlow()(made, fv.Batch(x, conds[kind]), generator=torch.Generator().manual_seed(0))
    loss.loss.backward()
    assert torch.isfinite(loss.loss)
    assert all(parameter.grad is not None for name, parameter in made.named_parameters() if "null" not in name)


def test_autocast_agrees_with_float32() -> None:
    made, (x, t) = net(tokens=3), points()
    cond = fv.Tokens.of(torch.randn(3, 2, 3))
    out = made(x, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        short = made(x, t, cond)
    assert float((short - out).norm() / out.norm()) < 0.05
    short.square().mean().backward()


# The checks of shapes at run time, which the tests have on, are not for tracing: it runs in a process without them.
COMPILED = """
import sys, torch, fluvial as fv
from fluvial.nn.unet import UNet
torch.manual_seed(0)
backend = sys.argv[1]
levels = {"aot_eager": (1, 1), "inductor": (1,)}[backend]  # a second level doubles the time that the latter takes
net = UNet((1, 5, 5), width=8, multipliers=levels, tokens=3, gap=True).eval()
for parameter in net.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
x, t, cond = torch.randn(3, 1, 5, 5), torch.rand(3), fv.Tokens.of(torch.randn(3, 2, 3))
with torch.set_grad_enabled(backend == "aot_eager"):
    expected = net(x, t, cond, t + 0.1)
    compiled = torch.compile(net, fullgraph=True, backend=backend)(x, t, cond, t + 0.1)
assert expected.std() > 0.05
torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)
if backend == "aot_eager":
    expected.square().mean().backward()
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    compiled.square().mean().backward()
    torch.testing.assert_close([parameter.grad for parameter in net.parameters()], gradients, rtol=1e-3, atol=1e-5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_as_one_graph_equals_eager(backend: str) -> None:
    done = subprocess.run([sys.executable, "-c", COMPILED, backend], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UNet((28, 28)), r"shape must be \(channels, height, width\), all positive, got \(28, 28\)"),
        (lambda: UNet((1, 0, 4)), "shape must be"),
        (lambda: UNet(SHAPE, width=12), "width must be a positive multiple of 8, got 12"),
        (lambda: UNet(SHAPE, multipliers=()), "multipliers must be positive"),
        (lambda: UNet(SHAPE, multipliers=(1, 0)), r"multipliers must be positive, one for each level, got \(1, 0\)"),
        (lambda: UNet(SHAPE, depth=0), "depth must be at least 1, got 0"),
        (lambda: UNet(SHAPE, head_width=0), "head_width must be at least 1"),
        (lambda: UNet(SHAPE, dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: UNet(SHAPE, stem=4), "stem must divide the image's sides, 6 and 6, got 4"),
        (lambda: UNet((1, 4, 8), multipliers=(1, 1, 1, 1)), r"4 levels need sides of at least 5 pixels .* \(1, 4, 8\)"),
        (lambda: UNet((1, 4, 4), stem=2, multipliers=(1, 1, 1)), "3 levels need sides of at least 6 pixels"),
        (lambda: UNet((1, 28, 28), attention=(8,)), "attention must name sides of levels, 28, 14, 7, got 8"),
        (lambda: UNet(SHAPE, classes=0), "classes must be at least 1"),
        (lambda: UNet(SHAPE, classes=2, tokens=3), "one kind of condition"),
        (
            lambda: net()(torch.zeros(2, 6, 6, 2), torch.zeros(2)),
            r"x must have shape \(B, 2, 6, 6\), got \(2, 6, 6, 2\)",
        ),
        (lambda: net()(torch.zeros(2, *SHAPE), 0.5, torch.zeros(2).long()), "takes no labels"),
        (lambda: net(classes=3)(torch.zeros(1, *SHAPE), 0.5, torch.tensor([3])), "labels must be below 3, got 3"),
        (
            lambda: net(tokens=3)(torch.zeros(1, *SHAPE), 0.5, fv.Tokens.of(torch.zeros(1, 2, 4))),
            "tokens must have length 3, got 4",
        ),
        (lambda: net()(torch.zeros(1, *SHAPE), 0.5, r=torch.ones(1)), "build it with gap=True"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
