"""Samples drawn while a net trains, so that one can watch it learn."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fluvial.data import Dataset, save_grid
from fluvial.randomness import noise
from fluvial.solvers import solve
from fluvial.training.toml import write_bytes

PREVIEW_COUNT = 64
PREVIEW_STEPS = 25


@torch.no_grad()
def write_preview(run: Path, net: nn.Module, train: Dataset, step: int, seed: int, *, write: bool = True) -> Path:
    """Draw samples from the same noise at every call and write them to ``run/samples/``.

    Images become a grid, ``step-00001000.png``; other data an array in their own units,
    ``step-00001000.npy``. Nets with labels are sampled without one.

    Args:
        run: The run folder.
        net: The averaged net, in evaluation mode.
        train: The data it is trained on.
        step: Updates made.
        seed: Seed of the noise.
        write: Whether to write the file: of several processes, all draw and one writes.

    Returns:
        The file, which is replaced in one step.

    Raises:
        OSError: If it cannot be written; an earlier one of that name is as it was.
    """
    device = next(net.parameters()).device
    x0 = noise(seed, 0, PREVIEW_COUNT, train.shape).to(device)
    x = solve(net, x0, steps=PREVIEW_STEPS, method="heun").x.cpu()
    folder = run / "samples"
    file = folder / f"step-{step:08d}.{'png' if train.kind == 'image' else 'npy'}"
    if not write:
        return file
    folder.mkdir(exist_ok=True)
    if train.kind == "image":
        save_grid(x, file)
    else:
        content = io.BytesIO()
        np.save(content, train.inverse(x))
        write_bytes(file, content.getvalue())
    return file
