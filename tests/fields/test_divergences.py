"""Divergences of every net and field: the traces of full Jacobians, row by row, whatever the shape and the condition.

The Jacobian of a whole batch also shows that no row's velocity depends on another row, which the divergence relies on.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fluvial as fv
from fluvial.fields import SmoothedField
from fluvial.fields.divergences import exact_divergence, own_divergence, random_divergence
from fluvial.nn.references import ReferenceEncoder, Referring
from fluvial.randomness import generator

ROWS = 3
IMAGE = (1, 4, 4)
LABELS = torch.tensor([2, 0, -1])


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def times() -> Tensor:
    return torch.tensor([0.0, 0.4, 0.9], dtype=torch.float64)


def listening(make: Callable[[], nn.Module]) -> nn.Module:
    """A net in float64 whose every part has a say: new ones are the zero field."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make().double().eval()
        for parameter in net.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def traces(field: Any, x: Tensor, t: Tensor, cond: Any) -> Tensor:
    """Traces ``(B,)`` of each row's own Jacobian; every other block must be 0."""

    def velocity(y: Tensor) -> Tensor:
        return field(y, t) if cond is None else field(y, t, cond)

    size = x[0].numel()
    jacobian = torch.autograd.functional.jacobian(velocity, x).reshape(len(x), size, len(x), size)
    own = torch.stack([jacobian[row, :, row] for row in range(len(x))])
    assert jacobian.square().sum().sub(own.square().sum()).abs() <= 1e-24 + 1e-14 * own.square().sum()
    return own.diagonal(dim1=1, dim2=2).sum(1)


def assert_exact(field: Any, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    with torch.no_grad():
        v, found = exact_divergence(field, x, t, cond)
    expected = traces(field, x, t, cond)
    assert v.shape == x.shape and found.shape == (len(x), 1) and not found.requires_grad
    assert float(expected.abs().max()) > 1e-6
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-9, atol=1e-9)
    return found[:, 0]


def embeddings(seed: int = 3) -> fv.Embedding:
    return fv.Embedding(normal(ROWS, 5, seed=seed), torch.tensor([True, False, True]))


def unet(**options: Any) -> nn.Module:
    return fv.nn.UNet(IMAGE, width=8, multipliers=(1, 2), depth=1, **options)


def dit(**options: Any) -> nn.Module:
    return fv.nn.DiT(IMAGE, width=16, depth=1, patch=2, **options)


def referring(inner: nn.Module) -> nn.Module:
    return Referring(inner, ReferenceEncoder(IMAGE, 8, width=4))


def references() -> fv.Tokens:
    return fv.Tokens(normal(ROWS, 2, *IMAGE, seed=4), torch.tensor([[1, 1], [1, 0], [0, 0]]).bool())


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Any]] = {
    "mlp": (lambda: fv.nn.MLP((3,), width=16, depth=2), (3,), None),
    "mlp, second time": (lambda: fv.nn.MLP((3,), width=16, depth=1, gap=True), (3,), None),
    "mlp, labels": (lambda: fv.nn.MLP((3,), width=16, depth=1, classes=4), (3,), LABELS),
    "mlp, embeddings": (lambda: fv.nn.MLP((3,), width=16, depth=1, embedding=5), (3,), embeddings()),
    "mlp, preconditioned": (lambda: fv.nn.Preconditioned(fv.nn.MLP((3,), width=16, depth=1)), (3,), None),
    "mlp of images": (lambda: fv.nn.MLP((2, 2, 3), width=16, depth=1), (2, 2, 3), None),
    "unet": (lambda: unet(stem=2), IMAGE, None),
    "unet of colours": (lambda: fv.nn.UNet((3, 2, 4), width=8, multipliers=(1,), depth=1), (3, 2, 4), None),
    "unet, labels": (lambda: unet(classes=4), IMAGE, LABELS),
    "unet, embeddings": (lambda: unet(embedding=5, gap=True), IMAGE, embeddings()),
    "unet, references": (lambda: referring(unet(tokens=8)), IMAGE, references()),
    "dit": (lambda: dit(), IMAGE, None),
    "dit, labels": (lambda: dit(classes=4, gap=True), IMAGE, LABELS),
    "dit, embeddings": (lambda: dit(embedding=5), IMAGE, embeddings()),
    "dit, references": (lambda: referring(dit(tokens=8)), IMAGE, references()),
}


@pytest.mark.parametrize("name", NETS)
def test_nets(name: str) -> None:
    make, shape, cond = NETS[name]
    net, x = listening(make), normal(ROWS, *shape)
    found = assert_exact(net, x, times(), cond)
    if cond is not None:
        with torch.no_grad():
            unconditional = exact_divergence(net, x, times())[1][:, 0]
        assert (found - unconditional).abs().max() > 1e-6  # the condition has a say


@pytest.mark.parametrize("clock", ["fluvial", "reversed"])
@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_models_of_diffusers(kind: str, clock: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    small: dict[str, Any] = {"sample_size": 4, "in_channels": 1, "norm_num_groups": 4, "attention_head_dim": 4}

    def make() -> nn.Module:
        if kind == "dit":
            parts = {"num_attention_heads": 2, "num_layers": 1, "num_embeds_ada_norm": 3}
            return diffusers.DiTTransformer2DModel(**small | parts)
        blocks = {"block_out_channels": (8,), "layers_per_block": 1, "out_channels": 1, "num_class_embeds": 3}
        return diffusers.UNet2DModel(**small | blocks, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))

    field = fv.nn.wrap_diffusers(listening(make), clock=clock)
    assert_exact(field, normal(ROWS, 1, 4, 4), times(), torch.tensor([2, 1, 0]))


def learned_head() -> nn.Module:
    return fv.support.KernelAttention(dim=2, heads=2)


TASKS: dict[str, Callable[[], nn.Module]] = {
    "support net": lambda: fv.nn.SupportNet(2, width=16, blocks=2, heads=2),
    "support net with a head": lambda: fv.nn.SupportNet(2, width=16, blocks=1, heads=2, head=learned_head()),
    "kernel attention": lambda: fv.support.KernelAttention(fv.CondOT(0.1)),
    "kernel attention, learned": learned_head,
}


@pytest.mark.parametrize("name", TASKS)
def test_fields_of_a_batch_of_tasks(name: str) -> None:
    """A row is a task of several points. None sees another, so that its divergence is the sum over its points."""
    field = listening(TASKS[name])
    x, support = normal(ROWS, 4, 2), normal(ROWS, 5, 2, seed=2)
    together = assert_exact(field, x, times(), support)
    alone = torch.zeros(ROWS, dtype=torch.float64)
    for point in x.split(1, dim=1):
        alone += assert_exact(field, point, times(), support)
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def exact(rest: float = 0.2, shape: tuple[int, ...] = (3,)) -> fv.ExactField:
    return fv.ExactField(normal(10, *shape, seed=5), fv.CondOT(rest), labels=torch.arange(10) % 3)


def mixture() -> fv.GaussianMixtureField:
    root = normal(4, 3, 3, seed=6)
    return fv.GaussianMixtureField(normal(4, 3, seed=7), root @ root.mT, torch.arange(1, 5).double(), fv.Cosine())


def labelled_net() -> nn.Module:
    return listening(lambda: fv.nn.MLP((3,), width=16, depth=1, classes=4))


FIELDS: dict[str, tuple[Callable[[], Any], Any]] = {
    "exact": (exact, LABELS),
    "mixture": (mixture, None),
    "smoothed": (lambda: SmoothedField(exact(), 0.1, perturbations=4), LABELS),
    "smoothed, nearest": (lambda: SmoothedField(exact(), 0.1, perturbations=4, neighbours=10), None),
    "guided": (lambda: fv.Guided(exact(), 2.5, (0.2, 0.8)), LABELS),
    "guided net": (lambda: fv.Guided(labelled_net(), -1.5), LABELS),
    "hybrid": (lambda: fv.Hybrid(exact(), mixture(), 0.5), None),
    "hybrid of exact field and net": (lambda: fv.Hybrid(exact(), labelled_net(), 0.5), LABELS),
    "hybrid of guided fields": (lambda: fv.Hybrid(fv.Guided(exact(), 2.0), SmoothedField(exact(), 0.1), 0.3), LABELS),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_and_what_is_made_of_them(name: str) -> None:
    make, cond = FIELDS[name]
    field, x = make(), normal(ROWS, 3)
    found = assert_exact(field, x, times(), cond)
    if hasattr(field, "divergence"):
        with torch.no_grad():
            torch.testing.assert_close(own_divergence(field, x, times(), cond)[1][:, 0], found, rtol=1e-9, atol=1e-9)
    assert hasattr(field, "divergence") == ("net" not in name)


@pytest.mark.parametrize("field", [exact(shape=IMAGE), SmoothedField(exact(shape=IMAGE), 0.1, perturbations=2)])
def test_images_of_fields(field: Any) -> None:
    x = normal(ROWS, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(own_divergence(field, x, times())[1][:, 0], assert_exact(field, x, times()))


def test_all_directions_together_are_the_trace() -> None:
    """Hutchinson's estimate over the rows of a Hadamard matrix, an orthogonal set of signs, has no error."""
    net, x = listening(lambda: unet(stem=2)), normal(ROWS, *IMAGE)
    signs = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(4):
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    directions = [row.reshape(1, *IMAGE).expand_as(x) for row in signs]
    with torch.no_grad():
        found = random_divergence(directions)(net, x, times(), None)[1]
        expected = exact_divergence(net, x, times())[1][:, 0]
    torch.testing.assert_close(found.mean(1), expected, rtol=1e-9, atol=1e-9)
    assert found.std(1).min() > 1e-3
