"""Options of the optimiser and of compilation reach the training; one run each, beside the plain one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluvial.training import TrainConfig, Trainer

Make = Callable[..., TrainConfig]


@pytest.mark.parametrize("change", [{"schedule": "constant"}, {"beta2": 0.999}, {"weight_decay": 0.5}])
def test_options_change_the_weights(change: dict[str, object], tiny: Make, tmp_path: Path) -> None:
    plain = Trainer(tiny(), tmp_path / "plain").fit()
    other = Trainer(tiny(**change), tmp_path / "other").fit()
    pairs = zip(plain.net.parameters(), other.net.parameters(), strict=True)
    assert not all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["cfm", "meanflow"])
def test_a_compiled_run_is_the_plain_one_and_resumes(objective: str, tmp_path: Path) -> None:
    """In processes of their own: the checks of annotations in the tests are not for the compiler."""

    def fluvial(*arguments: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "fluvial", *arguments], check=True, env=environment, capture_output=True)

    def weights(run: str) -> dict[str, torch.Tensor]:
        return load_file(tmp_path / run / "checkpoints" / "step-00000006" / "model.safetensors")

    options = ["--objective", objective, "--steps", "6", "--width", "16", "--depth", "1", "--batch-size", "32"]
    fluvial("train", *options, "--out", str(tmp_path / "plain"))
    fluvial("train", *options, "--compile", "--checkpoint-every", "3", "--out", str(tmp_path / "compiled"))
    plain, compiled = weights("plain"), weights("compiled")
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)
    last = tmp_path / "compiled" / "checkpoints" / "step-00000006"
    last.rename(last.with_name(".partial-step-00000006"))
    fluvial("train", "--resume", str(tmp_path / "compiled"))
    assert all(torch.equal(value, compiled[name]) for name, value in weights("compiled").items())
