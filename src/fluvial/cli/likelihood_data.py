"""The data whose density ``fluvial likelihood`` takes: refused early where they do not fit, read in the run's units."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fluvial.cli.classes import class_number
from fluvial.data.json_text import read_json
from fluvial.data.specs import Spec, parse_spec

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.audits.density import Part
    from fluvial.data import Dataset
    from fluvial.training import Run

NO_LABEL = "none"
"""The label that stands for no condition."""
_PICTURES = ("folder", "celeba")


def check_fit(data: str, run: Path) -> None:
    """Refuses data that are absent or whose head shows that they differ from those of a run; imports no torch.

    Args:
        data: Spec of the data.
        run: Folder of the run. What its newest checkpoint does not tell is left to those who load it.

    Raises:
        ValueError: As above.
    """
    spec, state = parse_spec(data), _newest_state(run)
    if spec.path is None or state is None:
        return
    shape, columns = state
    if spec.kind == "table":
        if columns is None:
            raise ValueError(f"--data {data} is a table, and {run} was trained on data of shape {shape}")
        if spec.path.suffix.lower() == ".csv":
            from fluvial.data.csv_text import read_cells

            missing = [name for name in columns if name not in map(str.strip, read_cells(spec.path)[0])]
            if missing:
                raise ValueError(_columns_differ(data, columns, f"it has no column {missing[0]!r}"))
    if spec.kind == "array" and (found := _array_shape(spec.path)) and math.prod(found[1:]) != math.prod(shape):
        raise ValueError(f"--data {data} must have data of shape {shape} as {run} has, got {found[1:]}")


def read_data(data: str, run: "Run", seed: int) -> "Dataset":
    """All data of a spec, in the units of a run's training data, which may be absent.

    Args:
        data: Spec of the data.
        run: The run.
        seed: Seed of the points of the toys.

    Raises:
        ValueError: If they cannot be read, or differ from the training data in shape, columns or classes.
    """
    import torch

    from fluvial.data import Dataset, load_dataset
    from fluvial.data.comparable import in_units_of

    spec, form = parse_spec(data), run.data_form
    kind = "image" if form.kind == "image" else "points"
    blank = torch.zeros(1, *run.net_spec.shape)
    like = Dataset(blank, table=form.table) if form.table else Dataset(blank, kind=cast(Any, kind))
    if spec.kind == "table":
        found = _rows_of_table(data, spec, like)
    elif spec.kind == "array":
        found = _rows_of_array(spec, like, form.class_names)
    else:
        size = run.config.size if spec.kind in _PICTURES else None
        found = load_dataset(data, seed=seed, size=size, held_out=0).train
    return in_units_of(like, found, f"--data {data}")


def file_names(data: str) -> tuple[str, ...]:
    """Names of the files of a folder of images, in their order; none for other data."""
    spec = parse_spec(data)
    if spec.kind != "folder" or spec.path is None:
        return ()
    from fluvial.data.pictures import picture_names

    return picture_names(spec.path)


def conditions_of(run: "Run", part: "Part", label: str | None) -> "Tensor | None":
    """Condition of each datum, in the run's numbers of the classes; None for none.

    Args:
        run: The run.
        part: The data.
        label: The class of all of them, ``"none"``, or None for each datum's own where the run takes labels.

    Raises:
        ValueError: If a class is unknown to the run.
    """
    import torch

    names, classes = run.data_form.class_names, run.net_spec.classes or 0
    if not run.config.labels or (label == NO_LABEL and NO_LABEL not in names):
        return None
    if label is not None:
        number = class_number(label, names, classes)
        if number in run.left_out_classes:
            raise ValueError(f"--label {label}: {run.folder} was trained without this class")
        return torch.full((len(part.x),), number)
    if part.labels is None:
        return None
    known = {name: number for number, name in enumerate(names)}
    present = part.labels.unique().tolist()
    unknown = [
        part.class_names[k] for k in present if known.get(part.class_names[k], -1) in (-1, *run.left_out_classes)
    ]
    if unknown:
        raise ValueError(f"the run was not trained on the class {unknown[0]!r} of the data; give --label NAME or none")
    numbers = torch.tensor([known.get(name, -1) for name in part.class_names])
    return numbers[part.labels]


def condition_name(run: "Run", part: "Part", label: str | None) -> str | None:
    """What densities are given, in words; None where there is no condition."""
    if not run.config.labels or (label == NO_LABEL and NO_LABEL not in run.data_form.class_names):
        return None
    return f"label {label}" if label is not None else (None if part.labels is None else "own labels")


def unit_of(run: "Run", part: "Part") -> str:
    """What a log-density is of."""
    table = run.data_form.table
    if table is not None:
        return f"{len(table.columns)} columns in their original units"
    if part.levels is not None:
        return f"images in [-1, 1], {part.levels} grey levels dequantised"
    return "images in [-1, 1], as they are" if run.data_form.kind == "image" else "points as they are"


def _rows_of_table(data: str, spec: Spec, like: "Dataset") -> "Dataset":
    from fluvial.data import Dataset
    from fluvial.data.tables import read_csv, read_parquet

    path = spec.path or Path()
    raw = read_csv(path) if path.suffix.lower() == ".csv" else read_parquet(path)
    if like.table is None:
        raise ValueError(f"--data {data} is a table, and the run was trained on data of shape {like.shape}")
    columns = like.table.columns
    missing = [name for name in columns if name not in raw.columns]
    extra = [name for name in raw.columns if name not in columns]
    if missing or extra:
        problem = f"it has no numeric column {missing[0]!r}" if missing else f"it also has {extra[0]!r}"
        raise ValueError(_columns_differ(data, columns, problem))
    rows = raw.values[:, [raw.columns.index(name) for name in columns]]
    return Dataset(like.table.forward(rows), name=spec.name, table=like.table)


def _rows_of_array(spec: Spec, like: "Dataset", names: Sequence[str]) -> "Dataset":
    """An array file, as ``fluvial train`` or ``fluvial sample`` writes and reads them; a table's in its own units."""
    from fluvial.data import Dataset
    from fluvial.data.numpy_files import load_arrays

    path = spec.path or Path()
    arrays = load_arrays(path)
    if "x" not in arrays:
        raise ValueError(f"{path} must have data under the key 'x', got {', '.join(map(repr, sorted(arrays)))}")
    x = arrays["x"]
    if like.table is not None and x.ndim == 2 and x.shape[1:] == like.shape:
        return Dataset(like.table.forward(x), name=spec.name, table=like.table)
    kind = None if x.dtype.name == "uint8" else cast(Any, "image" if like.kind == "image" else "points")
    if "labels" in arrays and "y" not in arrays:  # classes as fluvial sample numbers them
        return Dataset(x, arrays["labels"], name=spec.name, kind=kind, class_names=names)
    return Dataset(x, arrays.get("y"), name=spec.name, kind=kind)


def _columns_differ(data: str, columns: Sequence[str], problem: str) -> str:
    return f"--data {data} must have the columns of the training data ({', '.join(columns)}): {problem}"


def _newest_state(run: Path) -> tuple[tuple[int, ...], list[str] | None] | None:
    """Shape of a datum and columns that the newest checkpoint records; None if it does not."""
    try:
        folder = max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
        state = read_json(folder / "state.json")
        shape, table = state["net"]["shape"], state["data"]["table"]
        columns = None if table is None else list(table["columns"])
        if not all(type(n) is int for n in shape) or not all(isinstance(name, str) for name in columns or ()):
            return None
        return tuple(shape), columns
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _array_shape(path: Path) -> tuple[int, ...]:
    """Shape of an array file's data, from its head alone; none if it cannot be told."""
    from fluvial.data.numpy_files import array_heads

    try:
        return array_heads(path)["x"].shape
    except (ValueError, KeyError):
        return ()
