"""An update from a loss or gradient that is not finite, or from a leap, is never made, and is told."""

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from fluvial.data import Dataset
from fluvial.objectives import CFM, Batch, Loss
from fluvial.ranks import Ranks
from fluvial.training import Interrupted, TrainConfig, Trainer, load_run
from fluvial.training import state as training_state
from fluvial.training.build import build_net, net_spec
from fluvial.training.checkpoints import list_checkpoints, sealed, step_of
from fluvial.training.guard import LEAST_SPREAD, WATCH_EVERY, WINDOW, Guard, Skipped, SkippedUpdate
from fluvial.training.logs import read_metrics
from fluvial.training.recovery import DamagedCheckpoint
from fluvial.training.state import TrainState

Make = Callable[..., TrainConfig]
Same = Callable[[Path, Path], bool]


class Breaking:
    """CFM whose loss is spoilt at given steps: multiplied by a factor, in the rows of late times alone."""

    logged = ("late",)

    def __init__(self, at: dict[int, float], logs: bool = True) -> None:
        self.at, self.step, self._cfm = at, 0, CFM()

    def __call__(self, net: Any, batch: Batch, *, generator: torch.Generator) -> Loss:
        loss = self._cfm(net, batch, generator=generator)
        assert loss.times is not None
        late = loss.times > loss.times.median()
        factor = torch.where(late, self.at.get(self.step, 1.0), 1.0)
        self.step += 1
        return dataclasses.replace(
            loss, loss=loss.loss * factor.max(), per_sample=loss.per_sample * factor, logs={"late": late.float().mean()}
        )


@pytest.fixture
def broken_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], None]:
    """Makes every training break at given steps; the objective of a resumed one is told where it is."""

    def breaking(at: dict[int, float]) -> None:
        class Told(TrainState):
            def update(self) -> None:
                objective.step = self.step
                super().update()

        objective = Breaking(at)
        monkeypatch.setattr(training_state, "build_objective", lambda config, train: objective)
        monkeypatch.setattr("fluvial.training.trainer.TrainState", Told)

    return breaking


def stop_at(step: int) -> Callable[[Any], None]:
    import os
    import signal

    def progress(report: Any) -> None:
        if report.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def state_of(config: TrainConfig) -> TrainState:
    data = Dataset(np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32))
    return TrainState(config, data, net_spec(config, data), Accelerator())


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e30])
def test_weights_moments_and_count_stay_as_they_are(factor: float, tiny: Make, broken_at: Any) -> None:
    """1e30 overflows in the gradient's norm alone."""
    broken_at({3: factor})
    state = state_of(tiny(clip=1.0))
    for step in range(6):
        before = {name: {k: v.clone() for k, v in group.items()} for name, group in state.tensors().items()}
        state.update()
        after = state.tensors()
        same = {name: all(torch.equal(after[name][k], v) for k, v in group.items()) for name, group in before.items()}
        if step:  # before the first there are no moments
            assert (same["model"], same["optimizer"]) == ((True, True) if step == 3 else (False, False))
        assert all(v.isfinite().all() for group in after.values() for v in group.values())
    (skipped,) = state.guard.look()
    assert skipped.step == 4 and not skipped.finite and not math.isfinite(skipped.grad_norm)
    assert math.isfinite(skipped.loss) == (factor == 1e30)
    means = state.take_means()
    assert (means.updates, means.skipped) == (5, 1) and math.isfinite(means.loss + means.grad_norm)


def test_the_rows_to_blame_are_named_by_their_times() -> None:
    guard = Guard(0.0, Ranks())
    bad = Loss(torch.tensor(math.nan), torch.tensor([1.0, math.nan, math.inf]), times=torch.tensor([0.1, 0.6, 0.75]))
    good = Loss(torch.tensor(1.0), torch.ones(3), times=bad.times)
    for step, found in enumerate([good, bad, good]):
        guard.judge(step, found.loss, torch.tensor(2.0), found, guard.limit(step))
    (skipped,) = guard.look()
    assert (skipped.step, skipped.grad_norm) == (2, 2.0) and skipped.times == pytest.approx((0.6, 0.75))
    assert str(skipped) == "update 2 was skipped: loss nan, gradient norm 2, times 0.6 to 0.75"
    assert guard.look() == []
    # No single row is to blame for a gradient that overflows.
    guard.judge(3, good.loss, torch.tensor(math.inf), good, guard.limit(step))
    (skipped,) = guard.look()
    assert dataclasses.replace(skipped, times=None) == Skipped(4, 1.0, math.inf)
    assert skipped.times == pytest.approx((0.1, 0.75))


def test_a_leap_is_measured_in_median_deviations() -> None:
    guard, losses = Guard(10.0, Ranks()), torch.rand(70, generator=torch.Generator().manual_seed(0)) - 1
    rows = Loss(torch.tensor(0.0), torch.zeros(2), times=torch.tensor([0.2, 0.3]))
    for step, loss in enumerate(losses):
        assert guard.limit(step) == math.inf  # too few to compare with
        guard.judge(step, loss, torch.tensor(1.0), rows, guard.limit(step))
    recent, middle = losses[-WINDOW:], (WINDOW - 1) // 2
    centre = recent.sort().values[middle]
    spread = (recent - centre).abs().sort().values[middle]
    assert spread > LEAST_SPREAD * centre.abs()
    limit = guard.limit(70)
    assert limit == centre + 10 * spread == guard.limit(71)
    for step, (loss, leaps) in enumerate([(limit - 0.01, 0.0), (limit + 0.01, 1.0), (losses[0], 0.0)], start=70):
        assert guard.judge(step, loss, torch.tensor(1.0), rows, limit) == leaps
    (skipped,) = guard.look()
    assert skipped.finite and skipped.step == 72 and "the loss leapt to" in str(skipped)
    other = Guard(10.0, Ranks())
    other.restore(guard.values(), Path("c"))
    assert other.limit(73) == limit and other.limit(80) == guard.limit(80) != limit
    full = {"recent": [1.0] * WINDOW, "limit": None, "skipped": 0, "in_a_row": 0, "broken": False}
    for values in (3, {}, {**full, "recent": [1.0]}, {**full, "recent": "x"}, {**full, "limit": "x"}):
        with pytest.raises(ValueError, match="c holds no state of the guard"):
            other.restore(values, Path("c"))


def test_losses_that_hardly_vary_do_not_leap_at_once() -> None:
    guard, rows = Guard(10.0, Ranks()), Loss(torch.tensor(0.0), torch.zeros(2))
    for step in range(WINDOW):
        guard.judge(step, torch.tensor(2.0), torch.tensor(1.0), rows, guard.limit(step))
    assert guard.limit(70) == pytest.approx(2.0 + 10 * LEAST_SPREAD * 2.0)


def test_stop_names_step_norm_and_times_and_keeps_the_state(tiny: Make, broken_at: Any, tmp_path: Path) -> None:
    broken_at({4: math.nan})
    config = tiny(steps=40, log_every=100, checkpoint_every=100)
    words = r"training diverged: update 5 was skipped: loss nan, gradient norm nan, times 0\.\d+ to 0\.\d+; the state"
    with pytest.raises(ValueError, match=words), pytest.warns(SkippedUpdate, match="update 5 was skipped"):
        Trainer(config, tmp_path / "run").fit()
    assert load_run(tmp_path / "run").step == WATCH_EVERY  # told at most ten steps later
    stopped = Trainer(config, tmp_path / "run").fit(resume=True)
    with pytest.warns(SkippedUpdate):
        skipped = Trainer(tiny(steps=40, log_every=100, on_nan="skip"), tmp_path / "skip").fit()
    for one, other in zip(stopped.net.parameters(), skipped.net.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("on_nan", [pytest.param("skip", marks=pytest.mark.slow), "rollback"])
def test_runs_that_skipped_updates_continue_bit_for_bit(
    on_nan: str, tiny: Make, same_tensors: Same, broken_at: Any, tmp_path: Path
) -> None:
    broken_at({12: math.nan, 13: math.inf, 70: 50.0, 73: math.nan, 84: math.nan})
    config = tiny(steps=90, checkpoint_every=8, on_nan=on_nan, spike=20.0)
    with pytest.warns(SkippedUpdate) as told:
        whole = Trainer(config, tmp_path / "whole").fit()
    skipped = [str(w.message).split()[1] for w in told if "was skipped" in str(w.message)]
    assert skipped == ["13", "14", "71", "74", "85"]
    assert sum(row.get("skipped", 0) for row in read_metrics(tmp_path / "whole")) == whole.skipped == 5
    run = tmp_path / "pieces"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedUpdate)
        for stop in (12, 21, 72, 87):
            with pytest.raises(Interrupted):
                Trainer(config, run, progress=stop_at(stop)).fit(resume=run.exists())
        pieces = Trainer(config, run).fit(resume=True)
    assert same_tensors(whole.checkpoint, pieces.checkpoint) and pieces.skipped == 5


def test_rollback_takes_back_what_came_after_the_checkpoint(tiny: Make, broken_at: Any, tmp_path: Path) -> None:
    broken_at({13: math.nan})
    with pytest.warns(SkippedUpdate):
        Trainer(tiny(steps=20, checkpoint_every=10, log_every=100, on_nan="rollback", keep=5), tmp_path / "run").fit()
    state = state_of(tiny())
    broken_at({})
    run = load_run(tmp_path / "run")
    ten, twenty = (run.checkpoint.folder.with_name(f"step-{step:08d}") for step in (10, 20))
    for name in ("model", "ema", "optimizer"):  # looked at in step 20, where the state of step 10 came back
        assert (ten / f"{name}.safetensors").read_bytes() == (twenty / f"{name}.safetensors").read_bytes()
    state.roll_back(None)
    fresh = state_of(tiny())
    assert all(torch.equal(a, b) for a, b in zip(state.net.parameters(), fresh.net.parameters(), strict=True))
    assert state.tensors()["optimizer"] == {}


@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_a_training_that_only_skips_is_stopped(on_nan: str, tiny: Make, broken_at: Any, tmp_path: Path) -> None:
    broken_at(dict.fromkeys(range(5, 1000), math.nan))
    with (
        pytest.raises(ValueError, match="training diverged: the last 55 updates were all skipped: update 60 was"),
        pytest.warns(SkippedUpdate),
    ):
        Trainer(tiny(steps=200, on_nan=on_nan, log_every=100, checkpoint_every=100), tmp_path / "run").fit()
    assert load_run(tmp_path / "run").step == 60


def test_a_training_that_nearly_only_skips_is_stopped(tiny: Make, broken_at: Any, tmp_path: Path) -> None:
    """After each rollback one update is made, so that there are never many skipped in a row."""
    broken_at({step: math.nan for step in range(200) if step % 10})
    with (
        pytest.raises(ValueError, match="training diverged: 54 of 60 updates were skipped: update 60 was skipped"),
        pytest.warns(SkippedUpdate),
    ):
        Trainer(tiny(steps=200, on_nan="rollback", log_every=100, checkpoint_every=100), tmp_path / "run").fit()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"on_nan": "ignore"}, "on_nan must be one of stop, skip, rollback, got 'ignore'"),
        ({"spike": -1.0}, r"spike must be finite and not negative, got -1\.0"),
        ({"spike": math.nan}, "spike must be finite"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes).validate()


def test_interrupts_do_not_move_where_a_rollback_goes(
    tiny: Make, same_tensors: Same, broken_at: Any, tmp_path: Path
) -> None:
    """The checkpoints of interrupts use up ``keep``; the regular one is kept all the same."""
    broken_at({27: math.nan})
    config = tiny(steps=40, log_every=1, checkpoint_every=20, keep=1, on_nan="rollback")
    with pytest.warns(SkippedUpdate, match="the weights are those of step 20 again"):
        whole = Trainer(config, tmp_path / "whole").fit()
    run = tmp_path / "pieces"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedUpdate)
        for stop in (22, 24, 29):
            with pytest.raises(Interrupted):
                Trainer(config, run, progress=stop_at(stop)).fit(resume=run.exists())
    assert [step_of(folder) for folder in list_checkpoints(run)] == [20, 29]
    with pytest.warns(SkippedUpdate, match="the weights are those of step 20 again"):
        pieces = Trainer(config, run).fit(resume=True)
    assert same_tensors(whole.checkpoint, pieces.checkpoint)


def test_a_rollback_goes_past_a_damaged_checkpoint(tiny: Make, broken_at: Any, tmp_path: Path) -> None:
    broken_at({27: math.nan})

    def cut(report: Any) -> None:
        if report.step == 25:
            file = tmp_path / "run" / "checkpoints" / "step-00000020" / "ema.safetensors"
            file.write_bytes(file.read_bytes()[:-1])

    config = tiny(steps=30, log_every=5, checkpoint_every=10, on_nan="rollback")
    with (
        pytest.warns(DamagedCheckpoint, match=r"truncated.*step 10 is used"),
        pytest.warns(SkippedUpdate, match="the weights are those of step 10 again"),
    ):
        Trainer(config, tmp_path / "run", progress=cut).fit()


def test_before_the_first_checkpoint_a_rollback_goes_to_the_start(tiny: Make, broken_at: Any, tmp_path: Path) -> None:
    broken_at({4: math.nan})
    config = tiny(steps=10, log_every=100, checkpoint_every=10, on_nan="rollback")
    with pytest.warns(SkippedUpdate, match="the weights are those of the start again"):
        result = Trainer(config, tmp_path / "run").fit()
    fresh = build_net(load_run(tmp_path / "run").net_spec, config.seed)
    assert all(torch.equal(a, b) for a, b in zip(result.net.parameters(), fresh.parameters(), strict=True))


def test_the_guard_keeps_no_graphs(tiny: Make) -> None:
    state = state_of(tiny())
    state.update()
    kept = vars(state.guard._judged[0]).values()
    assert not any(value.requires_grad for value in kept if isinstance(value, torch.Tensor))


def test_runs_from_before_there_were_guards_go_on(tiny: Make, tmp_path: Path) -> None:
    Trainer(tiny(), tmp_path).fit()
    for folder in list_checkpoints(tmp_path):
        file = folder / "state.json"
        state = json.loads(file.read_text())
        file.write_bytes(sealed({key: value for key, value in state.items() if key not in ("guard", "skipped")}))
    assert Trainer(tiny(), tmp_path).fit(resume=True).step == 12
