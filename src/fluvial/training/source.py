"""The data that a run is trained on: loaded as its config says, and known by their hash and their form."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluvial.data import Dataset, Standardization, load_dataset, parse_spec
from fluvial.data.labels import class_numbers
from fluvial.data.quoting import one_line
from fluvial.progress import ProgressCallback
from fluvial.training.config import TrainConfig


@dataclass(frozen=True)
class DataForm:
    """What data are, without their values: samples that imitate them can be shown where they are absent.

    Args:
        name: Short name.
        kind: ``"image"``, ``"points"`` or ``"table"``.
        class_names: Names of the labels, in the order of their numbers; empty without labels.
        table: Map to original units, of a table.
    """

    name: str
    kind: str
    class_names: tuple[str, ...]
    table: Standardization | None


def absolute_data(data: str) -> str:
    """The spec of a data set that names the same data from any directory; a mere name stays as it is.

    Links are not followed: what they point to may lack the suffix that says how to read it.

    Raises:
        ValueError: If the data are absent.

    Example:
        >>> absolute_data("digits"), absolute_data("folder:.") == f"folder:{Path.cwd()}"
        ('digits', True)
    """
    spec = parse_spec(data)
    if spec.path is None:
        return data
    path = str(spec.path.absolute())
    if spec.kind == "hf" and spec.split:
        return f"hf:{path}:{spec.split}"
    if spec.kind in ("array", "table"):
        return path
    return f"{spec.kind}:{path}" if data.partition(":")[2] else data


def load_source(config: TrainConfig, progress: ProgressCallback | None = None) -> Dataset:
    """The data set of a config; ``train`` is what is trained on (with mirror images, if so), ``held_out`` what is not.

    Args:
        config: The config.
        progress: Called while a streamed file is checked.

    Raises:
        ValueError: If the data are absent or cannot be used.
    """
    data = load_dataset(
        config.data,
        seed=config.seed,
        size=config.size,
        held_out=config.held_out,
        stream=config.stream,
        progress=progress,
    )
    if config.without_classes:
        try:
            data = data.without_classes(class_numbers(config.without_classes, data.class_names))
        except ValueError as error:
            raise ValueError(f"without_classes {config.without_classes!r}: {error}") from error
    return data.with_mirror_images() if config.flip else data


def check_same_data(data_hash: Any, train: Dataset, where: Path) -> None:
    """Check that training data are those that a run was trained on.

    Args:
        data_hash: ``content_hash`` that was recorded; None where there is no record.
        train: The training data now.
        where: The folder that holds the record.

    Raises:
        ValueError: If the hashes differ.
    """
    if data_hash is None or data_hash == train.content_hash:
        return
    if not isinstance(data_hash, str):
        raise ValueError(f"{where} records no hash of the training data: data_hash is {data_hash!r}")
    hint = "" if not train.streamed else "; streamed pictures and tables have another hash than the same in memory"
    raise ValueError(
        f"the data have changed: {where} was trained on data with hash {data_hash[:12]}, "
        f"and {train.name} now has hash {train.content_hash[:12]}{hint}"
    )


def describe_data(train: Dataset) -> dict[str, Any]:
    """The :class:`DataForm` of training data as JSON values."""
    return dataclasses.asdict(DataForm(train.name, train.kind, train.class_names, train.table))


def read_data_form(values: Any, where: Path) -> DataForm:
    """The form of the training data as a checkpoint's JSON holds it.

    Args:
        values: The JSON value.
        where: The checkpoint, for messages.

    Raises:
        ValueError: If it describes no data.
    """
    try:
        if not isinstance(values, dict):
            raise TypeError(f"data is {values!r}")
        table = values["table"]
        units = None
        if table is not None:
            columns, dropped = _names(table["columns"]), _names(table["dropped"])
            units = Standardization(columns, _numbers(table["mean"]), _numbers(table["std"]), dropped)
        name, kind = _names([values["name"], values["kind"]])
        form = DataForm(name, kind, _names(values["class_names"]), units)
        if units is not None and not len(units.columns) == len(units.mean) == len(units.std):
            raise ValueError("columns and their units differ in number")
        if form.kind not in ("image", "points", "table") or (form.kind == "table") != (units is not None):
            raise ValueError(f"kind is {form.kind!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} does not describe its training data ({one_line(error)})") from error
    return form


def _names(values: list[Any]) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"expected names, got {values!r}")
    return tuple(values)


def _numbers(values: list[Any]) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
        raise TypeError(f"expected numbers, got {values!r}")
    return tuple(float(value) for value in values)
