"""Maximum likelihood through the trainer."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluvial.objectives import MaximumLikelihood
from fluvial.solvers import FIXED_METHODS
from fluvial.training import TrainConfig, Trainer
from fluvial.training.build import build_net, build_objective, net_spec, read_net_spec
from fluvial.training.config import read_config
from fluvial.training.settings import LIKELIHOOD_METHODS
from fluvial.training.source import load_source

SETTINGS = [setting.name for setting in dataclasses.fields(TrainConfig) if setting.name.startswith("likelihood_")]


def test_a_run_logs_each_term(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = tiny(objective="likelihood", likelihood_steps=2, likelihood_method="heun", likelihood_kinetic=0.5)
    Trainer(config, tmp_path / "run").fit()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["evaluations"] == 4 for row in rows)
    assert all(row["loss"] == pytest.approx(row["nll"] + 0.5 * row["kinetic"], rel=1e-5) for row in rows)
    assert rows[-1]["kinetic"] > 0 and rows[-1]["jacobian"] > 0


def test_settings_reach_the_objective() -> None:
    config = TrainConfig(
        objective="likelihood",
        likelihood_steps=3,
        likelihood_method="midpoint",
        likelihood_adjoint=True,
        likelihood_kinetic=0.1,
        likelihood_jacobian=0.2,
    )
    found = build_objective(config, load_source(config).train)
    assert found == MaximumLikelihood(3, "midpoint", True, kinetic=0.1, jacobian=0.2, levels=17)  # digits' grey levels
    defaults = build_objective(TrainConfig(objective="likelihood", data="moons"), load_source(config).train)
    assert defaults == MaximumLikelihood(levels=17)


def test_the_methods_that_can_be_set_are_the_solver_s() -> None:
    """The settings repeat them, since they import no torch."""
    assert LIKELIHOOD_METHODS == FIXED_METHODS


def test_nets_are_smooth_in_time() -> None:
    """Fast waves in time let a net deceive the solver's coarse steps."""
    train = load_source(TrainConfig(data="moons")).train
    smooth, usual = (net_spec(TrainConfig(data="moons", objective=name), train) for name in ("likelihood", "cfm"))
    assert (smooth.time_scale, usual.time_scale) == (1.0, None)
    assert float(build_net(smooth, 0).condition.time.frequencies.max()) == 1.0
    assert read_net_spec(json.loads(json.dumps(dataclasses.asdict(smooth))), Path("x")) == smooth


def test_it_resumes_bit_for_bit(
    tiny: Callable[..., TrainConfig], tmp_path: Path, same_tensors: Callable[[Path, Path], bool]
) -> None:
    config = tiny(objective="likelihood", likelihood_steps=1, labels=True)
    whole = Trainer(config, tmp_path / "whole").fit()
    Trainer(config, tmp_path / "parts").fit()
    for folder in sorted((tmp_path / "parts" / "checkpoints").iterdir())[1:]:  # as if stopped after the first
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert same_tensors(whole.checkpoint, Trainer(config, tmp_path / "parts").fit(resume=True).checkpoint)


def test_runs_from_before_these_settings_continue(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config, run = tiny(), tmp_path / "run"
    step = Trainer(config, run).fit().step
    lines = (run / "config.toml").read_text().splitlines(keepends=True)
    old = [line for line in lines if not line.startswith("likelihood_")]
    assert len(lines) - len(old) == len(SETTINGS) == 5
    (run / "config.toml").write_text("".join(old))
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_text())
        state["config"] = {name: value for name, value in state["config"].items() if name not in SETTINGS}
        state.pop("sha256")
        (folder / "state.json").write_text(json.dumps(state))
    assert read_config(run) == config
    assert Trainer(config, run).fit(resume=True).step == step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood_steps": 0}, "likelihood_steps must be at least 1, got 0"),
        ({"likelihood_steps": 10**6}, "likelihood_steps must be at most 10000, got 1000000"),
        ({"likelihood_method": "hune"}, r"likelihood_method must be one of .*, got 'hune'; did you mean 'heun'\?"),
        ({"likelihood_kinetic": -1.0}, r"likelihood_kinetic must be finite and not negative, got -1\.0"),
        ({"likelihood_jacobian": float("inf")}, "likelihood_jacobian must be finite and not negative, got inf"),
        ({"path": "vp"}, "path cannot be given with objective 'likelihood', which needs none, got 'vp'"),
        ({"coupling": "ot"}, "coupling cannot be given with objective 'likelihood', which draws no noise, got 'ot'"),
        ({"compile": True}, "compile cannot be given with objective 'likelihood': compiled nets"),
        ({"precision": "fp16"}, "precision 'fp16' cannot be given with objective 'likelihood': use 'bf16' or 'no'"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(objective="likelihood", **changes).check_values()
