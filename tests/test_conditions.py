"""Conditions: dropping, nulls, rows, bad shapes."""

import pytest
import torch

from fluvial.conditions import Embedding, Tokens, drop_conditions, is_present, keep_where, labels_of, null_like


def test_share_of_dropped_labels() -> None:
    labels = torch.arange(100_000) % 10
    dropped = drop_conditions(labels, 0.2, generator=torch.Generator().manual_seed(0))
    # Four standard deviations of a binomial share.
    assert abs((dropped == -1).double().mean().item() - 0.2) < 4 * (0.2 * 0.8 / 100_000) ** 0.5
    kept = dropped != -1
    assert torch.equal(dropped[kept], labels[kept])
    for label in range(10):
        assert abs((dropped[labels == label] == -1).double().mean().item() - 0.2) < 4 * (0.16 / 10_000) ** 0.5


def test_dropping_is_deterministic_and_changes_nothing_in_place() -> None:
    labels = torch.arange(50)
    one, two = (drop_conditions(labels, 0.5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(labels, torch.arange(50))
    assert torch.equal(drop_conditions(labels, 0.0, generator=torch.Generator()), labels)


def test_dropping_draws_the_same_amount_whatever_the_share() -> None:
    after = []
    for share in (0.0, 0.9):
        generator = torch.Generator().manual_seed(0)
        drop_conditions(torch.arange(5), share, generator=generator)
        after.append(torch.rand((), generator=generator))
    assert after[0] == after[1]


def kinds(rows: int) -> dict[str, torch.Tensor | Embedding | Tokens]:
    tokens = Tokens(torch.randn(rows, 3, 2), torch.arange(3 * rows).reshape(rows, 3) % 4 > 0)
    return {"labels": torch.arange(rows), "embedding": Embedding.of(torch.randn(rows, 2)), "tokens": tokens}


@pytest.mark.parametrize("kind", ["labels", "embedding", "tokens"])
def test_the_same_rows_are_dropped_of_every_kind(kind: str) -> None:
    cond = kinds(200)[kind]
    assert is_present(cond).all()
    dropped = drop_conditions(cond, 0.3, generator=torch.Generator().manual_seed(5))
    expected = drop_conditions(torch.arange(200), 0.3, generator=torch.Generator().manual_seed(5)) >= 0
    assert torch.equal(is_present(dropped), expected)
    assert is_present(cond).all()


@pytest.mark.parametrize("kind", ["labels", "embedding", "tokens"])
def test_rows_nulls_and_devices(kind: str) -> None:
    cond = kinds(6)[kind]
    rows = torch.tensor([4, 4, 0])
    part = cond[rows].to("cpu")
    assert len(part) == 3 and type(part) is type(cond)
    assert torch.equal(is_present(part), is_present(cond)[rows])
    assert not is_present(null_like(cond)).any() and len(null_like(cond)) == 6
    kept = torch.arange(6) % 2 == 0
    assert torch.equal(is_present(keep_where(cond, kept)), kept)


def test_only_whole_numbers_are_labels() -> None:
    assert labels_of(torch.tensor([1.0])) is None
    assert labels_of(torch.zeros(2, 3, dtype=torch.int64)) is None
    assert labels_of(None) is None


def test_bad_shapes() -> None:
    with pytest.raises(
        ValueError, match=r"value of shape \(B, e\) and present of shape \(B,\), got \(2, 3\) and \(3,\)"
    ):
        Embedding(torch.zeros(2, 3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask of shape \(B, m\), got \(2, 3\) and \(2, 3\)"):
        Tokens(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
