"""Mean Flows through the trainer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fluvial as fv
from fluvial.training import TrainConfig, Trainer, load_run


def test_a_run_knows_average_velocities_and_logs_raw_errors(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = tiny(objective="meanflow", mean_share=0.4, mean_power=1.0)
    Trainer(config, tmp_path / "run").fit()
    run = load_run(tmp_path / "run")
    assert run.net.gap and run.net_spec.gap
    end = fv.solve(run.net, torch.randn(5, 3), steps=1, method="meanflow")
    assert end.evaluations == 1 and bool(end.x.isfinite().all())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["share"] == pytest.approx(3 / 7) for row in rows)  # 40 % of 7 rows, rounded
    assert all(row["error"] > 0 and row["error_between"] > 0 for row in rows)
    assert rows[0]["error"] != rows[0]["loss"]


def test_it_resumes_bit_for_bit(
    tiny: Callable[..., TrainConfig], tmp_path: Path, same_tensors: Callable[[Path, Path], bool]
) -> None:
    config = tiny(objective="meanflow")
    whole = Trainer(config, tmp_path / "whole").fit()
    Trainer(config, tmp_path / "parts").fit()
    checkpoints = tmp_path / "parts" / "checkpoints"
    for folder in sorted(checkpoints.iterdir())[1:]:  # as if it had been stopped after the first checkpoint
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    resumed = Trainer(config, tmp_path / "parts").fit(resume=True)
    assert same_tensors(whole.checkpoint, resumed.checkpoint)
    metrics = [_without_rate(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert metrics[0] == metrics[1]


def _without_rate(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "examples_per_second"} for row in rows]


def test_bad_settings(tiny: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ValueError, match=r"mean_share must be in \[0, 1\], got 2.0"):
        tiny(mean_share=2.0).check_values()
    with pytest.raises(ValueError, match=r"mean_power must be finite and not negative, got -1\.0"):
        tiny(mean_power=-1.0).check_values()
