"""Samples drawn while a net trains, so that one can watch it learn."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from fluvial.data import Dataset, save_grid
from fluvial.randomness import noise
from fluvial.solvers import solve

PREVIEW_COUNT = 64
PREVIEW_STEPS = 25


@torch.no_grad()
def write_preview(run: Path, net: nn.Module, train: Dataset, step: int, seed: int) -> Path:
    """Draw samples from the same noise at every call and write them to ``run/samples/``.

    Images become a grid, ``step-00001000.png``; other data an array in their own units,
    ``step-00001000.npy``. Nets with labels are sampled without one.

    Args:
        run: The run folder.
        net: The averaged net, in evaluation mode.
        train: The data it is trained on.
        step: Updates made.
        seed: Seed of the noise.

    Returns:
        The file.
    """
    device = next(net.parameters()).device
    x0 = noise(seed, 0, PREVIEW_COUNT, train.shape).to(device)
    x = solve(net, x0, steps=PREVIEW_STEPS, method="heun").x.cpu()
    folder = run / "samples"
    folder.mkdir(exist_ok=True)
    file = folder / f"step-{step:08d}.{'png' if train.kind == 'image' else 'npy'}"
    if train.kind == "image":
        save_grid(x, file)
    else:
        np.save(file, train.inverse(x))
    return file
