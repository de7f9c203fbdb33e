"""What a training run is made of, as one flat table of scalars; imports no torch.

A run's ``config.toml`` holds the fields of :class:`TrainConfig`, the version of fluvial that wrote it (the
key ``fluvial`` also marks the folder as a run) and the hash of the training data.
"""

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluvial import __version__
from fluvial.presets import PRESETS
from fluvial.training.toml import dump_toml, write_text

CONFIG_FILE = "config.toml"
OBJECTIVES = ("cfm", "efm", "meanflow")
PATHS = ("condot", "vp", "cosine")
COUPLINGS = ("independent", "ot")
PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("linear", "constant")
# Beyond these nothing can be trained; a slip of the keyboard would only run out of time or memory.
_COUNTS = (
    "size",
    "bank_size",
    "reference_size",
    "width",
    "depth",
    "steps",
    "batch_size",
    "log_every",
    "checkpoint_every",
    "keep",
)
LARGEST = {
    "reference_size": 1000,
    "reference_near": 1000,
    "size": 8192,
    "width": 65_536,
    "depth": 1000,
    "batch_size": 1_000_000,
}


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Example:
        >>> TrainConfig(data="moons", steps=500).validate()
        >>> TrainConfig(objective="cfn").validate()
        Traceback (most recent call last):
        ValueError: objective must be one of cfm, efm, meanflow, got 'cfn'; did you mean 'cfm'?
    """

    data: str = "digits"
    """Data set: a name such as digits or moons, a file (x.npy, x.npz, table.csv), or folder:PATH."""
    size: int | None = None
    """Side length in pixels that images are cropped and resized to."""
    held_out: int | float | None = None
    """Data kept out of training, as a count or a share; the data set's own split by default."""
    objective: str = "cfm"
    """What the net is regressed on: cfm (conditional), efm (empirical) or meanflow (which samples in one step)."""
    path: str = "condot"
    """Probability path from noise to data: condot, vp or cosine."""
    coupling: str = "independent"
    """Which noise meets which datum: independent, or ot (optimal transport within the batch; not efm)."""
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
    ema: float = 0.999
    """Decay of the moving average of the weights, which samples are drawn with; it warms up from 0.1."""
    precision: str = "no"
    """Autocast of the net: no (float32), bf16, or fp16 (GPU only)."""
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
        from fluvial.data.specs import parse_spec

        self.check_values()
        parse_spec(self.data)
        if self.captions:
            from fluvial.data.captions import read_captions
            from fluvial.data.text import require_encoder

            read_captions(Path(self.captions).expanduser(), Path(self.data.partition(":")[2]).expanduser())
            require_encoder(self.encoder)

    def check_values(self) -> None:
        """Check every field without looking at the disk: a run can be read where its data is absent.

        Raises:
            TypeError: If a field has the wrong type.
            ValueError: If a field has a value that cannot be trained with.
        """
        _check_types(dataclasses.asdict(self))
        _check_names(self)
        for name in _COUNTS:
            value, largest = getattr(self, name), LARGEST.get(name, math.inf)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
            if value is not None and value > largest:
                raise ValueError(f"{name} must be at most {largest}, got {value}")
        if self.width is not None and self.width % 8:
            raise ValueError(f"width must be a multiple of 8, got {self.width}")
        if not 0 <= self.mean_share <= 1:
            raise ValueError(f"mean_share must be in [0, 1], got {self.mean_share}")
        for name in ("warmup", "seed", "sample_every", "weight_decay", "clip", "mean_power"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                expected = "finite and not negative" if isinstance(value, float) else "at least 0"
                raise ValueError(f"{name} must be {expected}, got {value}")
        if not abs(self.mean_omega) < math.inf:
            raise ValueError(f"mean_omega must be finite, got {self.mean_omega}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, got {self.lr}")
        for name in ("ema", "drop_cond", "beta2", "dropout", "mean_kappa"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.dropout and PRESETS[self.net_name].kind == "mlp":
            raise ValueError(f"dropout needs net unet or dit, got {self.net_name!r}")
        _check_data_options(self)
        _check_condition(self)


def _check_types(values: Mapping[str, Any]) -> None:
    kinds = {field.name: field.type for field in dataclasses.fields(TrainConfig)}
    for name, value in values.items():
        kind = kinds[name]
        allowed: Any = float | int if kind is float else kind
        # bool is a subclass of int, but steps=True is a mistake.
        mistaken_bool = isinstance(value, bool) and kind is not bool
        if mistaken_bool or not isinstance(value, allowed):
            expected = kind.__name__ if isinstance(kind, type) else str(kind)
            raise TypeError(f"{name} must be {expected}, got {value!r}")


def _check_names(config: TrainConfig) -> None:
    _check_name("objective", config.objective, OBJECTIVES)
    _check_name("path", config.path, PATHS)
    _check_name("coupling", config.coupling, COUPLINGS)
    _check_name("precision", config.precision, PRECISIONS)
    _check_name("net", config.net_name, tuple(PRESETS))
    _check_name("schedule", config.schedule, SCHEDULES)
    if config.objective == "efm" and config.coupling != "independent":
        raise ValueError(
            f"objective 'efm' needs coupling 'independent', got {config.coupling!r}: its target averages "
            "over the data that independent noise could have met"
        )


def _check_name(field: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        close = difflib.get_close_matches(value, valid, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{field} must be one of {', '.join(valid)}, got {value!r}{hint}")


def _check_data_options(config: TrainConfig) -> None:
    try:
        config.data.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"data must be valid Unicode to be written to {CONFIG_FILE}, got {config.data!r}") from error
    held_out = config.held_out
    if isinstance(held_out, float) and not 0 <= held_out < 1:
        raise ValueError(f"held_out must be a count or a share in [0, 1), got {held_out}")
    if held_out is not None and held_out < 0:
        raise ValueError(f"held_out must not be negative, got {held_out}")


def _check_condition(config: TrainConfig) -> None:
    near = config.reference_near
    if near is not None and (near < 0 or not config.reference_size or 0 < near < config.reference_size):
        needed = f"at least reference_size {config.reference_size}" if config.reference_size else "reference_size"
        raise ValueError(f"reference_near needs {needed}, got {config.reference_near}")
    asked = {"labels": config.labels, "captions": config.captions, "reference_size": config.reference_size}
    kinds = [name for name, value in asked.items() if value]
    if len(kinds) > 1:
        raise ValueError(f"a net takes one kind of condition: give {kinds[0]} or {kinds[1]}, not both")
    if not kinds and (config.mean_omega, config.mean_kappa) != (1.0, 0.0):
        raise ValueError("mean_omega and mean_kappa need a condition: give labels, captions or reference_size")
    if not kinds or kinds == ["labels"]:
        return
    if config.objective == "efm":
        raise ValueError(f"objective 'efm' cannot be given with {kinds[0]}: only labels have a bank of their own")
    if config.coupling == "ot":
        raise ValueError(
            f"coupling 'ot' cannot be given with {kinds[0]}: it would tie the noise to the condition, and sampling "
            "draws the noise without looking at it"
        )
    if config.captions and not config.data.startswith("folder:"):
        raise ValueError(f"captions needs data folder:PATH, got {config.data!r}")
    if config.reference_size and PRESETS[config.net_name].kind == "mlp":
        raise ValueError(f"reference_size needs net unet or dit, got {config.net_name!r}")


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
    for key in sorted(values.keys() - {"fluvial", "data_hash"} - set(names)):
        close = difflib.get_close_matches(key, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{run / CONFIG_FILE} has an unknown key {key!r}{hint}")
    given = {name: values[name] for name in names if name in values}
    try:
        _check_types(given)
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
    file = run / CONFIG_FILE
    if not run.is_dir():
        raise ValueError(f"{run} is not a run folder: there is no such folder")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{run} is not a run folder: it has no {CONFIG_FILE}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    # Other programs may have a key or a table of that name.
    if not all(isinstance(values.get(key), str) for key in ("fluvial", "data", "objective")):
        raise ValueError(
            f"{run} is not a run folder: {CONFIG_FILE} was not written by fluvial (no text under the keys "
            "fluvial, data and objective)"
        )
    return values
