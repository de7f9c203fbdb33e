"""What a meta-training run is made of, as one flat table of scalars; imports no torch."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluvial import __version__
from fluvial.training.changes import check_same_settings
from fluvial.training.config import CONFIG_FILE
from fluvial.training.settings import check_types
from fluvial.training.toml import check_keys, dump_toml, read_toml, write_text

COMMAND = "support"
"""What a run's config says under the key ``command``."""
_SIZES = ("dim", "m", "least_m", "width", "blocks", "heads", "batch_size", "points", "bank", "steps")
_COUNTS = (*_SIZES, "log_every", "checkpoint_every", "keep")
# Beyond these nothing can be trained; a slip of the keyboard would only run out of time or memory.
_LARGEST = {
    "dim": 100_000,
    "m": 10_000,
    "points": 100_000,
    "bank": 100_000,
    "batch_size": 100_000,
    "width": 65_536,
    "blocks": 1000,
}
# Changing these leaves every update as it is. Data may have moved.
_FREE = frozenset({"log_every", "checkpoint_every", "keep"})


@dataclass(frozen=True)
class SupportConfig:
    """One meta-training run: a net learns to generate from a handful of examples, over many random tasks.

    Example:
        >>> SupportConfig(tasks="shells", dim=8).validate()
        >>> SupportConfig(m=0).validate()
        Traceback (most recent call last):
        ValueError: m must be at least 1, got 0
    """

    tasks: str = "shells"
    """Family of tasks: gmm, rings, moons, spirals, shells, fourier, several joined by +, or classes of a data set."""
    dim: int | None = None
    """Dimension of the points; of real data, the number of principal components. The family's own by default."""
    m: int = 50
    """Examples in a support."""
    least_m: int | None = None
    """Fewest examples: each update draws their number between this and m (evenly in its logarithm); m by default."""
    exact_head: bool = False
    """Give the net the exact velocity of the support as an input."""
    width: int = 96
    """Features of a point or an example."""
    blocks: int = 3
    """Blocks of cross-attention."""
    heads: int = 4
    """Heads of each attention; they divide the width."""
    batch_size: int = 32
    """Tasks per update."""
    points: int = 128
    """Points of each task that the net is trained on in an update."""
    bank: int = 256
    """Targets of each task that the velocity is averaged over, its own datum among them; 1 is plain CFM."""
    sigma_min: float = 0.01
    """Standard deviation left around each point at t = 1, in units of the points."""
    steps: int = 5000
    """Number of updates."""
    lr: float = 2e-3
    """Peak learning rate of AdamW; it rises over 100 updates and falls to 0 at the last."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    ema: float = 0.998
    """Decay of the moving average of the weights, which samples are drawn with; it warms up from 0.1."""
    seed: int = 0
    """Seed of the initial weights and of every draw."""
    log_every: int = 10
    """Updates between lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Updates between checkpoints; the last update always makes one."""
    keep: int = 2
    """Number of checkpoints kept."""

    def validate(self) -> None:
        """Check every field, and that the data of real tasks can be found.

        Raises:
            TypeError: If a field has the wrong type.
            ValueError: If a field has a value that cannot be trained with.
        """
        from fluvial.support.tasks.names import parse_family

        self.check_values()
        parse_family(self.tasks, self.dim)

    def check_values(self) -> None:
        """Check every field without looking at the disk: a run can be read where its data is absent.

        Raises:
            TypeError: If a field has the wrong type.
            ValueError: If a field has a value that cannot be trained with.
        """
        check_types(dataclasses.asdict(self), _KINDS)
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, largest in _LARGEST.items():
            if (getattr(self, name) or 0) > largest:
                raise ValueError(f"{name} must be at most {largest}, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide the width {self.width}, got {self.heads}")
        if self.least_m is not None and self.least_m > self.m:
            raise ValueError(f"least_m must be at most m = {self.m}, got {self.least_m}")
        if self.bank != 1 and self.bank < self.points:
            raise ValueError(f"bank must be 1 or at least points = {self.points}, got {self.bank}")
        for name in ("sigma_min", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "clip", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive and finite, got {self.lr}")


_KINDS = {field.name: field.type for field in dataclasses.fields(SupportConfig)}


def write_config(config: SupportConfig, run: Path) -> None:
    """Write ``run/config.toml``, replacing it in one step."""
    write_text(run / CONFIG_FILE, dump_toml({"fluvial": __version__, "command": COMMAND, **dataclasses.asdict(config)}))


def read_config(run: Path) -> SupportConfig:
    """Read the config of a run of ``fluvial support train``.

    Raises:
        ValueError: If the folder is no such run, or its config cannot be used.
    """
    values = _read_table(run)
    names = list(_KINDS)
    check_keys(values, {"fluvial", "command", *names}, run / CONFIG_FILE)
    given = {name: values[name] for name in names if name in values}
    try:
        check_types(given, _KINDS)
        config = SupportConfig(**given)
        config.check_values()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{run / CONFIG_FILE}: {error}") from error
    return config


def is_support_run(run: Path) -> bool:
    """Whether a folder says of itself that it is a run of ``fluvial support train``; it may be damaged beyond that."""
    try:
        return read_toml(run / CONFIG_FILE).get("command") == COMMAND
    except ValueError:
        return False


def _read_table(run: Path) -> dict[str, Any]:
    values = read_toml(run / CONFIG_FILE)
    if values.get("command") != COMMAND or not isinstance(values.get("fluvial"), str):
        what = "of fluvial train" if "objective" in values else "of fluvial"
        raise ValueError(f"{run} is a run {what}, and one of fluvial support train is needed")
    return values


def check_unchanged(config: SupportConfig, recorded: Any, where: Path) -> None:
    """Check that a config describes the training that was recorded.

    Args:
        config: The config now.
        recorded: Fields of the config then; those it lacks had their default.
        where: The run or checkpoint folder that holds the record.

    Raises:
        ValueError: If a field that decides the weights differs, or there is no record.
    """
    check_same_settings(config, recorded, where, _FREE)
