"""Data sets that Hugging Face `datasets` finds, in a folder or on the hub: which Parquet files a split is made of.

`datasets` resolves names, splits and the revision; the row groups are then read one by one, on the hub by the ranges of
the files that they take, so that where a step reads follows from the step. Pictures are not downloaded as a whole, not
even for their hash; a table's numbers are read twice, for their means and deviations. No code that comes with a data
set is run.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluvial.data.parquet_columns import Features
from fluvial.data.parquet_files import ParquetSource, local_source
from fluvial.data.quoting import first_line
from fluvial.data.specs import Spec


@dataclass(frozen=True)
class HubData:
    """One split.

    Args:
        sources: Its files, in order.
        features: What `datasets` knows about the columns; None if nothing.
    """

    sources: tuple[ParquetSource, ...]
    features: Features | None


def hub_data(spec: Spec) -> HubData:
    """The files of a split; if none is named, those of ``train``, or of the only split that there is.

    Args:
        spec: A spec of kind ``"hf"``.

    Raises:
        ValueError: If the extra ``hub`` is not installed, or there is no such data set or split, or it is not in
            Parquet.
        OSError: If the hub cannot be reached.
    """
    datasets = _import_datasets(spec)
    name = spec.name if spec.path is None else str(spec.path.absolute())
    if spec.path is not None and spec.path.is_file():
        return HubData((local_source(spec.path),), None)
    try:
        builder = datasets.load_dataset_builder(name)
    except FileNotFoundError as error:  # also what says that the hub knows no such name
        raise ValueError(f"hf:{name} holds no data set: {first_line(error)}") from None
    except OSError as error:
        raise OSError(f"hf:{name} cannot be reached: {first_line(error)}") from None
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise ValueError(f"hf:{name} cannot be read by datasets: {first_line(error)}") from None
    files = builder.config.data_files or {}
    split = spec.split or ("train" if "train" in files or len(files) != 1 else next(iter(files)))
    if split not in files:
        raise ValueError(f"hf:{name} has no split {split!r}; expected one of {', '.join(map(str, files)) or 'none'}")
    places = [str(place) for place in files[split]]
    other = next((place for place in places if not place.endswith(".parquet")), None)
    if other is not None or not places:
        raise ValueError(
            f"hf:{name} is not in Parquet, such as {other!r}; write it so: datasets.load_dataset(...).to_parquet(...)"
        )
    features = None if builder.info.features is None else builder.info.features.to_dict()
    return HubData(tuple(map(_source, places)), features)


def _source(place: str) -> ParquetSource:
    if "://" not in place:
        return local_source(Path(place))

    def opened() -> Any:
        import fsspec

        return fsspec.open(place, "rb").open()

    return ParquetSource(place, opened, identity=lambda: _identity(place))


def _identity(place: str) -> str:
    """The place, which on the hub names a revision that does not change, its size, and its tag where it has one."""
    import fsspec

    system, path = fsspec.core.url_to_fs(place)
    about = system.info(path)
    return json.dumps([place, about.get("size"), about.get("ETag")])


def _import_datasets(spec: Spec) -> Any:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"hf:{spec.name} needs datasets: install it with `pip install 'fluvial[hub]'`") from None
    return datasets
