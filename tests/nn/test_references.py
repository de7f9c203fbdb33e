"""Reference images as condition: their order, number and absence, what is learned, bad input."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fluvial as fv
from fluvial.nn.references import ReferenceEncoder, Referring
from fluvial.nn.unet import UNet

SHAPE = (1, 8, 8)
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]).bool()


def net(**options: object) -> Referring:
    """A small net that listens to its references."""
    torch.manual_seed(0)
    inner = UNet(SHAPE, width=8, multipliers=(1, 2), tokens=8, **options)
    for layer in inner.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.3 if isinstance(layer, nn.Linear) else 0.15)
    return Referring(inner, ReferenceEncoder(SHAPE, 8, width=4)).eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(3, *SHAPE, generator=g), torch.rand(3, generator=g), torch.randn(3, 4, *SHAPE, generator=g)


def test_the_order_of_the_references_plays_no_part() -> None:
    made, (x, t, images) = net(), inputs()
    order = torch.tensor([2, 0, 3, 1])
    out = made(x, t, fv.Tokens(images, MASK))
    torch.testing.assert_close(made(x, t, fv.Tokens(images[:, order], MASK[:, order])), out)
    assert not torch.allclose(made(x, t, fv.Tokens(images.flip(3), MASK))[:2], out[:2], atol=1e-3)


def test_absent_images_have_no_part_in_value_or_gradient() -> None:
    made, (x, t, images) = net(), inputs()
    gradients = []
    for filling in (0.0, 1e6, torch.nan):
        filled = images.masked_fill(~MASK[:, :, None, None, None], filling)
        made.zero_grad()
        out = made(x, t, fv.Tokens(filled, MASK))
        out.square().mean().backward()
        gradients.append([out.detach(), *(parameter.grad.clone() for parameter in made.encoder.parameters())])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])
    alone = made(x[1:2], t[1:2], fv.Tokens.of(images[1:2, ::2]))
    torch.testing.assert_close(gradients[0][0][1:2], alone.detach())


def test_a_row_without_references_is_unconditional() -> None:
    made, (x, t, images) = net(), inputs()
    out = made(x, t, fv.Tokens(images, MASK))
    torch.testing.assert_close(out[2], made(x, t)[2])
    torch.testing.assert_close(made(x, t, fv.conditions.null_like(fv.Tokens.of(images))), made(x, t))
    assert not torch.allclose(out[:2], made(x, t)[:2], atol=1e-3)
    assert torch.equal(made(x, t), made.net(x, t))


def test_references_are_encoded_one_by_one_with_positions() -> None:
    encoder, images = net().encoder, inputs()[2][0]
    tokens = encoder(images)
    assert tokens.shape == (4, 16, 8)
    torch.testing.assert_close(encoder(images[2:3]), tokens[2:3])
    blank = encoder(torch.zeros(1, *SHAPE))[0]
    assert torch.cdist(blank, blank).fill_diagonal_(1.0).min() > 0.1  # cells of an even image differ by position


@pytest.mark.parametrize(
    ("shape", "grid"), [((1, 28, 28), 4), ((3, 64, 48), 4), ((1, 9, 7), 4), ((1, 4, 4), 4), ((1, 1, 1), 1)]
)
def test_every_size_of_image_gives_its_grid(shape: tuple[int, ...], grid: int) -> None:
    assert ReferenceEncoder(shape, 8, grid=grid)(torch.randn(2, *shape)).shape == (2, grid**2, 8)


def test_tokens_that_were_made_before_serve_as_well() -> None:
    made, (x, t, images) = net(), inputs()
    references = fv.Tokens(images, MASK)
    tokens = made.encode(references)
    assert tokens.value.shape == (3, 4 * 16, 8) and torch.equal(tokens.mask[:, ::16], MASK)
    torch.testing.assert_close(made(x, t, tokens), made(x, t, references))


@pytest.mark.parametrize("objective", [fv.CFM(), fv.MeanFlow()])
def test_a_step_gives_the_encoder_a_gradient(objective: fv.CFM | fv.MeanFlow) -> None:
    made, (x, _, images) = net(gap=True), inputs()
    loss = objective(made, fv.Batch(x, fv.Tokens(images, MASK)), generator=torch.Generator().manual_seed(0))
    loss.loss.backward()
    assert torch.isfinite(loss.loss)
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.encoder.parameters())


def test_it_is_a_field_that_can_be_solved() -> None:
    made, (x, _, images) = net(gap=True), inputs()
    assert made.gap and made.shape == SHAPE and not net().gap
    cond = fv.Tokens(images, MASK)
    with torch.no_grad():
        end = fv.solve(made, x, steps=2, method="meanflow", cond=cond).x
        half = x + 0.5 * made(x, 0.0, cond, 0.5)
        torch.testing.assert_close(end, half + 0.5 * made(half, 0.5, cond, 1.0))


@pytest.mark.slow
def test_what_the_references_say_is_learned() -> None:
    """Each row's data is its references' mean grey: only a net that looks at them can tell."""
    torch.manual_seed(0)
    inner = UNet(SHAPE, width=8, multipliers=(1, 2), tokens=8)
    made = Referring(inner, ReferenceEncoder(SHAPE, 8, width=4))
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(150):
        grey = torch.rand(32, 1, 1, 1, 1) * 2 - 1
        x, target = torch.randn(32, *SHAPE), grey[:, 0].expand(-1, *SHAPE)
        references = fv.Tokens.of(grey.expand(-1, 2, *SHAPE) + 0.1 * torch.randn(32, 2, *SHAPE))
        loss = (made(x, torch.zeros(32), references) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1  # without the references it is 1/3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ReferenceEncoder((8, 8), 8), r"shape must be \(channels, height, width\), all positive, got \(8, 8\)"),
        (lambda: ReferenceEncoder(SHAPE, 6), "tokens must be a positive multiple of 4, got 6"),
        (lambda: ReferenceEncoder(SHAPE, 8, width=0), "width must be a positive multiple of 4, got 0"),
        (lambda: ReferenceEncoder(SHAPE, 8, grid=9), "grid must be from 1 to the image's shorter side 8, got 9"),
        (lambda: net().encoder(torch.zeros(2, 1, 8, 7)), r"images must have shape \(N, 1, 8, 8\), got \(2, 1, 8, 7\)"),
        (lambda: net()(*inputs()[:2], torch.zeros(3).long()), "cond must be Tokens of reference images or None, got"),
        (
            lambda: net()(*inputs()[:2], fv.Tokens.of(torch.zeros(3, 2, 3, 8, 8))),
            r"references must have shape \(B, m, 1, 8, 8\), got \(3, 2, 3, 8, 8\)",
        ),
        (lambda: net()(*inputs()[:2], fv.Tokens.of(torch.zeros(2, 2, *SHAPE))), "cond must have 3 rows"),
        (
            lambda: Referring(net().net, ReferenceEncoder(SHAPE, 4))(*inputs()[:2], fv.Tokens.of(inputs()[2])),
            "tokens must have length 8, got 4",
        ),
        (lambda: net()(*inputs()[:2], fv.Tokens.of(inputs()[2]), torch.ones(3)), "build it with gap=True"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
