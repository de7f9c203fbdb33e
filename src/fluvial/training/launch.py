"""The device and the processes that a training runs on: one process, or as many as a launcher started."""

import torch
from accelerate import Accelerator

from fluvial.launchers import launched_processes, require_several
from fluvial.ranks import leave_at_exit, terminable_meeting
from fluvial.training.config import TrainConfig


def make_accelerator(config: TrainConfig, given: Accelerator | None = None) -> Accelerator:
    """Where a config is trained.

    Under ``accelerate launch`` or ``torchrun`` this waits for the other processes.

    Args:
        config: The config.
        given: What to train on; a new one by default.

    Raises:
        ValueError: If the config cannot be trained there.

    Example:
        >>> make_accelerator(TrainConfig()).num_processes
        1
    """
    precision = config.precision
    try:
        with terminable_meeting():
            accelerator = given or Accelerator(mixed_precision=precision, cpu=_on_cpu())
    except ValueError as error:  # Accelerate keeps the first precision of a process
        raise ValueError(f"precision {precision!r} cannot be used in this process: {error}") from error
    if given is None:
        leave_at_exit()
    if accelerator.mixed_precision != precision:
        raise ValueError(
            f"precision must be the accelerator's mixed_precision {accelerator.mixed_precision!r}, got {precision!r}"
        )
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("precision 'fp16' needs a GPU; use 'bf16' or 'no' on the CPU")
    ranks = accelerator.num_processes
    if config.batch_size < ranks:
        raise ValueError(f"batch_size must be at least the number of processes, {ranks}, got {config.batch_size}")
    if config.shard:
        require_several("shard", ranks)
    return accelerator


def _on_cpu() -> bool | None:
    """Accelerate takes several processes on the CPU only where it is told so."""
    return True if launched_processes() > 1 and not torch.accelerator.is_available() else None
