"""AdamW on the weights of a net, in one process or several: gradients, and steps that the device itself can skip."""

import math
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fluvial.training.config import TrainConfig
from fluvial.training.optimizer import load_optimizer_tensors, optimizer_tensors
from fluvial.training.sharding import whole


class Updates:
    """Updates of a net.

    Args:
        net: The net, on its device; divided among processes already where the config says so.
        config: The run's config.
        accelerator: Scales gradients of fp16, and knows the processes.
    """

    def __init__(self, net: nn.Module, config: TrainConfig, accelerator: Accelerator) -> None:
        self._net, self._config, self._accelerator = net, config, accelerator
        self._names = [name for name, _ in net.named_parameters()]
        self._adamw = torch.optim.AdamW(
            net.parameters(), config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
        )
        self._optimizer = self._adamw if config.shard else accelerator.prepare(self._adamw)

    def gradients(self, loss: Tensor, rows: int, spoilt: Tensor) -> Tensor:
        """Gradients of the whole batch's loss, clipped; returns their norm before clipping.

        Args:
            loss: Mean loss of this process's rows.
            rows: Their number.
            spoilt: Whether the update is to be skipped whatever the gradients are; a boolean on the device.
        """
        if self._accelerator.scaler is not None:  # which skips what is not finite, and asks nobody else
            loss = torch.where(spoilt, math.nan, loss)
        # Gradients are averaged over processes, whose rows differ in number where the batch cannot be divided.
        share = rows * self._accelerator.num_processes / self._config.batch_size
        loss = loss if share == 1 else loss * share
        clip = self._config.clip or math.inf
        if self._config.shard:
            loss.backward()
            return whole(nn.utils.clip_grad_norm_(self._net.parameters(), clip))
        self._accelerator.backward(loss)
        norm: Tensor = self._accelerator.clip_grad_norm_(self._net.parameters(), clip)
        return norm

    def step(self, lr: float, skipped: Tensor) -> None:
        """Move the weights along the gradients; not where ``skipped`` is 1, without the host knowing."""
        for group in self._adamw.param_groups:
            group["lr"] = lr
        if self._accelerator.scaler is None:
            skip_next_step(self._adamw, skipped)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """The optimiser's moments and counts, by name."""
        return optimizer_tensors(self._adamw, self._names)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put those of :meth:`tensors` back; none at all stand for no update yet.

        Raises:
            ValueError: If they are not those of this net.
        """
        load_optimizer_tensors(self._adamw, self._names, tensors)


def skip_next_step(adamw: torch.optim.AdamW, skipped: Tensor) -> None:
    """Where ``skipped`` is 1, a float32 on the device, fused AdamW leaves weights, moments and count as they are.

    It is the flag by which a scaler of gradients tells that one is not finite.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> adamw = torch.optim.AdamW([weight], lr=0.5, weight_decay=0.0, fused=True)
        >>> for skipped in (1.0, 0.0):
        ...     weight.grad = torch.ones(1)
        ...     skip_next_step(adamw, torch.tensor(skipped))
        ...     adamw.step()
        ...     print(f"{weight.item():.3f}")
        1.000
        0.500
    """
    vars(adamw).update(found_inf=skipped, grad_scale=None)
