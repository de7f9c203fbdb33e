"""Reading a run folder: its config, its newest intact checkpoint, the net to sample with and the data behind it."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from fluvial.data import Dataset
from fluvial.data.labels import class_numbers
from fluvial.kinds import checked
from fluvial.paths import GaussianPath
from fluvial.training.build import NetSpec, build_net, build_path, read_net_spec
from fluvial.training.changes import check_unchanged
from fluvial.training.checkpoints import Checkpoint
from fluvial.training.claims import check_claims
from fluvial.training.config import CONFIG_FILE, TrainConfig, read_config
from fluvial.training.recovery import read_newest, removal_told
from fluvial.training.source import DataForm, check_same_data, load_source, read_data_form
from fluvial.training.weights import load_net


@dataclass(frozen=True)
class Run:
    """A run folder and its newest intact checkpoint.

    Args:
        folder: The run folder.
        config: What it was trained as.
        checkpoint: The newest intact checkpoint; its ``hash`` identifies the weights.
        net_spec: What the net is built from; ``net_spec.shape`` is the shape of one datum.
        data_hash: ``content_hash`` of the training data.
        data_form: What the training data are: name, kind, class names, units.
    """

    folder: Path
    config: TrainConfig
    checkpoint: Checkpoint
    net_spec: NetSpec
    data_hash: str
    data_form: DataForm

    @property
    def step(self) -> int:
        """Updates made."""
        return self.checkpoint.step

    @property
    def path(self) -> GaussianPath:
        """The probability path that the net was trained on."""
        return build_path(self.config)

    @property
    def left_out_classes(self) -> list[int]:
        """Numbers of the classes that it was trained without."""
        return class_numbers(self.config.without_classes, self.data_form.class_names)

    @cached_property
    def net(self) -> nn.Module:
        """The net with its averaged weights, on the CPU, in evaluation mode.

        Raises:
            ValueError: If the file of the weights is damaged, holds another net, or was removed since the run was
                read, as a training that goes on does with its old checkpoints.
        """
        spec, options = self.net_spec, self.net_spec.options
        sizes = [*spec.shape, options.stem, options.patch or 0, spec.classes or 0, spec.embedding or 0]
        sizes += [options.width * multiplier for multiplier in (1, *options.multipliers)]

        def make(depth: int) -> nn.Module:
            return build_net(replace(spec, options=replace(options, depth=depth)), self.config.seed)

        with removal_told(self.folder, self.checkpoint):
            check_claims(make, options.depth, sizes, self.checkpoint, "ema")
            net = make(options.depth)
            load_net(net, self.checkpoint, "ema")
        return net.eval().requires_grad_(False)

    def dataset(self) -> Dataset:
        """The data set, whose ``train`` is what the net was trained on.

        Raises:
            ValueError: If the data are absent, or are not those of the training.
        """
        try:
            data = load_source(self.config)
        except ValueError as error:
            recorded = f"{self.folder / CONFIG_FILE} says data = {self.config.data!r}"
            raise ValueError(f"the data of the run cannot be loaded: {recorded}: {error}") from error
        check_same_data(self.data_hash, data.train, self.checkpoint.folder)
        return data


@checked
def load_run(folder: Path | str) -> Run:
    """Read a run folder and the head of its newest intact checkpoint; weights and data are read when they are used.

    Args:
        folder: The run folder.

    Raises:
        ValueError: If it is not a run, has no checkpoint yet, or none that is intact, or config.toml now says
            something else than the training was done with.
        OSError: If a checkpoint may not be read, or its disk has gone.

    Warns:
        DamagedCheckpoint: If a newer checkpoint is damaged; the newest that is intact is used.

    Example:
        >>> load_run("no/such/run")
        Traceback (most recent call last):
        ValueError: no/such/run is not a run folder: there is no such folder
    """
    folder = Path(folder)
    config = read_config(folder)
    checkpoint = read_newest(folder)
    if checkpoint is None:
        raise ValueError(f"{folder} has no checkpoint yet; train it with --resume {folder}")
    newest = checkpoint.folder
    spec, data_hash = checkpoint.state.get("net"), checkpoint.state.get("data_hash")
    if not isinstance(data_hash, str):
        raise ValueError(f"{newest} does not say which data it was trained on")
    check_unchanged(config, checkpoint.state.get("config"), newest)
    form = read_data_form(checkpoint.state.get("data"), newest)
    return Run(folder, config, checkpoint, read_net_spec(spec, newest), data_hash, form)
