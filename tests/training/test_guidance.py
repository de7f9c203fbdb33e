"""A class-conditional net on digits: guided samples are taken for the digit that was asked for."""

from pathlib import Path

import pytest
import torch

import fluvial as fv
from fluvial.metrics import ClassifierFeatures
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training import TrainConfig, Trainer


@pytest.mark.slow
def test_guided_digits_are_the_ones_asked_for(tmp_path: Path) -> None:
    data = fv.load_dataset("digits")
    assert data.train.labels is not None
    net = Trainer(TrainConfig(labels=True, steps=1500), tmp_path / "run").fit().net
    classifier = ClassifierFeatures.fit(data.train.x, data.train.labels)
    labels = torch.arange(10).repeat_interleave(50)

    def accuracy(scale: float) -> float:
        x, _ = draw_samples(fv.Guided(net, scale), 500, data.shape, solver=Solver("heun", 25), cond=labels)
        return classifier.accuracy(x.clamp(-1, 1), labels)

    assert accuracy(2.0) >= 0.98
    assert accuracy(0.0) < 0.2  # without the label, chance
