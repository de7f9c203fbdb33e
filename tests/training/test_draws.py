import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fluvial.randomness import RowGenerator
from fluvial.ranks import Ranks
from fluvial.training import draws
from fluvial.training.draws import DataOrder, dropout_stream, step_generator, weights_stream


@given(count=st.integers(1, 40), batch_size=st.integers(1, 100), seed=st.integers(0, 9), epochs=st.integers(1, 5))
def test_every_epoch_visits_every_datum_once(count: int, batch_size: int, seed: int, epochs: int) -> None:
    order = DataOrder(count, batch_size, seed)
    batches = [order.batch(step) for step in range(-(-epochs * count // batch_size))]
    assert {len(batch) for batch in batches} == {batch_size}
    visited = torch.cat(batches)[: epochs * count].reshape(epochs, count)
    assert torch.equal(visited.sort(1).values, torch.arange(count).expand(epochs, count))


@given(count=st.integers(1, 40), batch_size=st.integers(1, 100), step=st.integers(0, 10**6))
def test_batch_depends_on_the_step_alone(count: int, batch_size: int, step: int) -> None:
    fresh = DataOrder(count, batch_size, 3).batch(step)
    used = DataOrder(count, batch_size, 3)
    used.batch(0), used.batch(max(step - 1, 0))
    assert torch.equal(used.batch(step), fresh)


def test_only_permutations_that_a_batch_reaches_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is made once and forgotten, however many epochs a batch spans."""
    made: list[int] = []
    real = draws.generator

    def counting(seed: int, epoch: int, *rest: int) -> torch.Generator:
        made.append(epoch)
        return real(seed, epoch, *rest)

    monkeypatch.setattr(draws, "generator", counting)
    order = DataOrder(5, 12, 0)
    assert [len(order.batch(step)) for step in range(3)] == [12, 12, 12]
    assert made == [0, 1, 2, 3, 4, 5, 6, 7]
    assert sum(value.numel() for value in vars(order)["_last"] if isinstance(value, torch.Tensor)) == 5


def test_epochs_and_seeds_differ() -> None:
    order = DataOrder(100, 100, 0)
    assert not torch.equal(order.batch(0), order.batch(1))
    assert not torch.equal(order.batch(0), DataOrder(100, 100, 1).batch(0))


def test_streams_do_not_overlap() -> None:
    streams = [step_generator(0, 5), step_generator(0, 6), step_generator(1, 5)]
    streams += [RowGenerator(0, 5, 2000, Ranks(1, 2)), RowGenerator(0, 5, 2, Ranks(1, 2)).apart]
    values = [torch.rand((), generator=g).item() for g in streams]
    with weights_stream(0):
        values.append(torch.rand(()).item())
    for step in (5, 6):
        with dropout_stream(0, step, 0, torch.device("cpu")):
            values.append(torch.rand(()).item())
    assert len(set(values)) == len(values)


def test_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with weights_stream(0):
        inside = torch.rand(3)
    with dropout_stream(0, 0, 0, torch.device("cpu")):
        torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(2)
    with weights_stream(0):
        assert torch.equal(torch.rand(3), inside)
