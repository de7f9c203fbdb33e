"""How far the losses of healthy trainings lie above the median of the 64 before, in median absolute deviations.

What this prints is what ``--spike`` must stay well above. Three minutes on one core.

    python benchmarks/loss_leaps.py
"""

from typing import Any

import torch
from accelerate import Accelerator

import fluvial as fv
from fluvial.training import TrainConfig
from fluvial.training.build import net_spec
from fluvial.training.guard import WINDOW
from fluvial.training.state import TrainState

TRAININGS: list[dict[str, Any]] = [
    {"data": "digits"},
    {"data": "digits", "batch_size": 16},
    {"data": "digits", "objective": "efm", "batch_size": 32},
    {"data": "digits", "objective": "meanflow", "batch_size": 64},
    {"data": "digits", "objective": "meanflow", "batch_size": 8},
    {"data": "moons", "objective": "likelihood", "batch_size": 64, "steps": 400},
    {"data": "moons", "batch_size": 4},
    {"data": "moons", "objective": "meanflow", "batch_size": 4},
]


def leaps(config: TrainConfig) -> torch.Tensor:
    """Height of each loss after the first 64, in deviations."""
    train = fv.load_dataset(config.data).train
    state = TrainState(config, train, net_spec(config, train), Accelerator())
    losses = []
    for _ in range(config.steps):
        state.update()
        losses.append(state.take_means().loss)
        state.require_finite()
    before = torch.tensor(losses).unfold(0, WINDOW, 1)[:-1]
    centre = before.median(1, keepdim=True).values
    spread = (before - centre).abs().median(1).values
    return (torch.tensor(losses[WINDOW:]) - centre[:, 0]) / spread


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'training':<62}{'largest':>8}{'99 %':>8}")
    for changes in TRAININGS:
        settings = {"steps": 1500, "width": 64, "depth": 2, "spike": 0.0, **changes}
        found = leaps(TrainConfig(**settings))
        name = ", ".join(f"{key} {value}" for key, value in changes.items())
        print(f"{name:<62}{found.max():>8.1f}{found.quantile(0.99):>8.1f}", flush=True)


if __name__ == "__main__":
    main()
