"""What one update changes: net, average, optimiser, running sums; and their way to a checkpoint and back."""

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fluvial.conditions import drop_conditions
from fluvial.data import Dataset
from fluvial.devices import to_device
from fluvial.objectives import Batch, Loss
from fluvial.randomness import RowGenerator
from fluvial.ranks import Ranks
from fluvial.training.build import NetSpec, build_net, build_objective
from fluvial.training.checkpoints import Checkpoint
from fluvial.training.conditions import condition_source, vectors_hash
from fluvial.training.config import TrainConfig
from fluvial.training.draws import data_order, dropout_stream, row_generator
from fluvial.training.ema import EMA
from fluvial.training.guard import Guard
from fluvial.training.means import Means, RunningMeans
from fluvial.training.schedule import learning_rate
from fluvial.training.sharding import divided_like, shard, whole_on_host
from fluvial.training.step import TrainStep
from fluvial.training.updates import Updates
from fluvial.training.weights import load_net


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
        ranks: The processes that train it.
        guard: What judges its updates.
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
        self.ranks = Ranks(accelerator.process_index, accelerator.num_processes, accelerator.device)
        self.spec, self.step = spec, 0
        self.net = build_net(spec, config.seed).to(accelerator.device)
        self.ema = EMA(self.net, config.ema)
        if config.shard:
            shard(self.net, self.ranks)
            shard(self.ema.net, self.ranks)
        self._updates = Updates(self.net, config, accelerator)
        objective = build_objective(config, train)
        self._logged = tuple(getattr(objective, "logged", ()))
        self._means = RunningMeans(config.lr, accelerator.device, self._logged)
        self.guard = Guard(config.spike, self.ranks, gradients=accelerator.scaler is None)
        self._source, self._vectors_hash = condition_source(config, train, vectors), vectors_hash(vectors)
        if config.compile:
            self.net.compile()  # in place: the names of the weights stay as they are
        step = TrainStep(self.net, objective, self._autocast)
        # What is divided needs no wrapper: its gradients are averaged where they are divided.
        self._forward = step if config.shard else accelerator.prepare(step)
        self._order = data_order(train, config)

    def _autocast(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def lr(self) -> float:
        """Learning rate of the next update."""
        config = self._config
        constant = config.schedule == "constant"
        return learning_rate(self.step, steps=config.steps, warmup=config.warmup, peak=config.lr, constant=constant)

    def update(self) -> None:
        """One update of the net and its average; none where the loss or its gradient is not finite, or the loss leaps.

        Nothing here reads a value back from the device. On CUDA, the objective's own draws are made on the CPU and
        copied without pinned memory, which waits for what is queued; with labels, EFM also lists those of the
        batch, once a step.
        """
        config, ranks = self._config, self.ranks
        generator = row_generator(config.seed, self.step, config.batch_size, ranks)
        batch = self._batch(generator)
        with dropout_stream(config.seed, self.step, ranks.index, self._accelerator.device):
            found = self._forward(batch, generator)
        loss, logs = self._of_all_ranks(found, len(batch))
        limit = self.guard.limit(self.step)
        norm = self._updates.gradients(found.loss, len(batch), loss > limit)
        skipped = self.guard.judge(self.step, loss, norm, found, limit)
        self._updates.step(self.lr(), skipped)
        self.ema.update(self.net, self.step)
        self._means.add(loss, norm, logs, skipped=skipped)
        self.step += 1

    def _batch(self, generator: RowGenerator) -> Batch:
        device = self._accelerator.device
        index = self._order.batch(self.step)[self.ranks.rows(self._config.batch_size)]
        x1, labels = self._train.take(index)
        cond, classes = None, None
        if self._source is not None:
            found = self._source(index, labels, generator=generator)
            cond = to_device(drop_conditions(found, self._config.drop_cond, generator=generator), device)
        if isinstance(cond, Tensor) and self.ranks.count > 1 and self._config.objective == "efm":
            classes = torch.unique(self.ranks.gather(cond, self._config.batch_size))
        return Batch(to_device(x1, device), cond, to_device(index, device), classes)

    def _of_all_ranks(self, found: Loss, rows: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and logs of the whole batch, detached: means over the rows of all processes."""
        loss = found.loss.detach()
        if self.ranks.count == 1:
            return loss, found.logs
        counts = torch.tensor([rows, *(found.counts.get(name, rows) for name in self._logged)], dtype=loss.dtype)
        counts = to_device(counts, loss.device)
        values = torch.stack([loss, *(found.logs[name] for name in self._logged)])
        sums, counts = self.ranks.sum(torch.stack([values * counts, counts]))
        mean, *logs = (sums / counts.clamp(min=1)).unbind()
        return mean, dict(zip(self._logged, logs, strict=True))

    def require_finite(self) -> None:
        """Look, and refuse to go on after a skipped update.

        Raises:
            ValueError: If the loss or a gradient was not finite.
        """
        for skipped in self.guard.look():
            skipped.warn()
            if not skipped.finite:
                raise ValueError(f"training diverged: {skipped}; try a smaller lr than {self._config.lr}")

    def means(self) -> Means:
        """Means since the last :meth:`take_means`; waits for the device.

        Raises:
            ValueError: If the loss is not finite.
        """
        return self._means.means(self.step)

    def take_means(self) -> Means:
        """:meth:`means`, after which the sums start anew."""
        return self._means.take(self.step)

    def roll_back(self, checkpoint: Checkpoint | None) -> None:
        """Take weights, average and moments from a checkpoint, or anew from the seed; steps and draws go on.

        The same draws would only lead to the same place once more.
        """
        if checkpoint is None:
            fresh = build_net(self.spec, self._config.seed).state_dict()
            groups = {"model": fresh, "ema": fresh, "optimizer": {}}
        else:
            groups = {name: checkpoint.tensors(name) for name in ("model", "ema", "optimizer")}
        for net, name in ((self.net, "model"), (self.ema.net, "ema")):
            expected = net.state_dict()
            net.load_state_dict({key: divided_like(value, expected[key]) for key, value in groups[name].items()})
        self._updates.load(groups["optimizer"])
        self.guard.broken = False

    def averaged_net(self) -> nn.Module:
        """The averaged net, in evaluation mode; whole, where it is divided among processes."""
        if not self._config.shard:
            return self.ema.net
        net = build_net(self.spec, self._config.seed).eval().requires_grad_(False)
        net.load_state_dict(whole_on_host(self.ema.net.state_dict()))
        return net

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds as safetensors; where weights are divided, the first process gathers them."""
        groups = {
            "model": self.net.state_dict(),
            "ema": self.ema.net.state_dict(),
            "optimizer": self._updates.tensors(),
        }
        if not self._config.shard:
            return groups
        return {name: whole_on_host(group, keep=self.ranks.first) for name, group in groups.items()}

    def values(self) -> dict[str, Any]:
        """What a checkpoint holds as JSON."""
        scaler = self._accelerator.scaler
        return {
            "net": dataclasses.asdict(self.spec),
            "vectors_hash": self._vectors_hash,
            **self._means.values(),
            "guard": self.guard.values(),
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
        self._updates.load(checkpoint.tensors("optimizer"))
        self._means.restore(checkpoint)
        self.guard.restore(checkpoint.state.get("guard"), checkpoint.folder)
        if self._accelerator.scaler is not None:
            try:
                self._accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise ValueError(f"{checkpoint.folder} holds no scaler: {error}") from error
        self.step = checkpoint.step
