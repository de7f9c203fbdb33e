"""Running means: what is added is what comes out, a training that diverged is told, and a checkpoint keeps the sums."""

import math
from pathlib import Path

import pytest
import torch

from fluvial.training.checkpoints import Checkpoint
from fluvial.training.means import RunningMeans


def filled(**options: bool) -> RunningMeans:
    means = RunningMeans(0.1, "cpu", ("share",), **options)
    for value in (1.0, 2.0, 6.0):
        means.add(torch.tensor(value), torch.tensor(2 * value), {"share": torch.tensor(0.5 * value)})
    return means


def test_means_are_those_since_they_were_last_taken() -> None:
    means = filled()
    found = means.take(step=3)
    assert (found.loss, found.grad_norm, found.logs) == (3.0, 6.0, {"share": 1.5})
    means.add(torch.tensor(7.0), torch.tensor(1.0), {"share": torch.tensor(0.0)})
    assert means.means(step=4).loss == 7.0


def test_sums_survive_a_checkpoint() -> None:
    means, other = filled(), RunningMeans(0.1, "cpu", ("share",))
    other.restore(Checkpoint(Path("c"), 3, means.values(), ""))
    assert other.take(step=3) == means.take(step=3)
    with pytest.raises(ValueError, match="c holds no running sums: there are 3 sums, and 2 are kept"):
        RunningMeans(0.1, "cpu").restore(Checkpoint(Path("c"), 3, filled().values(), ""))


def test_a_training_that_diverged_is_told() -> None:
    means = filled()
    means.add(torch.tensor(math.nan), torch.tensor(1.0), {"share": torch.tensor(0.0)})
    with pytest.raises(ValueError, match=r"the loss is nan at step 4: training diverged; .* smaller lr than 0\.1"):
        means.means(step=4)
    for gradients in (False, True):
        means = filled(gradients=gradients)
        means.add(torch.tensor(1.0), torch.tensor(math.inf), {"share": torch.tensor(0.0)})
        if gradients:
            with pytest.raises(ValueError, match="the norm of the gradient is inf at step 4"):
                means.means(step=4)
        else:  # a scaler of fp16 skips such updates
            assert means.means(step=4).loss == 2.5
