"""What ``fluvial audit`` looks at: the data that its options name, and what the report records of them."""

import platform
from typing import TYPE_CHECKING

from fluvial import __version__
from fluvial.training.config import TrainConfig

if TYPE_CHECKING:
    from fluvial.data import Dataset
    from fluvial.training import Run

_WITH_TEST_SET = ("fashion-mnist", "cifar10")
_OF_PICTURES = ("folder", "celeba")


def as_count(text: str) -> int | float | None:
    """A number or share of data, where the text is one.

    Example:
        >>> as_count("360"), as_count("0.2"), as_count("digits")
        (360, 0.2, None)
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def read_sets(
    train: str, held_out: str | None, *, size: int | None = None, seed: int = 0
) -> "tuple[Dataset, Dataset | None]":
    """Training and held-out data.

    Args:
        train: Spec of the training data.
        held_out: Spec of the held-out data; a number or share to split off the training data; or None for the test
            set that some data sets bring.
        size: Side in pixels to which pictures of folders are resized.
        seed: Of the split.

    Raises:
        ValueError: If they cannot be read, or do not fit together.
    """
    from fluvial.data import load_dataset
    from fluvial.data.comparable import read_held_out
    from fluvial.data.specs import parse_spec

    kind = parse_spec(train).kind
    side = size if kind in _OF_PICTURES else None
    count = 0 if held_out is None else as_count(held_out)
    if held_out is None and kind in _WITH_TEST_SET:
        count = None  # the data set's own split
    elif count is None and held_out is not None:
        known = load_dataset(train, seed=seed, size=side, held_out=0).train
        return known, read_held_out(held_out, known, size=size, seed=seed)
    data = load_dataset(train, seed=seed, size=side, held_out=count)
    return data.train, data.held_out if len(data.held_out) else None


def not_comparable(config: TrainConfig, guidance: float | None) -> str:
    """Why the exact field of the training data is not what a run's field was trained towards; empty if it is.

    Example:
        >>> not_comparable(TrainConfig(), None), not_comparable(TrainConfig(), 3.0)
        ('', 'not comparable: guidance 3 moves the field away from its target')
    """
    if config.coupling != "independent":
        return (
            f"not comparable: the run was trained with the coupling {config.coupling!r}, whose target is not the exact "
            "field of independent noise"
        )
    if config.objective == "meanflow" and (config.mean_omega, config.mean_kappa) != (1.0, 0.0):
        scale = config.mean_omega / (1 - config.mean_kappa)
        return f"not comparable: the run was trained with guidance {scale:g} in its target"
    if guidance is not None and guidance != 1:
        return f"not comparable: guidance {guidance:g} moves the field away from its target"
    return ""


def run_provenance(run: "Run", guidance: float | None) -> dict[str, str]:
    """What the report records of a run."""
    config = run.config
    conditional = ", conditioned on labels" if config.labels else ""
    if config.captions or config.reference_size is not None:
        conditional = f", conditioned on {'captions' if config.captions else 'references'}, audited without them"
    return {
        "run": f"{run.folder}, step {run.step:,}, objective {config.objective}, path {config.path}{conditional}",
        "weights": f"averaged (EMA {config.ema:g}), hash {run.checkpoint.hash[:16]}",
        **({} if guidance is None else {"guidance": f"{guidance:g}"}),
    }


def data_provenance(train: "Dataset", held_out: "Dataset | None") -> dict[str, str]:
    """What the report records of the data."""
    kept = "none" if held_out is None else f"{len(held_out):,}, hash {held_out.content_hash[:16]}"
    return {
        "training data": f"{train.name}, {len(train):,} of shape {train.shape}, hash {train.content_hash[:16]}",
        "held-out data": kept,
    }


def machine_provenance() -> dict[str, str]:
    """What the report records of versions and machine."""
    import torch

    return {
        "versions": f"fluvial {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, torch on {torch.get_num_threads()} thread(s)",
    }
