"""Meta-training: its targets, its draws, and runs that continue bit for bit."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support import MetaTrainer, SupportConfig, load_support_run
from fluvial.support.config import read_config, write_config
from fluvial.support.state import MetaState
from fluvial.support.tasks import family_by_name
from fluvial.training import Interrupted
from fluvial.training.logs import read_metrics
from fluvial.training.recovery import DamagedCheckpoint

TINY = SupportConfig(
    width=8, heads=2, blocks=1, steps=9, batch_size=3, points=8, bank=12, m=5, log_every=2, checkpoint_every=4
)


def stop_at(step: int, signum: int) -> Callable[[Any], None]:
    def progress(report: Any) -> None:
        if report.step == step:
            os.kill(os.getpid(), signum)

    return progress


def weights(run: Path) -> dict[str, bytes]:
    folder = sorted((run / "checkpoints").iterdir())[-1]
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize("change", [{}, {"exact_head": True}, {"least_m": 2, "tasks": "gmm+moons", "dim": 2}])
def test_interrupted_runs_end_with_the_same_bits(change: dict[str, Any], tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, **change)
    whole = MetaTrainer(config, tmp_path / "whole").fit()
    with pytest.raises(Interrupted) as first:
        MetaTrainer(config, tmp_path / "pieces", progress=stop_at(2, signal.SIGTERM)).fit()
    with pytest.raises(Interrupted) as second:
        MetaTrainer(config, tmp_path / "pieces", progress=stop_at(6, signal.SIGINT)).fit(resume=True)
    assert (first.value.step, second.value.step) == (2, 6)
    pieces = MetaTrainer(config, tmp_path / "pieces").fit(resume=True)
    assert pieces.step == whole.step == 9
    assert weights(tmp_path / "pieces") == weights(tmp_path / "whole")
    rows = [
        [(row["step"], row["loss"], row["lr"]) for row in read_metrics(tmp_path / name)] for name in ("whole", "pieces")
    ]
    assert rows[0] == rows[1]


def test_bank_targets_have_the_conditional_mean_and_less_variance() -> None:
    """E[f(xt) target] is that of the conditional velocity for every f; without the own datum it is not."""
    config = dataclasses.replace(TINY, tasks="gmm", dim=2, batch_size=400, points=16, bank=16)
    family = family_by_name("gmm", 2)
    averaged, plain = MetaState(config, family), MetaState(dataclasses.replace(config, bank=1), family)
    head = fv.support.KernelAttention(fv.CondOT(config.sigma_min))
    differences, without, spreads = [], [], []
    for step in range(6):
        a, b = averaged.draw(generator(5, step)), plain.draw(generator(5, step))
        torch.testing.assert_close(a.xt, b.xt)  # the same draws
        feature = torch.nn.functional.normalize(a.xt, dim=2) * ((a.t > 0.2) & (a.t < 0.7))[..., None]
        differences.append((feature * (a.target - b.target)).sum(2).mean(1))
        bank = family.batch(400, *_drawn_sizes(), generator(5, step)).targets
        half = slice(0, 8)  # their own data are not among the other half
        control = head(a.xt[:, half], a.t[:, half], bank[:, 8:]) - b.target[:, half]
        without.append((feature[:, half] * control).sum(2).mean(1))
        spreads.append(torch.stack([a.target.square().mean(), b.target.square().mean()]))
    assert abs(_score(differences)) < 4
    assert abs(_score(without)) > 8
    averaged_power, plain_power = torch.stack(spreads).mean(0).tolist()
    assert averaged_power < 0.98 * plain_power


def _drawn_sizes() -> tuple[int, int]:
    return TINY.m, 16


def _score(parts: list[torch.Tensor]) -> float:
    """Mean over tasks in units of its standard error."""
    values = torch.cat(parts).double()
    return float(values.mean() / (values.std() / len(values) ** 0.5))


def test_supports_and_targets_are_fresh_in_every_step_and_the_same_again() -> None:
    state = MetaState(TINY, family_by_name("shells", 8))
    first, again, next_ = (state.draw(generator(0, step)) for step in (0, 0, 1))
    assert torch.equal(first.support, again.support) and torch.equal(first.target, again.target)
    assert not torch.equal(first.support, next_.support)
    assert first.support.shape == (3, 5, 8) and first.xt.shape == first.target.shape == (3, 8, 8)


def test_numbers_of_examples_are_spread_evenly_in_their_logarithm() -> None:
    state = MetaState(dataclasses.replace(TINY, least_m=2, m=50, batch_size=1), family_by_name("gmm", 2))
    sizes = np.array([state.draw(generator(0, step)).support.shape[1] for step in range(400)])
    assert sizes.min() == 2 and sizes.max() == 50
    assert abs(np.mean(sizes <= 10) - np.log(11 / 2) / np.log(51 / 2)) < 0.1


def test_training_lowers_the_loss_and_the_run_can_be_read(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, tasks="moons", dim=2, width=16, steps=150, batch_size=8, lr=5e-3)
    result = MetaTrainer(config, tmp_path / "run").fit()
    state = MetaState(dataclasses.replace(config, batch_size=200), family_by_name("moons"))
    batch = state.draw(generator(1, 2, 3))
    with torch.no_grad():
        before, after = (
            float((net(batch.xt, batch.t, batch.support) - batch.target).square().mean())
            for net in (state.net, result.net)
        )
    assert after < 0.8 * before
    run = load_support_run(tmp_path / "run")
    assert (run.step, run.dim, run.config) == (150, 2, config)
    for key, value in result.net.state_dict().items():
        assert torch.equal(run.net.state_dict()[key], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": 0}, "m must be at least 1, got 0"),
        ({"least_m": 9}, "least_m must be at most m = 5, got 9"),
        ({"bank": 4}, "bank must be 1 or at least points = 8, got 4"),
        ({"heads": 3}, "heads must divide the width 8, got 3"),
        ({"lr": float("nan")}, "lr must be positive and finite, got nan"),
        ({"tasks": "shels"}, "unknown task family 'shels': did you mean 'shells'?"),
        ({"tasks": "moons", "dim": 3}, "moons lie in the plane: dim must be 2, got 3"),
        ({"sigma_min": 1.0}, r"sigma_min must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_that_cannot_be_trained_with_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        MetaTrainer(dataclasses.replace(TINY, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_types_are_checked() -> None:
    with pytest.raises(TypeError, match="steps must be int, got True"):
        dataclasses.replace(TINY, steps=True).validate()


def test_a_changed_setting_is_refused_on_the_way(tmp_path: Path) -> None:
    MetaTrainer(TINY, tmp_path / "run").fit()
    with pytest.raises(ValueError, match="lr cannot change once training has begun"):
        MetaTrainer(dataclasses.replace(TINY, lr=0.1), tmp_path / "run").fit(resume=True)
    write_config(dataclasses.replace(TINY, width=16), tmp_path / "run")
    with pytest.raises(ValueError, match="width cannot change once training has begun"):
        load_support_run(tmp_path / "run")


def test_a_run_is_replaced_only_when_asked_and_only_by_its_kind(tmp_path: Path) -> None:
    MetaTrainer(TINY, tmp_path / "run").fit()
    with pytest.raises(ValueError, match="already holds a run"):
        MetaTrainer(TINY, tmp_path / "run").fit()
    MetaTrainer(dataclasses.replace(TINY, seed=1), tmp_path / "run").fit(overwrite=True)
    assert read_config(tmp_path / "run").seed == 1
    from fluvial.training import TrainConfig, Trainer

    other = TrainConfig(data="moons", width=8, depth=1, steps=2, batch_size=4)
    with pytest.raises(ValueError, match="not a fluvial run, which --overwrite never removes"):
        Trainer(other, tmp_path / "run").fit(overwrite=True)


def test_damage_is_named(tmp_path: Path) -> None:
    MetaTrainer(TINY, tmp_path / "run").fit()
    folder = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    file = folder / "ema.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.warns(DamagedCheckpoint, match=r"ema\.safetensors is damaged.*; step \d+ is used instead"):
        _ = load_support_run(tmp_path / "run").net
    file.write_bytes(content[:-4])
    with pytest.warns(DamagedCheckpoint, match="truncated"):
        load_support_run(tmp_path / "run")
    (tmp_path / "run" / "config.toml").write_text('fluvial = "0"\ncommand = "support"\nwidht = 8\n')
    with pytest.raises(ValueError, match="unknown key 'widht'; did you mean 'width'"):
        read_config(tmp_path / "run")


def test_checkpoints_hold_nothing_of_the_clock(tmp_path: Path) -> None:
    for name in ("a", "b"):
        MetaTrainer(TINY, tmp_path / name).fit()
    folders = [sorted((tmp_path / name / "checkpoints").iterdir())[-1] for name in ("a", "b")]
    assert (folders[0] / "state.json").read_bytes() == (folders[1] / "state.json").read_bytes()
    assert json.loads((folders[0] / "state.json").read_text())["dim"] == 8
    assert safetensors.torch.load_file(folders[0] / "model.safetensors")


def test_real_tasks_are_those_of_the_training(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 12)
    file = tmp_path / "features.npz"
    np.savez(file, features=random.normal(size=(60, 4)).astype(np.float32), labels=labels)
    config = dataclasses.replace(TINY, tasks=str(file), dim=3)
    MetaTrainer(config, tmp_path / "run").fit()
    run = load_support_run(tmp_path / "run")
    assert run.family("test").dim == 3
    np.savez(file, features=random.normal(size=(60, 4)).astype(np.float32), labels=labels)
    with pytest.raises(ValueError, match="the data of the tasks have changed"):
        load_support_run(tmp_path / "run").family()
