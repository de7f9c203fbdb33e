import numpy as np
import torch
from sklearn.datasets import load_digits as sklearn_digits

import fluvial as fv


def test_digits_are_scikit_learns_with_a_stratified_split() -> None:
    digits = fv.load_dataset("digits", seed=3)
    assert (digits.shape, digits.levels, digits.kind) == ((1, 8, 8), 17, "image")
    assert digits.class_names == tuple("0123456789")
    original = sklearn_digits()
    assert np.array_equal(((digits.x[:, 0] + 1) * 8).numpy(), original.images)
    assert np.array_equal(digits.labels.numpy(), original.target)
    assert (len(digits.train), len(digits.held_out)) == (1437, 360)
    held = torch.bincount(digits.held_out.labels, minlength=10)
    share = torch.bincount(digits.labels, minlength=10) * 360 / 1797
    assert ((held - share).abs() < 1).all()


def test_the_seed_alone_decides_the_split() -> None:
    first, again, other = (fv.load_dataset("digits", seed=s) for s in (0, 0, 1))
    assert first.train.content_hash == again.train.content_hash != other.train.content_hash
    assert first.content_hash == other.content_hash


def test_another_amount_can_be_held_out() -> None:
    assert len(fv.load_dataset("digits", held_out=0).held_out) == 0
    assert len(fv.load_dataset("digits", held_out=0.5).held_out) == round(0.5 * 1797)
