"""The data that a run is trained on: loaded as its config says, and known by their hash."""

from pathlib import Path

from fluvial.data import Dataset, load_dataset
from fluvial.training.config import TrainConfig


def load_source(config: TrainConfig) -> Dataset:
    """The data set of a config; ``train`` is what is trained on, ``held_out`` what is not.

    Raises:
        ValueError: If the data are absent or cannot be used.
    """
    return load_dataset(config.data, seed=config.seed, size=config.size, held_out=config.held_out)


def check_same_data(data_hash: str | None, train: Dataset, where: Path) -> None:
    """Check that training data are those that a run was trained on.

    Args:
        data_hash: ``content_hash`` that was recorded; None where there is no record.
        train: The training data now.
        where: The folder that holds the record.

    Raises:
        ValueError: If the hashes differ.
    """
    if data_hash is not None and data_hash != train.content_hash:
        raise ValueError(
            f"the data have changed: {where} was trained on data with hash {data_hash[:12]}, "
            f"and {train.name} now has hash {train.content_hash[:12]}"
        )
