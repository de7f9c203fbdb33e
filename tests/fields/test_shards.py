"""Data split over the ranks of a process group: one process's results, and no hang when a rank dies."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SAME = """
import os, sys, torch, torch.distributed as dist, fluvial as fv
store, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
g = torch.Generator().manual_seed(0)
for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-11)):
    data = 0.5 * torch.randn(2501, 300, generator=g, dtype=dtype)
    x = torch.randn(7, 300, generator=g, dtype=dtype)
    labels, prior = torch.arange(2501) // 1300, torch.randn(2501, generator=g)
    own = slice(rank * 2501 // world, (rank + 1) * 2501 // world)
    whole = fv.ExactField(data, labels=labels, log_prior=prior)
    part = fv.ExactField(data[own].clone(), labels=labels[own], log_prior=prior[own], group=dist.group.WORLD)
    rows = torch.randn(7, 2501, generator=g)
    for t in (0.0, 0.2, 0.5, 0.95):
        for cond, mine in ((None, None), (torch.tensor([0, 1, -1, 0, 1, -1, 0]),) * 2, (rows, rows[:, own])):
            def same(a, b, scale=None):
                scale = a.double().norm() if scale is None else scale
                assert (a.double() - b.double()).norm() <= tolerance * scale, (dtype, t, a, b)
            same(whole(x, t, cond), part(x, t, mine))
            same(whole.score(x, t, cond), part.score(x, t, mine))
            same(whole.divergence(x, t, cond), part.divergence(x, t, mine))
            a, b = whole.posterior(x, t, cond), part.posterior(x, t, mine)
            same(a.mean, b.mean, 4 * x.norm())
            for name in ("log_density", "effective_sample_size", "entropy", "top_weight"):
                same(getattr(a, name), getattr(b, name), 50 * getattr(a, name).norm() + 1)
            assert torch.equal(a.top_index, b.top_index)
            assert (b.error >= (b.mean.double() - a.mean.double()).norm(dim=1) - a.error).all()
    end = fv.solve(whole, x, steps=20).x
    assert (end - fv.solve(part, x, steps=20).x).norm() <= 1e-5 * end.norm()
try:
    part(x + rank, 0.5)
except ValueError as error:
    assert "same on every rank" in str(error)
else:
    raise AssertionError("different rows were accepted")
try:
    part(x.requires_grad_(), 0.5)
except ValueError as error:
    assert "no derivatives" in str(error)
dist.barrier()
print("same", flush=True)
os._exit(0)  # without the process group's threads, which now and then abort a process that ends
"""

DIES = """
import os, sys, torch, torch.distributed as dist, fluvial as fv
store, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
field = fv.ExactField(torch.randn(50, 8), group=dist.group.WORLD)
x = torch.ones(2, 8)
for step in range(1000):
    if rank == world - 1 and step == 3:
        os._exit(9)
    try:
        field(x, 0.5)
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(1)
"""


def launch(script: str, world: int, folder: Path) -> list[tuple[int, str]]:
    """Run a script on ``world`` ranks; exit status and output of each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder / "store"), str(rank), str(world)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        return [(rank.wait(120), rank.stdout.read() if rank.stdout else "") for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_together_give_the_result_of_one_process(world: int, tmp_path: Path) -> None:
    for status, output in launch(SAME, world, tmp_path):
        assert status == 0 and "same" in output, output


def test_a_rank_that_dies_ends_the_others_with_an_error(tmp_path: Path) -> None:
    started = time.monotonic()
    first, last = launch(DIES, 2, tmp_path)
    assert last[0] == 9
    assert first[0] == 1 and "a rank of the group is gone or out of step" in first[1], first
    assert time.monotonic() - started < 110  # it ended by itself
