"""Reading the folder of a meta-training: its config, its newest intact checkpoint, the net and the tasks behind it."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fluvial.kinds import checked
from fluvial.nn import SupportNet
from fluvial.paths import CondOT
from fluvial.support.config import SupportConfig, check_unchanged, read_config
from fluvial.support.state import build_net
from fluvial.support.tasks import Family
from fluvial.support.tasks.by_name import family_by_name
from fluvial.support.tasks.classes import Split
from fluvial.support.training import check_same_tasks
from fluvial.training.checkpoints import Checkpoint
from fluvial.training.claims import check_claims
from fluvial.training.config import CONFIG_FILE
from fluvial.training.recovery import read_newest, removal_told
from fluvial.training.weights import load_net


@dataclass(frozen=True)
class SupportRun:
    """A run folder of ``fluvial support train`` and its newest intact checkpoint.

    Args:
        folder: The run folder.
        config: What it was trained as.
        checkpoint: The newest intact checkpoint; its ``hash`` identifies the weights.
        dim: Dimension of the points.
    """

    folder: Path
    config: SupportConfig
    checkpoint: Checkpoint
    dim: int

    @property
    def step(self) -> int:
        """Updates made."""
        return self.checkpoint.step

    @property
    def path(self) -> CondOT:
        """The probability path that the net was trained on."""
        return CondOT(self.config.sigma_min)

    @cached_property
    def net(self) -> SupportNet:
        """The net with its averaged weights, on the CPU, in evaluation mode.

        Raises:
            ValueError: If the file of the weights is damaged, holds another net, or was removed since the run was
                read, as a training that goes on does with its old checkpoints.
        """
        config, dim = self.config, self.dim

        def make(blocks: int) -> SupportNet:
            return build_net(replace(config, blocks=blocks), dim)

        with removal_told(self.folder, self.checkpoint):
            check_claims(make, config.blocks, [dim, config.width], self.checkpoint, "ema")
            net = make(config.blocks)
            load_net(net, self.checkpoint, "ema")
        return net.eval().requires_grad_(False)

    def family(self, split: Split = "test") -> Family:
        """The tasks of the run; of real data, those of the classes of one split.

        Raises:
            ValueError: If the data are absent, or are not those of the training.
        """
        try:
            family = family_by_name(self.config.tasks, self.config.dim, m=self.config.m, split=split)
        except ValueError as error:
            recorded = f"{self.folder / CONFIG_FILE} says tasks = {self.config.tasks!r}"
            raise ValueError(f"the tasks of the run cannot be made: {recorded}: {error}") from error
        check_same_tasks(self.checkpoint.state.get("data_hash"), family, self.checkpoint.folder)
        return family


@checked
def load_support_run(folder: Path | str) -> SupportRun:
    """Read a run folder of ``fluvial support train``; weights are read when they are used.

    Args:
        folder: The run folder.

    Raises:
        ValueError: If it is no such run, or has no checkpoint yet, or none that is intact.
        OSError: If a checkpoint may not be read, or its disk has gone.

    Warns:
        DamagedCheckpoint: If a newer checkpoint is damaged; the newest that is intact is used.

    Example:
        >>> load_support_run("no/such/run")
        Traceback (most recent call last):
        ValueError: no/such/run is not a run folder: there is no such folder
    """
    folder = Path(folder)
    config = read_config(folder)
    checkpoint = read_newest(folder)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint yet; train it with --resume {folder}")
    newest = checkpoint.folder
    check_unchanged(config, checkpoint.state.get("config"), newest)
    dim = checkpoint.state.get("dim")
    if type(dim) is not int or dim < 1:
        raise ValueError(f"{newest} describes no net: its points have dimension {dim!r}")
    return SupportRun(folder, config, checkpoint, dim)
