"""What one update changes: net, average, optimiser, running sums; and their way to a checkpoint and back."""

import dataclasses
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fluvial.conditions import drop_conditions
from fluvial.data import Dataset
from fluvial.devices import to_device
from fluvial.objectives import Batch
from fluvial.training.build import NetSpec, build_net, build_objective
from fluvial.training.checkpoints import Checkpoint
from fluvial.training.conditions import condition_source, vectors_hash
from fluvial.training.config import TrainConfig
from fluvial.training.draws import DataOrder, dropout_stream, step_generator
from fluvial.training.ema import EMA
from fluvial.training.means import Means, RunningMeans
from fluvial.training.optimizer import load_optimizer_tensors, optimizer_tensors
from fluvial.training.schedule import learning_rate
from fluvial.training.step import TrainStep


class TrainState:
    """A net in training: ``update()`` makes one step.

    Args:
        config: The run's config.
        train: Training data.
        spec: What the net is built from.
        accelerator: Places the net on a device and runs it in the config's precision.
        vectors: Embeddings that the net is conditioned on, one for each training datum; None if it is not.

    Attributes:
        net: The net.
        ema: Its moving average.
        step: Updates made.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: Dataset,
        spec: NetSpec,
        accelerator: Accelerator,
        vectors: Tensor | None = None,
    ) -> None:
        self._config, self._train, self._accelerator = config, train, accelerator
        self.spec, self.step = spec, 0
        self.net = build_net(spec, config.seed).to(accelerator.device)
        self.ema = EMA(self.net, config.ema)
        self._names = [name for name, _ in self.net.named_parameters()]
        self._adamw = torch.optim.AdamW(
            self.net.parameters(), config.lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=True
        )
        objective = build_objective(config, train)
        self._means = RunningMeans(config.lr, accelerator.device, getattr(objective, "logged", ()))
        self._source, self._vectors_hash = condition_source(config, train, vectors), vectors_hash(vectors)
        if config.compile:
            self.net.compile()  # in place: the names of the weights stay as they are
        step = TrainStep(self.net, objective, self._autocast)
        self._forward, self._optimizer = accelerator.prepare(step, self._adamw)
        self._order = DataOrder(len(train), config.batch_size, config.seed)

    def _autocast(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def lr(self) -> float:
        """Learning rate of the next update."""
        config = self._config
        constant = config.schedule == "constant"
        return learning_rate(self.step, steps=config.steps, warmup=config.warmup, peak=config.lr, constant=constant)

    def update(self) -> None:
        """One update of the net and its average.

        Nothing here reads a value back from the device. On CUDA, the objective's own draws are made on the CPU and
        copied without pinned memory, which waits for what is queued; with labels, EFM also lists those of the
        batch, once a step.
        """
        config, accelerator = self._config, self._accelerator
        rank = accelerator.process_index
        generator = step_generator(config.seed, self.step, rank)
        batch = self._batch(generator)
        with dropout_stream(config.seed, self.step, rank, accelerator.device):
            found = self._forward(batch, generator)
        loss = found.loss
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(self.net.parameters(), config.clip or math.inf)
        for group in self._adamw.param_groups:
            group["lr"] = self.lr()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.ema.update(self.net, self.step)
        self._means.add(loss, norm, found.logs)
        self.step += 1

    def _batch(self, generator: torch.Generator) -> Batch:
        device = self._accelerator.device
        index = self._order.batch(self.step)
        x1, labels = self._train.take(index)
        cond = None
        if self._source is not None:
            found = self._source(index, labels, generator=generator)
            cond = to_device(drop_conditions(found, self._config.drop_cond, generator=generator), device)
        return Batch(to_device(x1, device), cond, to_device(index, device))

    def means(self) -> Means:
        """Means since the last :meth:`take_means`; waits for the device.

        Raises:
            ValueError: If the loss is not finite.
        """
        return self._means.means(self.step)

    def take_means(self) -> Means:
        """:meth:`means`, after which the sums start anew."""
        return self._means.take(self.step)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds as safetensors."""
        return {
            "model": self.net.state_dict(),
            "ema": self.ema.net.state_dict(),
            "optimizer": optimizer_tensors(self._adamw, self._names),
        }

    def values(self) -> dict[str, Any]:
        """What a checkpoint holds as JSON."""
        scaler = self._accelerator.scaler
        return {
            "net": dataclasses.asdict(self.spec),
            "vectors_hash": self._vectors_hash,
            **self._means.values(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: If its net is not this one, or a file is damaged.
        """
        if checkpoint.state.get("vectors_hash") != self._vectors_hash:
            raise ValueError(f"the captions have changed: {checkpoint.folder} was trained with others")
        load_net(self.net, checkpoint, "model")
        load_net(self.ema.net, checkpoint, "ema")
        load_optimizer_tensors(self._adamw, self._names, checkpoint.tensors("optimizer"))
        self._means.restore(checkpoint)
        if self._accelerator.scaler is not None:
            try:
                self._accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"{checkpoint.folder} holds no scaler: {error}") from error
        self.step = checkpoint.step


def load_net(net: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Load the weights ``"model"`` or ``"ema"`` of a checkpoint into a net.

    Raises:
        ValueError: If names or shapes differ; the first difference is named.
    """
    expected, given = net.state_dict(), checkpoint.tensors(name)
    difference = _difference(expected, given)
    if difference:
        raise ValueError(f"{checkpoint.folder} holds another net: {difference}")
    net.load_state_dict(given)


def _difference(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    for key in sorted(expected.keys() | given.keys()):
        if key not in given:
            return f"{key!r} is missing"
        if key not in expected:
            return f"{key!r} is not in this net"
        if given[key].shape != expected[key].shape or given[key].dtype != expected[key].dtype:
            return f"{key!r} is {_describe(given[key])} there and {_describe(expected[key])} here"
    return ""


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
