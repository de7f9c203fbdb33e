"""Mean Flows through the trainer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fluvial as fv
from fluvial.training import TrainConfig, Trainer, load_run
from fluvial.training.build import build_objective
from fluvial.training.consistency import inconsistency
from fluvial.training.source import load_source


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
    assert all(0 <= row["inconsistency"] < 10 for row in rows)


class Gaussian(torch.nn.Module):
    """Velocity of data N(0, s^2) on the straight path: its average, or at the start of each jump."""

    def __init__(self, average: bool) -> None:
        super().__init__()
        self.average = average

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None, r: Any = None) -> torch.Tensor:
        t, r = t.double()[:, None], r.double()[:, None]
        ahead, here = (((1 - s) ** 2 + 0.09 * s**2).sqrt() for s in (r, t))
        if self.average:
            return x * (ahead / here - 1) / (r - t)
        return x * (0.09 * t - (1 - t)) / here**2


def test_only_average_velocities_are_consistent() -> None:
    data = fv.Dataset(torch.randn(100, 3))
    found = [inconsistency(Gaussian(average), fv.CondOT(), data, seed=0, step=7) for average in (True, False)]
    assert found[0] < 1e-6 and found[1] > 0.05


def test_guidance_reaches_the_target(tiny: Callable[..., TrainConfig]) -> None:
    config = tiny(objective="meanflow", labels=True, mean_omega=1.5, mean_kappa=0.25)
    objective = build_objective(config, load_source(config).train)
    assert isinstance(objective, fv.MeanFlow) and (objective.omega, objective.kappa) == (1.5, 0.25)
    with pytest.raises(ValueError, match="mean_omega needs a condition"):
        tiny(objective="meanflow", mean_omega=1.5).check_values()


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
