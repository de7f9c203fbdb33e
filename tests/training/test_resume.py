"""A run that was interrupted continues bit for bit."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fluvial.training import Interrupted, TrainConfig, Trainer, latest_checkpoint, load_run, read_config
from fluvial.training.checkpoints import sealed
from fluvial.training.logs import read_metrics

Make = Callable[..., TrainConfig]
Same = Callable[[Path, Path], bool]

KINDS = [
    {"objective": "cfm"},
    {"objective": "cfm", "labels": True, "drop_cond": 0.3},
    {"objective": "cfm", "coupling": "ot"},
    {"objective": "cfm", "coupling": "ot", "labels": True, "drop_cond": 0.3},
    {"objective": "efm"},
    {"objective": "efm", "labels": True, "drop_cond": 0.3},
    {"objective": "cfm", "precision": "bf16", "weight_decay": 0.1, "path": "cosine"},
    {"objective": "meanflow"},
    {"objective": "likelihood", "likelihood_kinetic": 0.1, "likelihood_steps": 2},
]
SLOW_KINDS = [
    {"objective": "meanflow", "labels": True, "drop_cond": 0.3, "mean_omega": 2.0},
    {"objective": "cfm", "data": "digits", "net": "unet", "dropout": 0.3, "labels": True, "held_out": 1700},
]


def same_files(one: Path, other: Path) -> bool:
    """Whether two checkpoint folders hold the same files, byte for byte, ``state.json`` among them."""
    content = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in (one, other)]
    assert len(content[0]) == 4
    return content[0] == content[1]


@pytest.fixture(autouse=True)
def _any_precision() -> Iterable[None]:
    """Accelerate fixes the precision of a process at its first use."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def stop_at(step: int, signum: int = signal.SIGTERM) -> Callable[[Any], None]:
    def progress(report: Any) -> None:
        if report.step == step:
            os.kill(os.getpid(), signum)

    return progress


def losses(run: Path) -> list[tuple[float, float, float, float]]:
    return [(row["step"], row["loss"], row["lr"], row["grad_norm"]) for row in read_metrics(run)]


@pytest.mark.parametrize(
    "kind",
    [*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW_KINDS)],
    ids=lambda kind: "-".join(map(str, kind.values())),
)
def test_interrupted_runs_end_with_the_same_bits(kind: dict[str, Any], tiny: Make, tmp_path: Path) -> None:
    """Neither the clock, the folder nor the number of interruptions leaves a trace."""
    config = tiny(**kind)
    whole = Trainer(config, tmp_path / "whole").fit()
    run = tmp_path / "pieces"
    with pytest.raises(Interrupted) as first:
        Trainer(config, run, progress=stop_at(3)).fit()
    assert first.value.step == 3
    with pytest.raises(Interrupted) as second:
        Trainer(config, run, progress=stop_at(9, signal.SIGINT)).fit(resume=True)
    assert (second.value.signum, second.value.step) == (signal.SIGINT, 9)
    torch.rand(17)  # the global generator is somewhere else after a restart
    with pytest.raises(Interrupted) as third:
        Trainer(config, run, progress=stop_at(12)).fit(resume=True)
    assert third.value.checkpoint.name == "step-00000012"
    pieces = Trainer(config, run).fit(resume=True)
    assert pieces.step == whole.step == 12
    assert same_files(whole.checkpoint, pieces.checkpoint)
    assert same_files(whole.checkpoint.with_name("step-00000010"), run / "checkpoints" / "step-00000010")
    assert losses(run) == losses(tmp_path / "whole")
    for one, other in zip(whole.net.parameters(), pieces.net.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(1, 1), (5, 1), (100, 5)])
def test_any_checkpoint_continues_to_the_same_bits(
    log_every: int, checkpoint_every: int, tiny: Make, same_tensors: Same, tmp_path: Path
) -> None:
    """As after a kill: what came after the checkpoint is lost, the metrics run ahead of it."""
    config = tiny(checkpoint_every=checkpoint_every, log_every=log_every, keep=100)
    whole = Trainer(config, tmp_path / "whole").fit()
    run = tmp_path / "killed"
    Trainer(config, run).fit()
    for folder in sorted((run / "checkpoints").iterdir())[-3:]:
        for later in [f for f in (run / "checkpoints").iterdir() if f.name >= folder.name]:
            later.rename(run / "checkpoints" / f".partial-{later.name}")
        result = Trainer(config, run).fit(resume=True)
        assert same_tensors(whole.checkpoint, result.checkpoint)
        assert losses(run) == losses(tmp_path / "whole")
        assert not list((run / "checkpoints").glob(".partial-*"))


def test_without_a_checkpoint_resume_starts_from_config_toml(tiny: Make, same_tensors: Same, tmp_path: Path) -> None:
    whole = Trainer(tiny(), tmp_path / "whole").fit()
    run = tmp_path / "started"
    Trainer(tiny(), run).fit()
    for folder in (run / "checkpoints").iterdir():
        folder.rename(folder.with_name(f".partial-{folder.name}"))
    result = Trainer(read_config(run), run).fit(resume=True)
    assert same_tensors(whole.checkpoint, result.checkpoint)
    assert losses(run) == losses(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(tiny: Make, tmp_path: Path) -> None:
    first = Trainer(tiny(), tmp_path / "run").fit()
    content = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    second = Trainer(tiny(), tmp_path / "run").fit(resume=True)
    assert second.loss == first.loss
    assert content == {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}


def test_dropout_continues_too(tiny: Make, same_tensors: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluvial.nn import MLP, by_name

    class Dropping(MLP):
        def forward(self, x: Any, t: Any, cond: Any = None, r: Any = None) -> Any:
            return super().forward(nn.functional.dropout(x, 0.5, self.training), t, cond, r)

    plain = Trainer(tiny(), tmp_path / "plain").fit()
    monkeypatch.setattr(by_name, "MLP", Dropping)
    whole = Trainer(tiny(), tmp_path / "whole").fit()
    with pytest.raises(Interrupted):
        Trainer(tiny(), tmp_path / "pieces", progress=stop_at(6)).fit()
    torch.rand(17)  # the global generator is somewhere else after a restart
    pieces = Trainer(tiny(), tmp_path / "pieces").fit(resume=True)
    assert same_tensors(whole.checkpoint, pieces.checkpoint)
    assert not same_tensors(whole.checkpoint, plain.checkpoint)


def test_changed_config_is_refused(tiny: Make, tmp_path: Path) -> None:
    Trainer(tiny(), tmp_path).fit()
    for field, value in {"width": 16, "lr": 0.5, "objective": "efm", "steps": 20}.items():
        with pytest.raises(
            ValueError, match=rf"{field} cannot change .*: .* was trained with .*, the config now says {value!r}"
        ):
            Trainer(tiny(**{field: value}), tmp_path).fit(resume=True)
    result = Trainer(tiny(log_every=4, keep=1), tmp_path).fit(resume=True)
    assert result.step == 12
    assert read_config(tmp_path).keep == 1


def test_changed_data_are_refused(tiny: Make, data_file: Path, tmp_path: Path) -> None:
    import numpy as np

    run = tmp_path / "run"
    Trainer(tiny(), run).fit()
    before = load_run(run).data_hash
    np.savez(data_file, x=np.ones((30, 3), dtype=np.float32), y=np.arange(30) % 3)
    with pytest.raises(
        ValueError, match=f"the data have changed: .* with hash {before[:12]}, and tiny.npz now has hash"
    ):
        Trainer(tiny(), run).fit(resume=True)
    with pytest.raises(ValueError, match="the data have changed"):
        load_run(run).dataset()
    # The net can be sampled without its data.
    assert load_run(run).net.shape == (3,)


def test_changed_net_is_refused(tiny: Make, tmp_path: Path) -> None:
    Trainer(tiny(), tmp_path).fit()
    file = tmp_path / "checkpoints" / "step-00000012" / "state.json"
    state = json.loads(file.read_text())
    net = {**state["net"], "options": {**state["net"]["options"], "width": 16}}
    file.write_bytes(sealed({**state, "net": net}))
    with pytest.raises(ValueError, match=r"the net has changed: .*width=16.*width=8"):
        Trainer(read_config(tmp_path), tmp_path).fit(resume=True)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("lr = 0.003", "lr = 0.004", "lr cannot change .*: .*step-00000012 was trained with 0.003, .* says 0.004"),
        ('objective = "cfm"', 'objective = "efm"', "objective cannot change .* with 'cfm', .* says 'efm'"),
        ('path = "condot"', 'path = "vp"', "path cannot change .* with 'condot', .* says 'vp'"),
        ("seed = 0", "seed = 0\nheld_out = 3", "held_out cannot change .* with None, .* says 3"),
    ],
)
def test_a_config_edited_by_hand_is_refused(before: str, after: str, message: str, tiny: Make, tmp_path: Path) -> None:
    Trainer(tiny(), tmp_path).fit()
    file = tmp_path / "config.toml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    if not after.endswith("held_out = 3"):  # which changes the data first
        with pytest.raises(ValueError, match=message):
            Trainer(read_config(tmp_path), tmp_path).fit(resume=True)
    with pytest.raises(ValueError, match=message):
        load_run(tmp_path)


def test_what_changes_no_update_may_be_edited(tiny: Make, tmp_path: Path) -> None:
    Trainer(tiny(), tmp_path).fit()
    file = tmp_path / "config.toml"
    file.write_text(file.read_text().replace("log_every = 3", "log_every = 4"))
    assert load_run(tmp_path).config.log_every == 4


def test_a_foreign_net_is_refused(tiny: Make, tmp_path: Path) -> None:
    Trainer(tiny(), tmp_path).fit()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    state = json.loads((newest / "state.json").read_text())
    (newest / "state.json").write_bytes(sealed({**state, "net": {"kind": "unet"}}))
    with pytest.raises(ValueError, match=r"step-00000012 describes no net: \{'kind': 'unet'\}"):
        Trainer(tiny(), tmp_path).fit(resume=True)
    with pytest.raises(ValueError, match="describes no net"):
        load_run(tmp_path)


def test_resuming_what_is_no_run(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run folder"):
        Trainer(tiny(), tmp_path / "absent").fit(resume=True)


def test_seed_changes_the_weights(tiny: Make, same_tensors: Same, tmp_path: Path) -> None:
    runs = [Trainer(replace(tiny(), seed=seed), tmp_path / str(seed)).fit() for seed in (0, 1)]
    assert not same_tensors(runs[0].checkpoint, runs[1].checkpoint)


def test_a_signal_before_the_first_step(
    tiny: Make, same_tensors: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluvial.training import reporting

    class Signalling(reporting.MetricsLog):
        def __enter__(self) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return super().__enter__()

    whole = Trainer(tiny(), tmp_path / "whole").fit()
    with monkeypatch.context() as patch:
        patch.setattr(reporting, "MetricsLog", Signalling)
        with pytest.raises(Interrupted) as caught:
            Trainer(tiny(), tmp_path / "run").fit()
    assert (caught.value.step, caught.value.checkpoint.name) == (0, "step-00000000")
    assert same_tensors(whole.checkpoint, Trainer(tiny(), tmp_path / "run").fit(resume=True).checkpoint)


def test_a_signal_in_the_last_step_is_not_lost(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        Trainer(tiny(), tmp_path, progress=stop_at(12)).fit()
    assert (caught.value.step, caught.value.checkpoint.name) == (12, "step-00000012")
    assert Trainer(tiny(), tmp_path).fit(resume=True).step == 12


@pytest.mark.parametrize(
    "change",
    [
        {"sums": [1.0]},
        {"sums": None},
        {"count": "x"},
        {"data_hash": "0" * 64},
        {"data_hash": 3},
        {"net": 3},
        {"config": 3},
    ],
)
def test_foreign_values_in_state_json_are_refused(change: dict[str, Any], tiny: Make, tmp_path: Path) -> None:
    folder = Trainer(tiny(), tmp_path).fit().checkpoint
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_bytes(sealed({**state, **change}))
    with pytest.raises(ValueError, match="step-00000012"):
        Trainer(tiny(), tmp_path).fit(resume=True)


def test_a_full_disk_stops_training_and_the_run_can_go_on(tiny: Make, same_tensors: Same, tmp_path: Path) -> None:
    whole = Trainer(tiny(), tmp_path / "whole").fit()
    size = (whole.checkpoint / "optimizer.safetensors").stat().st_size

    def fill_the_disk(report: Any) -> None:
        if report.step == 9:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match=r"checkpoint not written \(File too large\)"):
            Trainer(tiny(), tmp_path / "run", progress=fill_the_disk).fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_run(tmp_path / "run").step == 5
    assert same_tensors(whole.checkpoint, Trainer(tiny(), tmp_path / "run").fit(resume=True).checkpoint)
