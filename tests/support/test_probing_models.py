"""The probe on whole models: an IP-Adapter's UNet through real denoising steps, and the nets of this library."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import fluvial as fv
from fluvial.nn.references import ReferenceEncoder, Referring
from fluvial.nn.unet import UNet
from fluvial.support.probing import AttentionRecord, probe

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
EXAMPLE = Path(__file__).parents[2] / "examples" / "ip_adapter_probe.py"
STEPS = 5


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_ip_adapter_probe", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pipeline(example: ModuleType) -> Any:
    return example.tiny_pipeline(tokens=8)


def _denoise(pipeline: Any, example: ModuleType, **settings: Any) -> Tensor:
    called = {"num_inference_steps": STEPS, "generator": torch.Generator().manual_seed(0)} | settings
    images: Tensor = pipeline(**example.tiny_conditions(), **called).images
    return images


def _plain(unet: Any) -> None:
    """Attention written out by diffusers, in place of the fused functions."""
    from diffusers.models.attention_processor import AttnProcessor, IPAdapterAttnProcessor

    processors = {}
    for name, old in unet.attn_processors.items():
        new: Any = AttnProcessor()
        if hasattr(old, "to_k_ip"):
            new = IPAdapterAttnProcessor(old.hidden_size, old.cross_attention_dim, old.num_tokens, list(old.scale))
            new.load_state_dict(old.state_dict())
        processors[name] = new
    unet.set_attn_processor(processors)


@pytest.mark.parametrize("written", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["2_0", "written"])
def test_an_ip_adapter_through_denoising_steps(written: bool, example: ModuleType) -> None:
    pipeline = example.tiny_pipeline(tokens=8)
    if written:
        _plain(pipeline.unet)
    expected = _denoise(pipeline, example)
    with probe(pipeline, names=("*/image", "*/text"), permutations=4) as record:
        found = _denoise(pipeline, example)
    assert torch.equal(found, expected)
    report = record.report()
    assert report.times == tuple(pipeline.scheduler.timesteps.tolist()) == (801, 601, 401, 201, 1)
    attention = [name for name, m in pipeline.unet.named_modules() if name.endswith("attn2")]
    assert {layer.split("/")[0] for layer in report.layers} == {f"unet.{name}" for name in attention}
    image, text = report.select("*/image"), report.select("*/text")
    assert len(image.layers) == len(text.layers) == len(attention) == 4
    assert len(image.records) == len(text.records) == len(attention) * STEPS
    assert {r.tokens for r in image.records} == {8} and {r.tokens for r in text.records} == {77}
    assert {r.heads for r in report.records} == {4}
    assert any("self-attention" in note for note in report.notes)


def test_recorded_image_attention_is_that_of_the_adapters_keys(pipeline: Any, example: ModuleType) -> None:
    """Queries and keys by hand, from what goes into an attention layer."""
    unet, inputs = pipeline.unet, []
    layer = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    handle = layer.register_forward_pre_hook(lambda m, args, kwargs: inputs.append((args, kwargs)), with_kwargs=True)
    with probe(pipeline, names="*down_blocks.0*/*", keep=True, times=(801,)) as record:
        _denoise(pipeline, example)
    handle.remove()
    (hidden, *_), kwargs = inputs[0]
    text, (image,) = kwargs["encoder_hidden_states"]
    made = {"text": layer.to_k(text), "image": layer.processor.to_k_ip[0](image.flatten(1, 2))}
    records: dict[str, AttentionRecord] = {r.layer.rpartition("/")[2]: r for r in record.records}
    assert set(records) == set(made)
    for role, keys in made.items():
        q, k = (x.unflatten(2, (4, -1)).transpose(1, 2).double() for x in (layer.to_q(hidden), keys))
        rows = records[role].rows
        assert rows is not None
        weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)[rows.queries[:, 0], :, rows.queries[:, 1]]
        torch.testing.assert_close(rows.attention, weights.transpose(0, 1).detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_equal_key_norms_make_the_adapter_a_kernel(example: ModuleType) -> None:
    """The ceiling on a real net: with keys put on a sphere, every head of every layer agrees at every step."""
    pipeline = example.tiny_pipeline(tokens=8)

    def on_sphere(module: Any, args: Any, out: Tensor) -> Tensor:
        return torch.nn.functional.normalize(out.unflatten(-1, (4, -1)).double(), dim=-1).float().flatten(-2)

    for processor in pipeline.unet.attn_processors.values():
        for keys in getattr(processor, "to_k_ip", ()):
            keys.register_forward_hook(on_sphere)
    with probe(pipeline, names="*/image") as record:
        _denoise(pipeline, example)
    report = record.report()
    assert report.mean("norm_spread") < 1e-6
    assert min(min(r.spearman) for r in report.records) > 0.999 and report.share() == 1
    assert abs(report.mean("null")) < 0.1


@pytest.mark.slow
def test_without_guidance_in_half_precision_and_with_the_adapter_off(example: ModuleType) -> None:
    pipeline = example.tiny_pipeline(tokens=8)
    pipeline.unet.to(torch.bfloat16)
    conditions = example.tiny_conditions()
    conditions = {name: value for name, value in conditions.items() if name != "negative_prompt_embeds"}
    conditions["ip_adapter_image_embeds"] = [x[1:].bfloat16() for x in conditions["ip_adapter_image_embeds"]]
    conditions["prompt_embeds"] = conditions["prompt_embeds"].bfloat16()
    for scale in (1.0, 0.0):
        pipeline.set_ip_adapter_scale(scale)
        with probe(pipeline) as record:
            pipeline(**conditions, num_inference_steps=2, guidance_scale=1.0)
        report = record.report()
        assert any(layer.endswith("/image") for layer in report.layers) == (scale > 0)
        assert any("is the adapter's scale 0?" in note for note in report.notes) == (scale == 0)


@pytest.mark.slow
def test_the_example_runs_without_arguments(
    example: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert example.main([f"--out={tmp_path / 'probe.png'}"]) == 0
    out = capsys.readouterr().out
    assert "RANDOM weights" in out and "paper's, of a trained model, at timestep 1: 0.89" in out
    assert "h^2 = sqrt(d_k)" in out and [f"| {time} |" in out for time in example.TIMES] == [True] * 5
    assert (tmp_path / "probe.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=x"], "--model, --adapter and --image go together, got only --model"),
        (["--model=/absent", "--adapter=a", "--image=b"], "--model: /absent does not exist"),
    ],
)
def test_the_example_refuses_halves(
    arguments: list[str], message: str, example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        example.parse(arguments)
    assert message in capsys.readouterr().err


def test_the_reference_conditioned_unet() -> None:
    torch.manual_seed(0)
    shape = (1, 8, 8)
    encoder = ReferenceEncoder(shape, 16)
    net = Referring(UNet(shape, width=8, multipliers=(1,), tokens=16), encoder).eval()
    x, t = torch.randn(3, *shape), torch.full((3,), 0.5)
    references = fv.Tokens.of(torch.randn(3, 2, *shape))
    references.mask[0, 1] = False
    with torch.no_grad():
        expected = net(x, t, references)
        with probe(net, permutations=2) as record:
            found = net(x, t, references)
            net(x, 0.75 * torch.ones(3), references)
    assert torch.equal(found, expected)
    report = record.report()
    assert report.times == (0.5, 0.75)
    kinds = {type(net.get_submodule(layer)).__name__ for layer in report.layers}
    # The learned null is one of the tokens; rows with references mask it.
    assert kinds == {"TokenAttention"} and {r.tokens for r in report.records} == {2 * encoder.grid**2 + 1}
    assert all(r.heads == net.get_submodule(r.layer).heads for r in report.records)


def test_support_conditioned_nets_and_the_times_of_a_solver() -> None:
    torch.manual_seed(0)
    net = fv.nn.SupportNet(4, width=16, blocks=2, heads=2, head=fv.support.KernelAttention())
    x0, support = torch.randn(3, 9, 4), torch.randn(3, 9, 4)  # as many points as examples
    expected = fv.solve(net, x0, steps=4, method="euler", cond=support).x
    with probe(net, names="blocks.*", permutations=2) as record:
        found = fv.solve(net, x0, steps=4, method="euler", cond=support).x
    assert torch.equal(found, expected)
    report = record.report()
    assert report.layers == ("blocks.0", "blocks.1") and report.times == (0, 0.25, 0.5, 0.75)
    assert {(r.heads, r.tokens, r.width) for r in report.records} == {(2, 9, 8)}
