from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from fluvial.progress import Progress
from fluvial.training import TrainConfig, Trainer, load_run
from fluvial.training.build import build_objective
from fluvial.training.logs import read_metrics
from fluvial.training.source import load_source

Make = Callable[..., TrainConfig]


def test_run_folder_and_metrics(tiny: Make, tmp_path: Path) -> None:
    reports: list[Progress] = []
    run = tmp_path / "run"
    result = Trainer(tiny(log_every=5, keep=2), run, progress=reports.append).fit()
    assert {child.name for child in run.iterdir()} == {"config.toml", "metrics.jsonl", "checkpoints", ".lock"}
    assert [child.name for child in sorted((run / "checkpoints").iterdir())] == ["step-00000010", "step-00000012"]
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [5, 10, 12]
    assert set(rows[0]) == {"step", "loss", "lr", "grad_norm", "examples_per_second"}
    assert result.loss == rows[-1]["loss"]
    assert [(report.step, report.total, report.task) for report in reports] == [
        (s, 12, "train cfm") for s in (5, 10, 12)
    ]
    assert set(reports[-1].values) == {"loss", "rate"}


def test_training_learns_the_mean_of_a_narrow_distribution(tmp_path: Path) -> None:
    """For data at one place c the best loss is 0: x1 - x0 is known from xt."""
    file = tmp_path / "x.npy"
    np.save(file, np.full((64, 2), 0.5, dtype=np.float32))
    config = TrainConfig(data=str(file), width=32, depth=1, steps=300, batch_size=64, warmup=20, lr=5e-3)
    Trainer(config, tmp_path / "run").fit()
    rows = read_metrics(tmp_path / "run")
    assert rows[0]["loss"] > 1.0
    assert rows[-1]["loss"] < 0.1


def test_logged_loss_is_the_mean_of_the_steps(tiny: Make, tmp_path: Path) -> None:
    Trainer(tiny(log_every=1), tmp_path / "each").fit()
    Trainer(tiny(log_every=4), tmp_path / "mean").fit()
    each = torch.tensor([[row["loss"], row["grad_norm"]] for row in read_metrics(tmp_path / "each")])
    mean = torch.tensor([[row["loss"], row["grad_norm"]] for row in read_metrics(tmp_path / "mean")])
    assert torch.allclose(each.reshape(3, 4, 2).mean(1), mean)


def test_average_is_what_load_run_returns(tiny: Make, tmp_path: Path) -> None:
    result = Trainer(tiny(labels=True), tmp_path).fit()
    run = load_run(tmp_path)
    assert (run.step, run.checkpoint.folder, run.net.condition.classes, run.net_spec.shape) == (
        12,
        result.checkpoint,
        3,
        (3,),
    )
    assert not run.net.training
    x, t, cond = torch.randn(4, 3), torch.rand(4), torch.tensor([0, 1, 2, -1])
    assert torch.equal(run.net(x, t, cond), result.net(x, t, cond))
    model = run.checkpoint.tensors("model")
    assert any(not torch.equal(model[key], value) for key, value in run.net.state_dict().items())
    assert len(run.dataset().train) == 24
    assert len(run.checkpoint.hash) == 64


def test_batches_larger_than_the_data(tiny: Make, tmp_path: Path) -> None:
    assert Trainer(tiny(batch_size=100), tmp_path).fit().step == 12


def test_overwrite_replaces_the_run_only_once_it_can_train(tiny: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    Trainer(tiny(), run).fit()
    with pytest.raises(ValueError, match="already holds a run"):
        Trainer(tiny(), run).fit()
    bad = tmp_path / "bad.npy"
    np.save(bad, np.array([[0.0], [np.nan], [1.0]], dtype=np.float32))
    with pytest.raises(ValueError, match=r"NaN or infinite"):
        Trainer(tiny(data=str(bad)), run).fit(overwrite=True)
    assert load_run(run).step == 12
    Trainer(tiny(steps=3), run).fit(overwrite=True)
    assert load_run(run).step == 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_data_leave_no_folder(value: float, tiny: Make, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.array([[0.0, value], [1.0, 2.0]], dtype=np.float32))
    with pytest.raises(ValueError, match="NaN or infinite"):
        Trainer(tiny(data=str(file)), tmp_path / "run").fit()
    assert not (tmp_path / "run").exists()


def test_one_datum_is_refused(tiny: Make, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.zeros((1, 2), dtype=np.float32))
    with pytest.raises(ValueError, match=r"needs at least 2 data, and .*x.npy has 1"):
        Trainer(tiny(data=str(file), held_out=0), tmp_path / "run").fit()


def test_labels_need_data_with_labels(tiny: Make, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.random.default_rng(0).normal(size=(10, 2)))
    with pytest.raises(ValueError, match=r"labels needs data with labels, and .*x.npy has none"):
        Trainer(tiny(data=str(file), labels=True), tmp_path / "run").fit()


def test_divergence_is_an_error_and_keeps_the_last_good_checkpoint(tiny: Make, tmp_path: Path) -> None:
    config = tiny(lr=1e30, clip=0.0, warmup=0, checkpoint_every=1, log_every=12)
    with pytest.raises(ValueError, match=r"training diverged: update \d+ was skipped: loss (nan|inf), .* smaller lr"):
        Trainer(config, tmp_path).fit()
    assert all(torch.isfinite(value).all() for value in load_run(tmp_path).checkpoint.tensors("model").values())


def test_precision_is_checked(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"precision must be the accelerator's mixed_precision 'no', got 'bf16'"):
        Trainer(tiny(precision="bf16"), tmp_path / "run", accelerator=Accelerator()).fit()


def test_bad_config_is_refused_before_any_work(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got -5"):
        Trainer(tiny(steps=-5), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_previews_and_tensorboard(tiny: Make, tmp_path: Path) -> None:
    config = TrainConfig(
        data="digits", width=8, depth=1, steps=4, batch_size=8, sample_every=2, tensorboard=True, log_every=1
    )
    Trainer(config, tmp_path / "images").fit()
    names = [file.name for file in sorted((tmp_path / "images" / "samples").iterdir())]
    assert names == ["step-00000002.png", "step-00000004.png"]
    assert list((tmp_path / "images" / "tensorboard").glob("events.*"))
    Trainer(tiny(sample_every=12, labels=True), tmp_path / "points").fit()
    assert np.load(tmp_path / "points" / "samples" / "step-00000012.npy").shape == (64, 3)


def test_previews_change_no_weights(tiny: Make, same_tensors: Callable[[Path, Path], bool], tmp_path: Path) -> None:
    plain = Trainer(tiny(), tmp_path / "plain").fit()
    watched = Trainer(tiny(sample_every=1, tensorboard=True), tmp_path / "watched").fit()
    assert same_tensors(plain.checkpoint, watched.checkpoint)


def test_optimal_transport_stays_within_labels_when_they_are_used(tiny: Make) -> None:
    train = load_source(tiny()).train
    assert build_objective(tiny(coupling="ot", labels=True), train).coupling.within_labels
    assert not build_objective(tiny(coupling="ot"), train).coupling.within_labels


def test_no_checkpoint_yet(tiny: Make, tmp_path: Path) -> None:
    from fluvial.training import write_config

    write_config(tiny(), tmp_path)
    with pytest.raises(ValueError, match="has no checkpoint yet; train it with --resume"):
        load_run(tmp_path)
