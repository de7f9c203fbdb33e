"""What a training run is made of, as one flat table of scalars; imports no torch.

A run's ``config.toml`` holds the fields of :class:`TrainConfig`, the version of fluvial that wrote it (the
key ``fluvial`` also marks the folder as a run) and the hash of the training data.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluvial import __version__
from fluvial.data.homes import expanded
from fluvial.training.settings import check_settings, check_types
from fluvial.training.toml import check_keys, dump_toml, read_toml, write_text

CONFIG_FILE = "config.toml"


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Example:
        >>> TrainConfig(data="moons", steps=500).validate()
        >>> TrainConfig(objective="cfn").validate()
        Traceback (most recent call last):
        ValueError: objective must be one of cfm, efm, meanflow, likelihood, got 'cfn'; did you mean 'cfm'?
    """

    data: str = "digits"
    """Data set: a name such as digits or moons, a file (x.npy, x.npz, table.csv), or folder:PATH."""
    size: int | None = None
    """Side length in pixels that images are cropped and resized to."""
    stream: bool | None = None
    """Leave the data in their files and read each batch when its turn comes; by default where they would take more than
    a quarter of the memory."""
    held_out: int | float | None = None
    """Data kept out of training, as a count or a share; the data set's own split by default."""
    objective: str = "cfm"
    """What the net is trained on: cfm (conditional), efm (empirical), meanflow (which samples in one step), or
    likelihood (of the data, by a solver; slow)."""
    path: str = "condot"
    """Probability path from noise to data: condot, vp or cosine."""
    coupling: str = "independent"
    """Which noise meets which datum: independent, ot (optimal transport within the batch; not efm), or ot-rank (within
    the rows of each process)."""
    bank_size: int = 256
    """Data that efm averages the velocity over, for each batch."""
    mean_share: float = 0.5
    """Share of each batch that meanflow regresses on average velocities; on the rest it is cfm."""
    mean_power: float = 0.0
    """Exponent of meanflow's adaptive weight; 0 is the plain regression."""
    mean_omega: float = 1.0
    """Guidance in meanflow's target: weight of the data's velocity; the guidance scale is omega / (1 - kappa)."""
    mean_kappa: float = 0.0
    """Weight of the net's own conditional velocity there, in [0, 1)."""
    likelihood_steps: int = 8
    """Steps of the solver by which likelihood carries the data back to noise."""
    likelihood_method: str = "rk4"
    """Method of that solver: euler, midpoint, heun or rk4."""
    likelihood_adjoint: bool = False
    """Keep the memory of one step, not of all, and evaluate each once more for the same gradient."""
    likelihood_kinetic: float = 0.0
    """Weight of the kinetic energy per dimension, which makes likelihood's trajectories short; try 0.01."""
    likelihood_jacobian: float = 0.0
    """Weight of the squared norm of the Jacobian per dimension, which makes them simple; try 0.01."""
    flip: bool = False
    """Train on each image and its mirror image."""
    without_classes: str = ""
    """Classes left out of the data, by name or number, with commas between them; such as new ones for --reference."""
    labels: bool = False
    """Condition the net on the labels of the data."""
    captions: str = ""
    """Condition the net on captions of the images of folder:PATH: a CSV file with the header file,caption."""
    encoder: str = "all-MiniLM-L6-v2"
    """Makes vectors of captions: that of the extra 'text', a folder with a CLIP text model, or hub:OWNER/NAME."""
    reference_size: int | None = None
    """Condition the net on this many other images of the datum's class, so that it draws new classes from a few."""
    reference_near: int | None = None
    """Draw the references among this many nearest of the class (0: all of it); 4 for each reference by default."""
    drop_cond: float = 0.1
    """Share of conditions dropped, so that the net also learns to do without them, as guidance needs."""
    net: str | None = None
    """Preset: mlp, or for images unet, dit, unet-cifar10 or dit-b; mlp by default, but unet with reference_size."""
    width: int | None = None
    """Width of the net's layers (of a unet: its first level), a multiple of 8; the net's own by default."""
    depth: int | None = None
    """Number of residual blocks (of a unet: in each level); the net's own by default."""
    dropout: float | None = None
    """Share of features dropped in training; the net's own by default."""
    steps: int = 2000
    """Number of updates."""
    batch_size: int = 256
    """Data per update."""
    lr: float = 3e-3
    """Peak learning rate of AdamW."""
    warmup: int = 100
    """Updates over which the learning rate rises, at most half of all."""
    schedule: str = "linear"
    """What follows: linear, a fall to 0 at the last update, or constant."""
    beta2: float = 0.95
    """Decay of AdamW's mean of squared gradients."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    on_nan: str = "stop"
    """What follows a loss or gradient that is not finite, whose update is never made: stop, skip (go on), or rollback
    (to the last checkpoint, with new draws)."""
    spike: float = 100.0
    """Skip the update of a loss this many median deviations above the median of the last 64; 0 skips none."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which samples are drawn with; it warms up from 0.1."""
    precision: str = "no"
    """Autocast of the net: no (float32), bf16, or fp16 (GPU only)."""
    shard: bool = False
    """Divide weights, average and optimiser among the processes (FSDP2; cfm and efm); otherwise each has all (DDP)."""
    compile: bool = False
    """Compile the net, which takes a minute or two and then makes it faster."""
    seed: int = 0
    """Seed of the split, the initial weights, the data order and every draw."""
    log_every: int = 10
    """Updates between lines of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Updates between checkpoints; the last update always makes one."""
    keep: int = 3
    """Number of checkpoints kept."""
    sample_every: int = 0
    """Updates between samples written to samples/; 0 writes none."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the extra: fluvial[track])."""

    @property
    def net_name(self) -> str:
        """Name of the net's preset."""
        return self.net or ("unet" if self.reference_size else "mlp")

    def validate(self) -> None:
        """Check every field, and that the data can be found.

        Raises:
            TypeError: If a field has the wrong type.
            ValueError: If a field has a value that cannot be trained with.
        """
        from fluvial.data.looks import check_look

        self.check_values()
        check_look(self.data)
        if self.captions:
            from fluvial.data.captions import read_captions
            from fluvial.data.text import require_encoder

            read_captions(expanded(self.captions), expanded(self.data.partition(":")[2]))
            require_encoder(self.encoder)

    def check_values(self) -> None:
        """Check every field without looking at the disk: a run can be read where its data is absent.

        Raises:
            TypeError: If a field has the wrong type.
            ValueError: If a field has a value that cannot be trained with.
        """
        check_types(dataclasses.asdict(self), _KINDS)
        check_settings(self)


_KINDS = {field.name: field.type for field in dataclasses.fields(TrainConfig)}


def write_config(config: TrainConfig, run: Path, *, data_hash: str | None = None) -> None:
    """Write ``run/config.toml``, replacing it in one step.

    Args:
        config: What to write.
        run: An existing run folder.
        data_hash: ``content_hash`` of the training data.
    """
    values = {"fluvial": __version__, **dataclasses.asdict(config), "data_hash": data_hash}
    write_text(run / CONFIG_FILE, dump_toml(values))


def read_config(run: Path) -> TrainConfig:
    """Read the config of a run folder.

    Raises:
        ValueError: If the folder is not a run, or its config cannot be used.
    """
    values = read_run_table(run)
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    check_keys(values, {"fluvial", "data_hash", *names}, run / CONFIG_FILE)
    given = {name: values[name] for name in names if name in values}
    try:
        check_types(given, _KINDS)
        config = TrainConfig(**given)
        config.check_values()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{run / CONFIG_FILE}: {error}") from error
    return config


def read_run_table(run: Path) -> dict[str, Any]:
    """All keys of ``run/config.toml``, once it is known to be fluvial's.

    Raises:
        ValueError: If the folder or the file is missing, unreadable or not fluvial's.
    """
    values = read_toml(run / CONFIG_FILE)
    if values.get("command") == "support" and "fluvial" in values:
        raise ValueError(f"{run} is a run of fluvial support train: see fluvial support --help for what reads it")
    # Other programs may have a key or a table of that name.
    if not all(isinstance(values.get(key), str) for key in ("fluvial", "data", "objective")):
        raise ValueError(
            f"{run} is not a run folder: {CONFIG_FILE} was not written by fluvial (no text under the keys "
            "fluvial, data and objective)"
        )
    return values
