"""Models of diffusers as fields: values as of the model called by hand, both clocks, labels, training, bad input."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

import fluvial as fv
from fluvial.fields.base import knows_averages
from fluvial.nn.diffusers import wrap_diffusers

diffusers = pytest.importorskip("diffusers")


def unet(**options: Any) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "norm_num_groups": 4}
    settings |= {"block_out_channels": (8, 16), "layers_per_block": 1, "attention_head_dim": 4}
    settings |= {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return diffusers.UNet2DModel(**settings | options).eval()


def dit(**options: Any) -> Any:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 2, "num_layers": 2}
    settings |= {"sample_size": 8, "num_embeds_ada_norm": 5, "norm_num_groups": 4}
    return diffusers.DiTTransformer2DModel(**settings | options).eval()


def points(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, channels, 8, 8), torch.tensor([0.0, 0.25, 0.875])


@pytest.mark.parametrize("clock", ["fluvial", "reversed"])
@pytest.mark.parametrize("scale", [1000.0, 500.0])
def test_unet_equals_the_model_called_by_hand(clock: str, scale: float) -> None:
    model, (x, t) = unet(), points(1)
    field = wrap_diffusers(model, time_scale=scale, clock=clock)
    assert field.shape == (1, 8, 8) and not knows_averages(field)
    by_hand = model(x, scale * t).sample if clock == "fluvial" else -model(x, scale * (1 - t)).sample
    assert torch.equal(field(x, t), by_hand) and by_hand.std() > 0.01
    assert (field(x, 0.3) - field(x, 0.6)).abs().max() > 1e-4


def test_clocks_are_those_of_the_flow_matching_scheduler() -> None:
    """In diffusers the noisy point is (1 - sigma) data + sigma noise at timestep 1000 sigma, and a model tells noise -
    data; for a single datum that has a closed form, which the field has to lead back to the datum."""

    class OneDatum(type(unet())):  # type: ignore[misc]
        def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **_: Any) -> Any:
            sigma = (timestep / 1000)[:, None, None, None]
            noise = (sample - (1 - sigma) * 0.5) / sigma
            return diffusers.models.unets.unet_2d.UNet2DOutput(sample=noise - 0.5)

    model = OneDatum(**{k: v for k, v in unet().config.items() if not k.startswith("_")})
    end = fv.solve(wrap_diffusers(model, clock="reversed"), points(1)[0], method="euler", steps=8).x
    torch.testing.assert_close(end, torch.full_like(end, 0.5))
    schedule = diffusers.FlowMatchEulerDiscreteScheduler()
    x, noise = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    schedule.set_timesteps(4)
    timestep = schedule.timesteps[[1, 2]]
    ours = fv.CondOT().sample(noise, x, 1 - timestep / 1000)
    torch.testing.assert_close(schedule.scale_noise(x, timestep, noise), ours.xt)


@pytest.mark.parametrize("learned_sigma", [False, True])
def test_dit_equals_the_model_called_by_hand(learned_sigma: bool) -> None:
    model, (x, t) = dit(out_channels=4 if learned_sigma else None), points(2)
    field, labels = wrap_diffusers(model), torch.tensor([4, -1, 0])
    by_hand = model(x, 1000 * t, class_labels=torch.tensor([4, 5, 0])).sample[:, :2]
    assert torch.equal(field(x, t, labels), by_hand) and by_hand.shape == x.shape
    assert torch.equal(field(x, t), model(x, 1000 * t, class_labels=torch.full((3,), 5)).sample[:, :2])
    assert (field(x, t) - by_hand)[[0, 2]].abs().amax((1, 2, 3)).min() > 1e-4
    torch.testing.assert_close(fv.Guided(field, 2.0)(x, t, labels), 2 * field(x, t, labels) - field(x, t))


def test_dit_drops_no_labels_of_its_own_in_training() -> None:
    model, x = dit(), torch.randn(1, 2, 8, 8).expand(200, -1, -1, -1)
    labels = torch.zeros(200).long()
    out = wrap_diffusers(model).train()(x, 0.5, labels)
    torch.testing.assert_close(out, out[:1].expand_as(out), rtol=1e-4, atol=1e-5)


def test_labels_of_a_unet() -> None:
    model, (x, t) = unet(num_class_embeds=4), points(1)
    labels = torch.tensor([2, 0, 3])
    assert torch.equal(wrap_diffusers(model)(x, t, labels), model(x, 1000 * t, class_labels=labels).sample)
    with_null = wrap_diffusers(model, null_label=3)
    assert torch.equal(with_null(x, t), model(x, 1000 * t, class_labels=torch.full((3,), 3)).sample)
    assert torch.equal(with_null(x, t, torch.tensor([2, -1, -1])), with_null(x, t, torch.tensor([2, 3, 3])))


@pytest.mark.parametrize("make", [unet, dit])
def test_training_lowers_the_loss(make: Callable[[], Any], seeded: Callable[[int], torch.Generator]) -> None:
    field = wrap_diffusers(make()).train()
    data = torch.linspace(-1, 1, 8).expand(16, field.shape[0], 8, 8)
    optimizer, losses = torch.optim.Adam(field.parameters(), 3e-3), []
    for _ in range(30):
        loss = fv.CFM()(field, fv.Batch(data), generator=seeded(0)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_importing_fluvial_imports_no_diffusers() -> None:
    code = "import sys, fluvial.nn.diffusers; sys.exit(any(m.split('.')[0] == 'diffusers' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_other_objects_are_refused() -> None:
    for other in (fv.nn.MLP((2,), width=8), diffusers.FlowMatchEulerDiscreteScheduler(), object()):
        with pytest.raises(TypeError, match="model must be a UNet2DModel or DiTTransformer2DModel of diffusers, got"):
            wrap_diffusers(other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wrap_diffusers(unet(), clock="back"), "clock must be 'fluvial' or 'reversed', got 'back'"),
        (lambda: wrap_diffusers(unet(), time_scale=0.0), "time_scale must be positive and finite, got 0"),
        (lambda: wrap_diffusers(unet(sample_size=None)), "must have a sample_size in its configuration, got None"),
        (lambda: wrap_diffusers(unet(out_channels=3)), "must have 1 output channels or twice as many, got 3"),
        (lambda: wrap_diffusers(unet(out_channels=2)), "must have 1 output channels, got 2"),
        (lambda: wrap_diffusers(unet(time_embedding_type="fourier")), "must be 'positional', got 'fourier'"),
        (lambda: wrap_diffusers(unet(class_embed_type="timestep")), "class_embed_type must be None, got 'timestep'"),
        (lambda: wrap_diffusers(unet(), null_label=0), "null_label must be one of the model's 0 classes, got 0"),
        (lambda: wrap_diffusers(dit(), null_label=6), "null_label must be one of the model's 6 classes, got 6"),
        (lambda: wrap_diffusers(unet())(points(2)[0], 0.5), r"x must have shape \(B, 1, 8, 8\), got \(3, 2, 8, 8\)"),
        (lambda: wrap_diffusers(unet())(points(1)[0], 0.5, r=0.7), "takes no second time r"),
        (lambda: wrap_diffusers(unet())(points(1)[0], 0.5, torch.zeros(3).long()), "takes no labels"),
        (lambda: wrap_diffusers(unet(num_class_embeds=4))(points(1)[0], 0.5), "has no class for none"),
        (lambda: wrap_diffusers(dit())(points(2)[0], 0.5, torch.tensor([0, 1, 5])), "labels must be below 5, got 5"),
        (lambda: wrap_diffusers(dit())(points(2)[0], 0.5, torch.zeros(2).long()), "cond must have 3 rows"),
        (lambda: wrap_diffusers(dit())(points(2)[0], 0.5, torch.zeros(3)), r"cond must be whole labels \(B,\)"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
