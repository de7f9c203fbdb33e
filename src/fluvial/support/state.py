"""What one update of meta-training changes: net, average, optimiser, running sums; and their way to a checkpoint."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from fluvial.devices import to_device
from fluvial.nn import SupportNet
from fluvial.paths import CondOT
from fluvial.support.config import SupportConfig
from fluvial.support.kernel.attention import KernelAttention
from fluvial.support.tasks import Family
from fluvial.training.checkpoints import Checkpoint
from fluvial.training.draws import step_generator, weights_stream
from fluvial.training.ema import EMA
from fluvial.training.means import Means, RunningMeans
from fluvial.training.optimizer import load_optimizer_tensors, optimizer_tensors
from fluvial.training.schedule import learning_rate
from fluvial.training.updates import skip_next_step
from fluvial.training.weights import load_net

WARMUP = 100


def build_net(config: SupportConfig, dim: int) -> SupportNet:
    """The net that a config describes, whose initial weights depend on the seed alone."""
    path = CondOT(config.sigma_min)
    head = KernelAttention(path) if config.exact_head else None
    with weights_stream(config.seed):
        return SupportNet(dim, config.width, config.blocks, config.heads, head=head, path=path)


@dataclasses.dataclass(frozen=True)
class MetaBatch:
    """What one update is made of.

    Args:
        xt: Points on the paths of ``B`` tasks, shape ``(B, n, d)``.
        t: Their times, shape ``(B, n)``.
        target: Velocities to regress on, like ``xt``.
        support: Examples of each task, shape ``(B, m, d)``.
    """

    xt: Tensor
    t: Tensor
    target: Tensor
    support: Tensor


class MetaState:
    """A net in meta-training: ``update()`` makes one step on fresh tasks.

    The regression target of a point is the exact field of ``bank`` points of its own task, among them the datum that
    the point was made from: Empirical Flow Matching within each task. It has the same mean as the conditional
    velocity, hence the same optimum, and less variance.

    Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", algorithm 2, for the target.

    Args:
        config: The run's config.
        family: Where the tasks come from.
        device: Where the net computes.

    Attributes:
        net: The net.
        ema: Its moving average.
        step: Updates made.
    """

    def __init__(self, config: SupportConfig, family: Family, device: torch.device | str = "cpu") -> None:
        self._config, self._family, self._device = config, family, torch.device(device)
        self.step = 0
        self.net = build_net(config, family.dim).to(self._device)
        self.ema = EMA(self.net, config.ema)
        self._names = [name for name, _ in self.net.named_parameters()]
        self._adamw = torch.optim.AdamW(
            self.net.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
        self._path = CondOT(config.sigma_min)
        self._exact = KernelAttention(self._path)
        self._means = RunningMeans(config.lr, self._device, gradients=True)

    def lr(self) -> float:
        """Learning rate of the next update."""
        return learning_rate(self.step, steps=self._config.steps, warmup=WARMUP, peak=self._config.lr)

    def update(self) -> None:
        """One update of the net and its average, on tasks that the seed and the step alone decide."""
        loss = self._loss(step_generator(self._config.seed, self.step))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self._config.clip or math.inf)
        for group in self._adamw.param_groups:
            group["lr"] = self.lr()
        # No update is made from what is not finite, which the next means tell.
        skip_next_step(self._adamw, (~torch.isfinite(loss.detach() + norm)).float())
        self._adamw.step()
        self._adamw.zero_grad()
        self.ema.update(self.net, self.step)
        self._means.add(loss, norm)
        self.step += 1

    def _loss(self, generator: torch.Generator) -> Tensor:
        batch = self.draw(generator)
        with torch.no_grad():  # small tasks and late times count as much as large and early ones
            gain = self.net.gain(batch.t, batch.support)[..., None]
        error: Tensor = self.net(batch.xt, batch.t, batch.support) - batch.target
        return (error / gain).square().mean()

    def draw(self, generator: torch.Generator) -> MetaBatch:
        """Fresh tasks with points on their paths, on the net's device; all draws come from ``generator``."""
        config = self._config
        size, targets = self._support_size(generator), max(config.points, config.bank)
        tasks = self._family.batch(config.batch_size, size, targets, generator)
        noise = torch.randn(config.batch_size, config.points, self._family.dim, generator=generator)
        times = torch.rand(noise.shape[:2], generator=generator)
        x0, t, support, bank = (to_device(part, self._device) for part in (noise, times, tasks.support, tasks.targets))
        x1, at = bank[:, : config.points], t[..., None]
        xt = self._path.alpha(at) * x1 + self._path.sigma(at) * x0
        if config.bank == 1:
            return MetaBatch(xt, t, self._path.alpha_dot(at) * x1 + self._path.sigma_dot(at) * x0, support)
        return MetaBatch(xt, t, self._exact(xt, t, bank), support)

    def _support_size(self, generator: torch.Generator) -> int:
        config = self._config
        if config.least_m is None:
            return config.m
        low, high = math.log(config.least_m), math.log(config.m + 1)
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        return min(config.m, int(math.exp(low + (high - low) * share)))

    def means(self) -> Means:
        """Means since the last :meth:`take_means`; waits for the device.

        Raises:
            ValueError: If the loss or the gradient is not finite.
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
        return self._means.values()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: If its net is not this one, or a file is damaged.
        """
        load_net(self.net, checkpoint, "model")
        load_net(self.ema.net, checkpoint, "ema")
        load_optimizer_tensors(self._adamw, self._names, checkpoint.tensors("optimizer"))
        self._means.restore(checkpoint)
        self.step = checkpoint.step
