"""What `fluvial info` says is what the run holds."""

import json
import shutil

from safetensors.torch import load_file

from fluvial.training import load_run


def test_table(fluvial, digits_run):
    outcome = fluvial("info", digits_run)
    parameters = sum(p.numel() for p in load_run(digits_run).net.parameters())
    for text in ("digits", "cfm", f"{parameters:,} parameters", "4 of 4", "step-00000004", "finished"):
        assert text in outcome.out


def test_json(fluvial, digits_run):
    values = json.loads(fluvial("info", digits_run, "--json").out)
    run = load_run(digits_run)
    assert values["parameters"] == sum(p.numel() for p in load_file(run.checkpoint.folder / "ema.safetensors").values())
    assert values["checkpoint_hash"] == run.checkpoint.hash and values["finished"]
    assert values["last_loss"]["loss"] > 0
    assert values["bytes"] == sum(f.stat().st_size for f in digits_run.rglob("*") if f.is_file())


def test_run_without_a_checkpoint_is_resumable(fluvial, moons_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(moons_run, run)
    shutil.rmtree(run / "checkpoints")
    outcome = fluvial("info", run)
    assert "no checkpoint yet" in outcome.out and "--resume" in outcome.out and "0 of 4" in outcome.out
