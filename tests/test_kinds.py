"""Arguments of another kind are refused by name where a person calls, before anything is computed."""

import re

import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial import metrics, nn
from fluvial.kinds import checked

X = torch.zeros(4, 2)
T = torch.full((4,), 0.5)


@checked
def called(
    count: int = 1,
    share: float = 0.5,
    name: str = "a",
    sizes: tuple[int, ...] = (1,),
    flag: bool = False,
    x: torch.Tensor | None = None,
) -> object:
    """Gives its first argument back."""
    return count


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("count", 2.0, "count must be a whole number, got 2.0"),
        ("count", True, "count must be a whole number, got True"),
        ("count", "x" * 200, "count must be a whole number, got 'xxxx"),
        ("share", "0.5", "share must be a number, got '0.5'"),
        ("share", 1j, "share must be a number, got 1j"),
        ("name", b"a", "name must be a string, got bytes"),
        ("sizes", 3, "sizes must be a sequence"),
        ("sizes", "12", "sizes must be a sequence"),
        ("sizes", (1, "2"), "sizes must be a sequence of whole numbers"),
        ("flag", 1, "flag must be True or False, got 1"),
        ("x", [1.0], "x must be a tensor or None, got list"),
    ],
)
def test_another_kind_is_a_type_error_that_names_the_argument(argument, value, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        called(**{argument: value})


def test_values_no_computation_can_take():
    with pytest.raises(ValueError, match="count must lie between"):
        called(2**63)
    with pytest.raises(ValueError, match="x must be a dense tensor with values, got one on the meta device"):
        called(x=X.to("meta"))
    with pytest.raises(ValueError, match="got one of layout"):
        called(x=X.to_sparse())


def test_numbers_of_numpy_become_pythons():
    found = called(np.int64(3))
    assert found == 3 and type(found) is int


# Each stands for a class of errors that came from deep inside of torch, numpy or Python.
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fv.solve(None, X), TypeError, "field must be callable"),
        (lambda: fv.solve(max, X, steps=2.5), TypeError, "steps must be a whole number or None, got 2.5"),
        (lambda: fv.CondOT().time_at_bandwidth(T > 0), TypeError, "bandwidth must hold floating point numbers"),
        (lambda: fv.Guided(lambda x, t, cond: x, 1.0)(X, T[:2]), ValueError, "t must be a scalar or have shape (4,)"),
        (lambda: fv.Hybrid(max, max, 0.5)(X, T, torch.arange(3)), ValueError, "cond must have 4 rows"),
        (lambda: fv.ExactField(X, labels=torch.ones(4, dtype=torch.bool)), ValueError, "labels must hold whole"),
        (lambda: fv.ExactField(X)(X, T.to("meta")), ValueError, "t must be on the device of x"),
        (lambda: fv.ExactField(X).take(torch.tensor([4])), ValueError, "index must be from 0 to 3"),
        (lambda: fv.collapse_time(torch.zeros(3, 0)), ValueError, "data must be finite"),
        (lambda: nn.MLP((2,), 8, 1)(X.double(), T), ValueError, "x must be torch.float32 like the weights"),
        (lambda: nn.LabelEmbedding(3, 4)(torch.tensor([3]), 1), ValueError, "labels must be below 3, got 3"),
        (lambda: nn.SelfAttention(8, 2)(torch.zeros(1, 2, 7)), ValueError, "x must have shape (B, n, 8)"),
        (lambda: metrics.mmd2(X + 1, X, 1e-300), ValueError, "bandwidth must have a square"),
        (lambda: metrics.frechet_estimate(X, X, seed="a"), TypeError, "seed must be a whole number, got 'a'"),
        (lambda: fv.audits.quality(X, X, extractors=[], seed=1.5), TypeError, "seed must be a whole number"),
        (lambda: fv.support.balanced_bandwidths(1e300, 3), ValueError, "scale must be at most"),
        (lambda: fv.support.evaluate(max, "shells"), TypeError, "family must be"),
        (lambda: fv.support.tasks.Mixed([1, 2]), TypeError, "families must be"),
        (lambda: fv.LogitNormal("x"), TypeError, "mean must be a number, got 'x'"),
        (lambda: fv.MeanFlow(interval=(0.5,)), ValueError, "interval must satisfy"),
        (lambda: fv.Batch(X.to("meta")), ValueError, "x1 must be a dense tensor with values"),
        (lambda: nn.LabelEmbedding(3, -1), ValueError, "dim must be at least 1"),
        (lambda: fv.load_dataset("~nobody-of-that-name/x.npy"), ValueError, "begins with the home folder"),
        (lambda: fv.load_dataset("x" * 2000 + ".npy"), ValueError, "File name too long"),
        (lambda: fv.solve(max, X, method="x" * 5000), ValueError, "method must have at most 4096 characters, got 5000"),
        (lambda: fv.Dataset(X).split(seed="3"), TypeError, "seed must be a whole number, got '3'"),
        (lambda: fv.ExactDensity().fit(X.double().numpy()).sample(2**63), ValueError, "n_samples must be at most 2^31"),
        (lambda: fv.audit(max, X, torch.tensor(1.0)), ValueError, "held_out must have shape (M, *D), got ()"),
        (lambda: fv.metrics.GaussianStatistics.of(None), TypeError, "x must be"),
    ],
)
def test_errors_come_from_the_door(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
