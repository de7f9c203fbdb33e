"""The parts of the larger examples that can go wrong: plans, resumption, tables, the paper's numbers."""

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial.metrics import frechet_distance
from fluvial.metrics.extractors.classifier import Classifier
from fluvial.progress import Progress

EXAMPLES = Path(__file__).parents[1] / "examples"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fashion, cifar10 = _module("fashion"), _module("cifar10")
ENTRIES = (fashion.METHODS[0], fashion.METHODS[-1])
COST = {"CFM": 0.1, "Mean Flow": 0.2}


def _silent(_: Progress) -> None:
    return None


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(fashion, "SETTINGS", {"mlp": {"width": 16, "depth": 1, "batch_size": 16}})
    monkeypatch.setattr(fashion, "seconds_an_update", lambda configs, *_: {name: COST[name] for name in configs})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """80 images of 8x8 in two classes, bright at the left or at the right; 64 are for training."""
    file, random = tmp_path / "images.npz", np.random.default_rng(0)
    labels = np.arange(80) % 2
    x = random.integers(0, 100, size=(80, 1, 8, 8))
    x[labels == 0, :, :, :4] += 150
    x[labels == 1, :, :, 4:] += 150
    np.savez(file, x=x.astype(np.uint8), y=labels)
    return file


@pytest.fixture
def options(images: Path, tmp_path: Path) -> Callable[..., Any]:
    """Options of a comparison in which CFM has 12 updates and Mean Flow 6."""

    def make(out: str = "out", **changes: Any) -> Any:
        given = {"data": images, "net": "mlp", "minutes": 0.04, "samples": 20, "out": tmp_path / out, **changes}
        return fashion.parse([f"--{name}={value}" for name, value in given.items()])

    return make


def test_time_is_shared_equally_and_the_plan_is_kept(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = fashion.Comparison(ENTRIES, options(), _silent)
    assert comparison.updates == {"CFM": 12, "Mean Flow": 6}
    monkeypatch.setattr(fashion, "seconds_an_update", lambda *_: pytest.fail("timed again"))
    assert fashion.Comparison(ENTRIES, options(), _silent).updates == comparison.updates


def test_a_folder_planned_otherwise_is_refused(options: Any) -> None:
    fashion.Comparison(ENTRIES, options(), _silent)
    with pytest.raises(ValueError, match=r"plan\.json has minutes 0\.04, and now it is 0\.08: give another --out"):
        fashion.Comparison(ENTRIES, options(minutes=0.08), _silent)
    with pytest.raises(ValueError, match="entries"):
        fashion.Comparison(fashion.METHODS, options(), _silent)


def test_interrupted_it_continues_bit_for_bit_and_knows_its_cost(
    options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(fashion, "draw", lambda *_: None)

    def interrupt(report: Progress) -> None:
        seen.append(report)
        if len(seen) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(fashion.Interrupted, match="step 10"):
        fashion.Comparison(ENTRIES, options("stopped"), interrupt).run()
    early = json.loads((tmp_path / "stopped" / "cfm.json").read_text())
    continued = fashion.Comparison(ENTRIES, options("stopped"), interrupt).run()
    late = json.loads((tmp_path / "stopped" / "cfm.json").read_text())
    assert late["step-00000012"] > late["step-00000010"] == early["step-00000010"] > 0
    assert [report.total for report in seen] == [seen[0].total] * len(seen)
    assert [report.step for report in seen] == sorted(report.step for report in seen)

    whole = fashion.Comparison(ENTRIES, options("whole"), _silent).run()
    for name in ("cfm", "mean-flow-1-step", "mean-flow-2-steps"):
        files = [tmp_path / folder / f"{name}.npy" for folder in ("stopped", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert [row["frechet"] for row in continued["rows"]] == [row["frechet"] for row in whole["rows"]]

    monkeypatch.setattr(fashion, "Trainer", lambda *_, **__: pytest.fail("trained again"))
    assert fashion.Comparison(ENTRIES, options("whole"), _silent).run() == whole


def test_scores_are_those_of_known_sets(options: Any, images: Path, tmp_path: Path) -> None:
    comparison = fashion.Comparison(ENTRIES[:1], options(), _silent)
    data = fv.load_dataset(str(images))
    (tmp_path / "out" / "cfm.json").write_text(json.dumps({"step-00000024": 90.0}))
    assert comparison.updates == {"CFM": 24}  # all of the time, so its own plan
    found = {}
    for name, part in (("copies", data.train), ("fresh", data.held_out)):
        np.save(tmp_path / "out" / "cfm.npy", part.inverse(part.x))
        found[name] = comparison.run()["rows"][1]
    assert found["copies"]["neighbour_ratio"] == 0 and found["fresh"]["neighbour_ratio"] == pytest.approx(1)
    assert (tmp_path / "out" / "samples.png").read_bytes()[1:4] == b"PNG"
    assert found["fresh"]["frechet"] == pytest.approx(0, abs=1e-9) and found["fresh"]["minutes"] == 1.5
    features = Classifier.fit(data.train.x, data.train.labels, images=True)
    expected = frechet_distance(features(data.train.x), features(data.held_out.x))
    assert found["copies"]["frechet"] == pytest.approx(expected, rel=1e-9) and expected > 0


def test_the_table_compares_with_the_first_entry_and_the_paper() -> None:
    made = {"evaluations": 50, "updates": 1234, "minutes": 5.0, "error": 0.125, "neighbour_ratio": 1.0}
    rows = [
        {"name": fashion.REAL, "frechet": 1.0, "error": 0.0625, "neighbour_ratio": 0.99},
        {"name": "CFM", "frechet": 8.0, "paper": 19.67, **made},
        {"name": "EFM-512", "frechet": 6.0, "paper": 16.85, **made},
        {"name": "OT-CFM", "frechet": 4.0, "paper": None, **made},
    ]
    assert fashion.table(rows).splitlines()[2:] == [
        "| real images | – | – | – | 1.00 ± 0.06 | 0.12 | 0.99 | – |",
        "| CFM | 50 | 1,234 | 5.00 | 8.00 ± 0.12 | 1.00 | 1.00 | 19.67 (1.00) |",
        "| EFM-512 | 50 | 1,234 | 5.00 | 6.00 ± 0.12 | 0.75 | 1.00 | 16.85 (0.86) |",
        "| OT-CFM | 50 | 1,234 | 5.00 | 4.00 ± 0.12 | 0.50 | 1.00 | – |",
    ]
    without = fashion.table([row | {"paper": None} for row in rows]).splitlines()
    assert "paper" not in without[0] and {line.count("|") for line in without} == {8}


def test_absent_fashion_mnist_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fashion, "FASHION_MNIST_FOLDERS", (tmp_path / "absent",))
    assert fashion.main([f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "make data" in error and not (tmp_path / "out").exists()


def _cifar(tmp_path: Path, *more: str) -> Any:
    arguments = [f"--out={tmp_path / 'cifar'}", "--precision=no", *more]
    return cifar10.parse(arguments if "--data" in "".join(more) else ["--data=cifar10:x", *arguments])


def test_the_papers_numbers(tmp_path: Path) -> None:
    config = cifar10.configure(_cifar(tmp_path, "--method=efm-1000"))
    expected = {
        "net": "unet-cifar10", "lr": 2e-4, "warmup": 5000, "schedule": "constant", "batch_size": 128, "ema": 0.9999,
        "steps": 500_000, "flip": True, "weight_decay": 0.0, "beta2": 0.999, "objective": "efm", "bank_size": 1000,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    banks = {name: changes.get("bank_size") for name, changes in cifar10.METHODS.items()}
    assert banks == {"cfm": None, "ot": None, "efm-128": 128, "efm-256": 256, "efm-1000": 1000}
    for count, batch in ((10, 10), (10_000, 128)):
        config = cifar10.configure(_cifar(tmp_path, f"--subset={count}"))
        assert (config.batch_size, config.steps, config.flip, config.held_out) == (batch, 50_000, False, 0)


def test_a_subset_is_the_first_images_as_they_are(images: Path, tmp_path: Path) -> None:
    train = fv.load_dataset(str(images)).train
    cifar10.write_subset(train, 7, tmp_path / "out" / "first.npz")
    found = fv.load_dataset(str(tmp_path / "out" / "first.npz"), held_out=0).train
    assert torch.equal(found.x, train.x[:7]) and found.labels.tolist() == train.labels[:7].tolist()
    for count in (1, 65):
        with pytest.raises(ValueError, match=f"--subset must be from 2 to the 64 training images, got {count}"):
            cifar10.write_subset(train, count, tmp_path / "bad.npz")


def test_without_weights_the_rest_is_done_and_what_is_missing_is_said(images: Path, tmp_path: Path) -> None:
    small = ("--width=8", "--depth=1", "--updates=2", "--samples=8", "--solver-steps=1", "--no-compile")
    options = _cifar(tmp_path, f"--data={_as_colour(images, tmp_path)}", "--subset=20", *small)
    result = cifar10.run(options, _silent)
    assert result["frechet"] == {} and "weights" in result["extractor"] and result["updates"] == 2
    assert cifar10.table(result).splitlines()[2].endswith("| – | – |")
    assert cifar10.run(options, _silent)["nearest"] == result["nearest"]  # the finished run is read


def _as_colour(images: Path, tmp_path: Path) -> Path:
    file, arrays = tmp_path / "colour.npz", np.load(images)
    np.savez(file, x=arrays["x"].repeat(3, 1).repeat(4, 2).repeat(4, 3), y=arrays["y"])
    return file


def test_bad_weights_are_refused_before_anything_is_done(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cifar"
    assert cifar10.main([f"--data={images}", f"--out={out}", f"--weights={tmp_path / 'absent.pth'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "absent.pth" in error and not out.exists()


def test_copies_are_at_distance_zero() -> None:
    x = torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = cifar10.nearest(x[:5], x[:8], x[8:], torch.device("cpu"))
    pairs = torch.cdist(x.flatten(1).double(), x[:8].flatten(1).double())
    own = pairs[:5] + torch.eye(5, 8) * 1e9
    assert found["samples"] == 0
    assert found["test"] == pytest.approx(float(pairs[8:].min(1).values.mean()), rel=1e-6)
    assert found["train"] == pytest.approx(float(own.min(1).values.mean()), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion", "cifar10"])
def test_without_arguments_it_runs_briefly_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| --- |") >= 1
    assert list((tmp_path / "here").iterdir()) == []
