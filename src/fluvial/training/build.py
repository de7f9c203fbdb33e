"""From a config to the path, the objective and the net; also used to rebuild them from a checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluvial.couplings import Independent, OptimalTransport
from fluvial.data import Dataset
from fluvial.nn import MLP
from fluvial.objectives import CFM, EFM, MeanFlow
from fluvial.paths import VP, CondOT, Cosine, GaussianPath
from fluvial.training.config import TrainConfig
from fluvial.training.draws import weights_stream


@dataclass(frozen=True)
class NetSpec:
    """What a net is built from.

    Args:
        shape: Shape of one datum.
        width: Width of the hidden layers.
        depth: Number of residual blocks.
        classes: Number of labels; None for a net without.
        gap: Whether it knows average velocities, as Mean Flows need it to.
    """

    shape: tuple[int, ...]
    width: int
    depth: int
    classes: int | None
    gap: bool = False


def build_path(config: TrainConfig) -> GaussianPath:
    """The probability path that a config names.

    Example:
        >>> from fluvial.training import TrainConfig
        >>> type(build_path(TrainConfig(path="vp"))).__name__
        'VP'
    """
    if config.path == "vp":
        return VP()
    return Cosine() if config.path == "cosine" else CondOT()


def build_objective(config: TrainConfig, train: Dataset) -> CFM | EFM | MeanFlow:
    """The objective that a config names, for the given training data.

    With labels, optimal transport pairs within each class: across classes it would tie the noise to the
    label, and sampling draws the noise without looking at the label.
    """
    path = build_path(config)
    if config.objective == "efm":
        return EFM(path, train, config.bank_size)
    coupling = OptimalTransport(within_labels=config.labels) if config.coupling == "ot" else Independent()
    if config.objective == "meanflow":
        return MeanFlow(path, coupling, share=config.mean_share, power=config.mean_power)
    return CFM(path, coupling)


def net_spec(config: TrainConfig, train: Dataset) -> NetSpec:
    """What the net for the given training data is built from.

    Raises:
        ValueError: If the config asks for labels and the data have none.
    """
    classes = None
    if config.labels:
        if train.labels is None:
            raise ValueError(f"labels needs data with labels, and {config.data} has none")
        classes = max(len(train.class_names), int(train.labels.max()) + 1)
    return NetSpec(train.shape, config.width, config.depth, classes, gap=config.objective == "meanflow")


def read_net_spec(values: Any, where: Path) -> NetSpec:
    """A net's description as a checkpoint's JSON holds it.

    Args:
        values: The JSON value.
        where: The checkpoint, for messages.

    Raises:
        ValueError: If it does not describe a net.
    """
    try:
        sides = tuple(values["shape"])
        spec = NetSpec(sides, values["width"], values["depth"], values["classes"], values.get("gap", False))
        sizes = [*spec.shape, spec.width, spec.depth, 1 if spec.classes is None else spec.classes]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where} describes no net: {values!r}") from error
    if type(spec.gap) is not bool or not spec.shape or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"{where} describes no net: {values!r}")
    return spec


def build_net(spec: NetSpec, seed: int) -> MLP:
    """A net whose initial weights depend on the seed alone; torch's global generator is left as it was."""
    with weights_stream(seed):
        return MLP(spec.shape, spec.width, spec.depth, classes=spec.classes, gap=spec.gap)
