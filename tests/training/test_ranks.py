"""Two processes train as one process with all of the rows does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fluvial.training import Interrupted, TrainConfig, Trainer, latest_checkpoint, read_config
from fluvial.training.draws import DataOrder
from fluvial.training.guard import SkippedUpdate
from fluvial.training.logs import read_metrics

Make = Callable[..., TrainConfig]
pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("ranks_worker.py")
SECONDS = 240

ALIKE = {
    "cfm": {},
    "cfm-ragged": {"batch_size": 7},
    "cfm-labels": {"labels": True, "drop_cond": 0.3},
    "cfm-many-rows": {"batch_size": 2500, "steps": 4},
    "ot": {"coupling": "ot"},
    "ot-labels": {"coupling": "ot", "labels": True, "drop_cond": 0.3},
    "efm": {"objective": "efm"},
    "efm-labels": {"objective": "efm", "labels": True, "drop_cond": 0.3, "batch_size": 5},
    "meanflow": {"objective": "meanflow"},
    "meanflow-guided": {
        "objective": "meanflow",
        "labels": True,
        "mean_omega": 2.0,
        "mean_kappa": 0.3,
        "mean_power": 0.5,
    },
    "meanflow-ot-ragged": {"objective": "meanflow", "coupling": "ot", "batch_size": 9},
    "likelihood": {"objective": "likelihood", "likelihood_steps": 2, "likelihood_kinetic": 0.1, "steps": 6},
    "likelihood-adjoint": {"objective": "likelihood", "likelihood_steps": 2, "likelihood_adjoint": True, "steps": 6},
    "shard": {"shard": True, "sample_every": 6},
    "shard-unet": {"shard": True, "data": "digits", "net": "unet", "depth": 1, "steps": 3, "sample_every": 2},
    "shard-efm": {"shard": True, "objective": "efm", "labels": True},
}
SAME = ("loss", "grad_norm", "error", "error_between", "share", "nll", "kinetic")


def launch(jobs: list[dict[str, Any]], out: Path, processes: int = 2) -> list[dict[str, dict[str, Any]]]:
    """What each process found, by job; the processes talk over the loopback interface."""
    configs = out / "configs.json"
    configs.write_text(json.dumps(jobs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(WORKER), str(configs), str(out)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-20000:]
    return [
        {job["name"]: json.loads((out / f"{job['name']}.{rank}.json").read_text()) for job in jobs}
        for rank in range(processes)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "tiny.npz"
    random = np.random.default_rng(0)
    np.savez(file, x=random.normal(size=(30, 3)).astype(np.float32), y=np.arange(30) % 3)
    return str(file)


def config_of(data: str, changes: dict[str, Any]) -> dict[str, Any]:
    base = {"width": 16, "depth": 2, "steps": 12, "batch_size": 8, "bank_size": 6, "log_every": 1, "warmup": 2}
    return {"data": data, "checkpoint_every": 100, **base, **changes}


CHANGING = {"steps": 40, "labels": True}
OVERFLOWING = {"on_nan": "skip", "held_out": 0, "steps": 20}


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, dict[str, Any]]]]:
    """All that two processes do here, in one launch."""
    out = tmp_path_factory.mktemp("two")
    jobs: list[dict[str, Any]] = [{"name": name, "config": config_of(data, kind)} for name, kind in ALIKE.items()]
    jobs.append({"name": "late", "config": config_of(data, {"shard": True}), "late": 1.0})
    jobs.append({"name": "in-rank", "config": config_of(data, {"coupling": "ot-rank"})})
    jobs.append({"name": "overflowing", "config": config_of(overflowing(out), OVERFLOWING)})
    with pytest.raises(Interrupted):
        Trainer(TrainConfig(**config_of(data, CHANGING)), out / "changing", progress=stop_at(9)).fit()
    jobs.append({"name": "changing", "resume": True, "stop": 17})
    return out, launch(jobs, out)


def overflowing(folder: Path) -> str:
    """Data of which the fourth overflows when it is squared."""
    values = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    values[3] = 1e25
    np.save(folder / "x.npy", values)
    return str(folder / "x.npy")


def stop_at(step: int) -> Callable[[Any], None]:
    def progress(report: Any) -> None:
        if report.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    folder = latest_checkpoint(run)
    assert folder is not None
    return {key: value.double() for key, value in load_file(folder / f"{name}.safetensors").items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    square = sum(float((one[key] - other[key]).square().sum()) for key in one)
    return (square / sum(float(value.square().sum()) for value in other.values())) ** 0.5


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_train_as_one_does(name: str, data: str, trained: Any, tmp_path: Path) -> None:
    out, _ = trained
    config = TrainConfig(**config_of(data, {**ALIKE[name], "shard": False}))
    Trainer(config, tmp_path / "one").fit()
    one, two = read_metrics(tmp_path / "one"), read_metrics(out / name)
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for before, after in zip(one, two, strict=True):
        for key in [key for key in SAME if key in before]:
            assert after[key] == pytest.approx(before[key], rel=1e-6, abs=1e-7), (before["step"], key)
    for group in ("model", "ema"):
        found = distance(weights(out / name, group), weights(tmp_path / "one", group))
        print(name, group, found)
        assert found < 1e-6


def test_divided_weights_are_dtensors(trained: Any) -> None:
    _, ranks = trained
    for name in ("shard", "shard-efm"):
        found = [rank[name] for rank in ranks]
        assert all(one["divided"] == one["weights"] > 0 for one in found)
        assert sum(one["parts"] for one in found) == found[0]["total"]
        assert max(one["parts"] for one in found) < 0.6 * found[0]["total"]
    assert all(rank["cfm"]["divided"] == 0 and rank["cfm"]["parts"] == rank["cfm"]["total"] for rank in ranks)


def test_pairs_within_ranks_are_others(trained: Any) -> None:
    out, _ = trained
    across, within, free = (read_metrics(out / name)[0]["loss"] for name in ("ot", "in-rank", "cfm"))
    assert across < within < free  # more to choose from: shorter paths


def test_one_that_comes_late_is_waited_for(trained: Any) -> None:
    """Else it found the run's folder already begun by the first, and refused it."""
    _, ranks = trained
    assert [rank["late"]["step"] for rank in ranks] == [12, 12]


def test_world_sizes_change(data: str, trained: Any, tmp_path: Path) -> None:
    """1 -> 2 -> 1 processes: the same rows in each step, and the same losses."""
    out, ranks = trained
    whole = Trainer(TrainConfig(**config_of(data, CHANGING)), tmp_path / "whole").fit()
    assert [(rank["changing"]["step"], rank["changing"]["signum"]) for rank in ranks] == [(20, signal.SIGTERM)] * 2
    order = DataOrder(24, 8, 0)
    first, second = (rank["changing"]["rows"] for rank in ranks)
    for step, (even, odd) in enumerate(zip(first, second, strict=True), start=9):
        rows = order.batch(step).tolist()
        assert (even, odd) == (rows[::2], rows[1::2])
    run = out / "changing"
    assert Trainer(read_config(run), run).fit(resume=True).step == whole.step
    losses = [[row["loss"] for row in read_metrics(folder)] for folder in (tmp_path / "whole", run)]
    assert len(losses[0]) == 40 and losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert distance(weights(run, "model"), weights(tmp_path / "whole", "model")) < 1e-5


def test_all_ranks_skip_what_one_of_them_cannot_use(trained: Any, tmp_path: Path) -> None:
    """The batches that the datum is in are skipped by both, and told by the first alone."""
    out, ranks = trained
    config = config_of(overflowing(tmp_path), OVERFLOWING)
    with pytest.warns(SkippedUpdate):
        Trainer(TrainConfig(**config), tmp_path / "one").fit()
    order = DataOrder(30, config["batch_size"], 0)
    hit = [step + 1 for step in range(20) if 3 in order.batch(step)]
    assert [int(text.split()[1]) for text in ranks[0]["overflowing"]["warnings"]] == hit and len(hit) > 2
    assert ranks[1]["overflowing"]["warnings"] == []
    assert distance(weights(out / "overflowing", "model"), weights(tmp_path / "one", "model")) < 1e-6
