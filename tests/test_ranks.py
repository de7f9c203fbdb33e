"""What several processes are dealt is put together again, without processes."""

import signal
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fluvial.densities import Trace, draw_with_log_prob
from fluvial.launchers import launched_processes
from fluvial.ranks import Ranks, terminable_meeting
from fluvial.solvers.sampling import Solver, draw_samples

DEALT = [(1, 1, 2), (7, 512, 3), (40, 8, 2), (33, 3, 4), (37, 16, 2)]
"""Samples, batch size, processes: fewer samples than processes, one round, several, a last one that is ragged."""


@given(total=st.integers(0, 40), size=st.integers(1, 9), count=st.integers(1, 5))
def test_batches_are_dealt_in_rounds(total, size, count):
    dealt = [list(Ranks(rank, count).batches(total, size)) for rank in range(count)]
    rounds = list(zip(*dealt, strict=True))
    assert [row for round in rounds for mine in round for row in mine] == list(range(total))
    assert all(len(mine) == size for round in rounds[:-1] for mine in round)


@dataclass(frozen=True)
class Alone(Ranks):
    """One of several processes that is handed back what it hands in."""

    def collect(self, x: Tensor, size: int) -> Tensor:
        assert len(x) <= size
        return x

    def largest(self, x: Tensor) -> Tensor:
        return x


def put_together(parts: list[Any], n: int, size: int) -> Tensor:
    """Rows of all processes in order; those of one process follow one another."""
    rows = [list(Ranks(rank, len(parts)).batches(n, size)) for rank in range(len(parts))]
    order = [row for own in rows for mine in own for row in mine]
    return torch.cat(parts)[torch.tensor(order).argsort()]


WEIGHT = torch.randn(33, 33, generator=torch.Generator().manual_seed(0)) / 6


def field(x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
    """A product with a matrix, of which a row's last bits depend on how many rows there are."""
    moved = torch.tanh(x @ WEIGHT.to(x.dtype))
    return moved if cond is None else moved * cond[:, None]


def batch_rows(n: int, batch: int, count: int, adaptive: bool) -> int:
    """Samples in a batch: as asked for, or as few as give every process some, in eights."""
    return batch if adaptive else -(-min(batch, -(-n // count)) // 8) * 8


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("n", "batch", "count"), DEALT)
def test_samples_of_several_processes_are_those_of_one(n, batch, count, adaptive):
    """To the last bit: the noise of sample i is a function of the seed and i, and the rows of a product are apart."""
    solver = Solver("dopri5", None, 1e-2, 1e-2) if adaptive else Solver("euler", 2)
    cond = torch.arange(n)

    def draw(ranks: Ranks) -> tuple[Tensor, int]:
        return draw_samples(field, n, (33,), solver=solver, cond=cond, batch_size=batch, ranks=ranks)

    whole, evaluations = draw(Ranks())
    found = [draw(Alone(rank, count)) for rank in range(count)]
    parts = put_together([x for x, _ in found], n, batch_rows(n, batch, count, adaptive))
    assert torch.equal(parts, whole) and max(spent for _, spent in found) == evaluations


@pytest.mark.parametrize(("n", "batch", "count"), DEALT)
def test_log_densities_of_several_processes_are_those_of_one(n, batch, count):
    """Also where the divergence is taken in random directions, which follow one another in one stream."""
    trace = Trace("hutchinson", 2)

    def draw(ranks: Ranks) -> Any:
        solver = Solver("euler", 2)
        return draw_with_log_prob(field, n, (33,), trace=trace, solver=solver, batch_size=batch, ranks=ranks)

    whole, found = draw(Ranks()), [draw(Alone(rank, count)) for rank in range(count)]
    size = batch_rows(n, batch, count, False)
    assert torch.equal(put_together([one.x for one in found], n, size), whole.x)
    for name in ("log_prob", "bits_per_dim", "standard_error"):
        parts = put_together([getattr(one.density, name) for one in found], n, size)
        assert torch.equal(parts, getattr(whole.density, name)), name


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_what_a_launcher_cannot_mean_is_refused(given, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", given)
    with pytest.raises(ValueError, match="WORLD_SIZE must be the number of processes, at least 1, got"):
        launched_processes()


def test_a_process_that_waits_for_the_others_can_be_ended(monkeypatch):
    """A handler of Python's would not be called before they have come."""
    monkeypatch.setenv("WORLD_SIZE", "2")

    def handler(signum: int, frame: Any) -> None:
        return None

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with terminable_meeting():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
