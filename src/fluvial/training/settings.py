"""Which settings of a training run can be trained with; imports no torch."""

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fluvial.data.quoting import quoted
from fluvial.data.specs import check_stream
from fluvial.presets import PRESETS

if TYPE_CHECKING:
    from fluvial.training.config import TrainConfig

OBJECTIVES = ("cfm", "efm", "meanflow", "likelihood")
PATHS = ("condot", "vp", "cosine")
COUPLINGS = ("independent", "ot", "ot-rank")
ON_NAN = ("stop", "skip", "rollback")
PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("linear", "constant")
LIKELIHOOD_METHODS = ("euler", "midpoint", "heun", "rk4")
_COUNTS = (
    "size",
    "bank_size",
    "likelihood_steps",
    "reference_size",
    "width",
    "depth",
    "steps",
    "batch_size",
    "log_every",
    "checkpoint_every",
    "keep",
)
# Beyond these nothing can be trained; a slip of the keyboard would only run out of time or memory.
_LARGEST = {
    "likelihood_steps": 10_000,
    "reference_size": 1000,
    "size": 8192,
    "width": 65_536,
    "depth": 1000,
    "batch_size": 1_000_000,
    "seed": 2**63 - 1,
}
_MOST_NEAR = 1000


def check_types(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Refuse a value that is not of its setting's type.

    Args:
        values: Settings by name.
        kinds: The type of each.

    Raises:
        TypeError: If one has another type.
    """
    for name, value in values.items():
        kind = kinds[name]
        allowed: Any = float | int if kind is float else kind
        # bool is a subclass of int, but steps=True is a mistake.
        mistaken_bool = isinstance(value, bool) and kind not in (bool, bool | None)
        if mistaken_bool or not isinstance(value, allowed):
            expected = kind.__name__ if isinstance(kind, type) else str(kind)
            raise TypeError(f"{name} must be {expected}, got {quoted(value)}")


def check_settings(config: "TrainConfig") -> None:
    """Refuse settings that cannot be trained with, alone or together.

    Raises:
        ValueError: As above; the setting is named.
    """
    _check_names(config)
    for name in _COUNTS:
        value, largest = getattr(config, name), _LARGEST.get(name, math.inf)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
        if value is not None and value > largest:
            raise ValueError(f"{name} must be at most {largest}, got {value}")
    if config.width is not None and config.width % 8:
        raise ValueError(f"width must be a multiple of 8, got {config.width}")
    if not 0 <= config.mean_share <= 1:
        raise ValueError(f"mean_share must be in [0, 1], got {config.mean_share}")
    regularisers = ("likelihood_kinetic", "likelihood_jacobian")
    for name in ("warmup", "seed", "sample_every", "weight_decay", "clip", "spike", "mean_power", *regularisers):
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            expected = "finite and not negative" if isinstance(value, float) else "at least 0"
            raise ValueError(f"{name} must be {expected}, got {value}")
    if config.seed > _LARGEST["seed"]:
        raise ValueError(f"seed must be below 2^63, got a number of {config.seed.bit_length()} bits")
    if not abs(config.mean_omega) < math.inf:
        raise ValueError(f"mean_omega must be finite, got {config.mean_omega}")
    if not 0 < config.lr < math.inf:
        raise ValueError(f"lr must be positive and finite, got {config.lr}")
    for name in ("ema", "drop_cond", "beta2", "dropout", "mean_kappa"):
        if not 0 <= (getattr(config, name) or 0) < 1:
            raise ValueError(f"{name} must be in [0, 1), got {getattr(config, name)}")
    if config.dropout and PRESETS[config.net_name].kind == "mlp":
        raise ValueError(f"dropout needs net unet or dit, got {config.net_name!r}")
    if config.shard and config.objective not in ("cfm", "efm"):
        raise ValueError(f"shard needs objective 'cfm' or 'efm', got {config.objective!r}")
    if config.shard and config.precision == "fp16":
        raise ValueError("shard needs precision 'no' or 'bf16', got 'fp16'")
    _check_likelihood(config)
    _check_data_options(config)
    _check_condition(config)


_OBJECTIVE_OF = {"bank_": "efm", "mean_": "meanflow", "likelihood_": "likelihood"}


def check_effect(config: "TrainConfig", given: Collection[str]) -> None:
    """Refuse settings that were asked for and that change nothing beside the others.

    Args:
        config: All settings.
        given: Names of those that were asked for, whatever their values.

    Raises:
        ValueError: As above; the setting and what it needs are named.
    """
    for name in given:
        for prefix, objective in _OBJECTIVE_OF.items():
            if name.startswith(prefix) and config.objective != objective:
                raise ValueError(f"{name} needs objective {objective!r}, got {config.objective!r}")
        if name in ("path", "coupling") and config.objective == "likelihood":
            raise ValueError(f"{name} cannot be given with objective 'likelihood', which draws no noise")
        if name == "encoder" and not config.captions:
            raise ValueError("encoder needs captions, which it makes vectors of")
        if name == "drop_cond" and not (config.labels or config.captions or config.reference_size):
            raise ValueError("drop_cond needs a condition: give labels, captions or reference_size")


def _check_names(config: "TrainConfig") -> None:
    _check_name("objective", config.objective, OBJECTIVES)
    _check_name("path", config.path, PATHS)
    _check_name("coupling", config.coupling, COUPLINGS)
    _check_name("precision", config.precision, PRECISIONS)
    _check_name("on_nan", config.on_nan, ON_NAN)
    _check_name("net", config.net_name, tuple(PRESETS))
    _check_name("schedule", config.schedule, SCHEDULES)
    _check_name("likelihood_method", config.likelihood_method, LIKELIHOOD_METHODS)
    if config.objective == "efm" and config.coupling != "independent":
        raise ValueError(
            f"objective 'efm' needs coupling 'independent', got {config.coupling!r}: its target averages "
            "over the data that independent noise could have met"
        )


def _check_likelihood(config: "TrainConfig") -> None:
    """Maximum likelihood has neither path nor coupling, and takes second derivatives of the net."""
    if config.objective != "likelihood":
        return
    if config.path != "condot":
        raise ValueError(f"path cannot be given with objective 'likelihood', which needs none, got {config.path!r}")
    if config.coupling != "independent":
        raise ValueError(
            f"coupling cannot be given with objective 'likelihood', which draws no noise, got {config.coupling!r}"
        )
    if config.compile:
        raise ValueError("compile cannot be given with objective 'likelihood': compiled nets have no second derivative")
    if config.precision == "fp16":
        raise ValueError("precision 'fp16' cannot be given with objective 'likelihood': use 'bf16' or 'no'")


def _check_name(field: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        close = difflib.get_close_matches(value, valid, n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{field} must be one of {', '.join(valid)}, got {value!r}{hint}")


def _check_data_options(config: "TrainConfig") -> None:
    try:
        config.data.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"data must be valid Unicode to be written to config.toml, got {config.data!r}") from error
    check_stream(config.data, config.stream)
    held_out = config.held_out
    if isinstance(held_out, float) and not 0 <= held_out < 1:
        raise ValueError(f"held_out must be a count or a share in [0, 1), got {held_out}")
    if held_out is not None and held_out < 0:
        raise ValueError(f"held_out must not be negative, got {held_out}")


def _check_condition(config: "TrainConfig") -> None:
    near = config.reference_near
    if near is not None and (near < 0 or not config.reference_size or 0 < near < config.reference_size):
        needed = f"at least reference_size {config.reference_size}" if config.reference_size else "reference_size"
        raise ValueError(f"reference_near needs {needed}, got {config.reference_near}")
    if near is not None and near > _MOST_NEAR:
        raise ValueError(f"reference_near must be at most {_MOST_NEAR}, got {near}")
    asked = {"labels": config.labels, "captions": config.captions, "reference_size": config.reference_size}
    kinds = [name for name, value in asked.items() if value]
    if len(kinds) > 1:
        raise ValueError(f"{kinds[1]} cannot be given with {kinds[0]}: a net takes one kind of condition")
    for name, plain in (("mean_omega", 1.0), ("mean_kappa", 0.0)):
        if not kinds and getattr(config, name) != plain:
            raise ValueError(f"{name} needs a condition: give labels, captions or reference_size")
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
