"""Two processes with half of the rows each make the gradients of one process with all of them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("data_parallel_worker.py")
CASES = (
    "CFM",
    "CFM with labels",
    "CFM with embeddings",
    "OT-CFM",
    "EFM",
    "EFM with labels",
    "MeanFlow",
    "MeanFlow, power 1",
    "MeanFlow, guided",
    "MeanFlow, published form",
    "MeanFlow, published form, power 1",
)
LIMITS = {"float32": 1e-6, "float64": 1e-12}
SECONDS = 300


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """What each of two processes found; they meet through a file, and talk over the loopback interface."""
    folder = tmp_path_factory.mktemp("ranks")
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, WORKER, str(rank), folder / "store", folder / f"{rank}.npz"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=SECONDS)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


def _distance(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each gradient from the expected one, relative to that one's norm."""
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process(ranks, case: str, dtype: str) -> None:
    one = ranks[0][f"{case}/{dtype}/one"]
    assert one.shape[0] == 2 and (np.abs(one) > 0).mean() > 0.9  # nearly every weight takes part
    for rank in ranks:
        assert (_distance(rank[f"{case}/{dtype}/parallel"], one) < LIMITS[dtype]).all()


@pytest.mark.parametrize("case", CASES)
def test_the_inner_module_called_alone_synchronises_nothing(ranks, case: str) -> None:
    """What the tests above would find if a training step went around the wrapper."""
    one, *half = (ranks[i][f"{case}/float64/{how}"] for i, how in ((0, "one"), (0, "bypassed"), (1, "bypassed")))
    assert all((_distance(found, one) > 0.05).all() for found in half)
    # The first update, from equal weights: the halves' mean is what the ranks should have exchanged.
    assert _distance((half[0] + half[1])[:1] / 2, one[:1]).max() < LIMITS["float64"]


def test_every_case_is_compared(ranks) -> None:
    assert {key.split("/")[0] for key in ranks[0]} == set(CASES)
