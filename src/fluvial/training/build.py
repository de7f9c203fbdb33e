"""From a config to the path, the objective and the net; also used to rebuild them from a checkpoint."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fluvial.couplings import Coupling, Independent, OptimalTransport
from fluvial.data import Dataset
from fluvial.data.quoting import quoted
from fluvial.nn import ReferenceEncoder, Referring
from fluvial.nn.by_name import assemble
from fluvial.objectives import CFM, EFM, MaximumLikelihood, MeanFlow
from fluvial.paths import VP, CondOT, Cosine, GaussianPath
from fluvial.presets import PRESETS, NetOptions, net_options
from fluvial.training.config import TrainConfig
from fluvial.training.draws import weights_stream

_MOST_LEVELS = 32  # each halves the sides of the one before
REFERENCE_TOKEN = 64
"""Length of the tokens that reference images become."""


@dataclass(frozen=True)
class NetSpec:
    """What a net is built from.

    Args:
        shape: Shape of one datum.
        options: What it is made of.
        classes: Number of labels; None for a net without.
        embedding: Length of the embeddings; None for a net without.
        references: Whether it is conditioned on sets of images.
        gap: Whether it knows average velocities, as Mean Flows need it to.
        time_scale: Factor of times before their sines and cosines; None for the net's own.
    """

    shape: tuple[int, ...]
    options: NetOptions
    classes: int | None = None
    embedding: int | None = None
    references: bool = False
    gap: bool = False
    time_scale: float | None = None


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


def build_objective(config: TrainConfig, train: Dataset) -> CFM | EFM | MeanFlow | MaximumLikelihood:
    """The objective that a config names, for the given training data.

    With labels, optimal transport pairs within each class: across classes it would tie the noise to the
    label, and sampling draws the noise without looking at the label. Maximum likelihood adds uniform noise to grey
    levels, whose density would have no bound.
    """
    if config.objective == "likelihood":
        return MaximumLikelihood(
            config.likelihood_steps,
            config.likelihood_method,
            config.likelihood_adjoint,
            kinetic=config.likelihood_kinetic,
            jacobian=config.likelihood_jacobian,
            levels=train.levels,
        )
    path = build_path(config)
    if config.objective == "efm":
        return EFM(path, train, config.bank_size)
    coupling: Coupling = Independent()
    if config.coupling != "independent":
        coupling = OptimalTransport(within_labels=config.labels, across_ranks=config.coupling == "ot")
    if config.objective == "meanflow":
        return MeanFlow(
            path,
            coupling,
            share=config.mean_share,
            power=config.mean_power,
            omega=config.mean_omega,
            kappa=config.mean_kappa,
        )
    return CFM(path, coupling)


def net_spec(config: TrainConfig, train: Dataset, embedding: int | None = None) -> NetSpec:
    """What the net for the given training data is built from.

    Args:
        config: The config.
        train: Training data.
        embedding: Length of the embeddings that it is conditioned on, if there are any.

    Raises:
        ValueError: If the config asks for labels and the data have none, or for a net of images and they are none.
    """
    options = net_options(config.net_name, width=config.width, depth=config.depth, dropout=config.dropout)
    if options.kind != "mlp" and train.kind != "image":
        raise ValueError(
            f"net {config.net_name!r} needs images, and {config.data} has {train.kind} of shape {train.shape}"
        )
    classes = None
    if config.labels:
        if train.labels is None:
            raise ValueError(f"labels needs data with labels, and {config.data} has none")
        classes = max(len(train.class_names), int(train.labels.max()) + 1)
    gap, references = config.objective == "meanflow", config.reference_size is not None
    # Through a solver's coarse steps a net with fast waves in time learns to deceive the solver.
    time_scale = 1.0 if config.objective == "likelihood" else None
    return NetSpec(train.shape, options, classes, embedding, references, gap, time_scale)


def read_net_spec(values: Any, where: Path) -> NetSpec:
    """A net's description as a checkpoint's JSON holds it.

    Args:
        values: The JSON value.
        where: The checkpoint, for messages.

    Raises:
        ValueError: If it does not describe a net.
    """
    try:
        given = dict(values)
        lists = {key: tuple(value) for key, value in given["options"].items() if isinstance(value, list)}
        options = NetOptions(**{**given["options"], **lists})
        spec = NetSpec(**{**given, "shape": tuple(given["shape"]), "options": options})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{where} describes no net: {quoted(values, 200)}") from error
    options = spec.options
    sizes = [*spec.shape, options.width, options.depth, options.stem, options.patch or 1, *options.multipliers]
    sizes += [*(options.attention or ()), *(1 if size is None else size for size in (spec.classes, spec.embedding))]
    flags = type(spec.gap) is bool and type(spec.references) is bool and type(options.dropout) in (float, int)
    if not flags or not spec.shape or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"{where} describes no net: {quoted(values, 200)}")
    levels = len(options.multipliers)
    if levels > _MOST_LEVELS or len(options.attention or ()) > max(1, levels):  # attention names levels
        raise ValueError(f"{where} describes no net: {quoted(values, 200)}")
    try:
        TrainConfig(width=options.width, depth=options.depth).check_values()
    except ValueError as error:
        raise ValueError(f"{where} describes no net: {error}") from error
    scale = spec.time_scale
    if scale is not None and not (type(scale) in (float, int) and 0 < scale < math.inf):
        raise ValueError(f"{where} describes no net: {quoted(values, 200)}")
    if options.kind not in {preset.kind for preset in PRESETS.values()} or not 0 <= options.dropout < 1:
        raise ValueError(f"{where} describes no net: {quoted(values, 200)}")
    return spec


def build_net(spec: NetSpec, seed: int) -> nn.Module:
    """A net whose initial weights depend on the seed alone; torch's global generator is left as it was."""
    with weights_stream(seed):
        return _net(spec)


def _net(spec: NetSpec) -> nn.Module:
    tokens = REFERENCE_TOKEN if spec.references else None
    kinds = {"classes": spec.classes, "embedding": spec.embedding, "tokens": tokens}
    net = assemble(spec.options, spec.shape, **kinds, gap=spec.gap, time_scale=spec.time_scale)
    return Referring(net, ReferenceEncoder(spec.shape, REFERENCE_TOKEN)) if tokens else net
