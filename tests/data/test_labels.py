import numpy as np
import pytest
import torch

from fluvial.data.labels import encode_labels


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        ([10, -3, 10], [1, 0, 1], ("-3", "10")),
        (np.array([b"x", b"y", b"x"]), [0, 1, 0], ("x", "y")),
        (np.array([2.0, 5.0, 2.0]), [0, 1, 0], ("2", "5")),
        (torch.tensor([7, 7, 8]), [0, 0, 1], ("7", "8")),
        (np.array([True, False, True]), [1, 0, 1], ("False", "True")),
    ],
)
def test_any_kind_of_label_becomes_a_class(labels, codes, names) -> None:
    got = encode_labels(labels, 3)
    assert got[0].tolist() == codes and got[0].dtype == np.int64 and got[1] == names


@pytest.mark.parametrize(
    ("labels", "names", "fragment"),
    [
        ([1, 2], None, r"must have shape \(3,\), one per datum, got \(2,\)"),
        (np.zeros((3, 1), int), None, r"got \(3, 1\)"),
        ([0.5, 1, 2], None, "fractions or NaN"),
        ([float("nan"), 1, 2], None, "fractions or NaN"),
        ([None, 1, 2], None, "dtype object"),
        ([0, 1, 2], ("a", "b"), r"0\.\.1, got 0\.\.2"),
        ([0, -1, 1], ("a", "b"), r"got -1\.\.1"),
        (["a", "b", "a"], ("a", "b"), "whole numbers 0..1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, names, fragment) -> None:
    with pytest.raises(ValueError, match=fragment):
        encode_labels(labels, 3, names)


def test_given_names_keep_the_numbers() -> None:
    codes, names = encode_labels([2, 0], 2, ["a", "b", "c"])
    assert codes.tolist() == [2, 0] and names == ("a", "b", "c")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("large", [1e20, -1e20, 2.0**63, np.inf])
def test_labels_beyond_int64_are_refused_rather_than_made_one_class(large) -> None:
    with pytest.raises(ValueError, match="labels must be within the range of int64"):
        encode_labels(np.array([large, 2 * large, 0.0]), 3)
    assert encode_labels(np.array([-(2.0**62), 2.0**62]), 2)[0].tolist() == [0, 1]
