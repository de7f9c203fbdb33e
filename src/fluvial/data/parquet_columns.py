"""Which columns of a Parquet file are pictures and labels, as Hugging Face `datasets` writes them and as others do."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluvial.data.tables import import_pyarrow

LABEL_NAMES = ("label", "labels", "class", "y")
"""Names by which a column is taken for labels where the file does not say."""


@dataclass(frozen=True)
class PictureColumns:
    """Columns of a file of pictures.

    Args:
        leaf: Where the bytes of the pictures' files lie: ``"image.bytes"`` of a struct, or a column of bytes.
        label: The column of labels; None if there is none.
        class_names: Names of the classes 0..C-1, where the file has them.
    """

    leaf: str
    label: str | None
    class_names: tuple[str, ...] | None


Features = Mapping[str, Mapping[str, Any]]


def picture_columns(schema: Any, name: str, features: Features | None = None) -> PictureColumns | None:
    """The columns of pictures and labels of an Arrow schema; None if no column holds pictures.

    Args:
        schema: The schema.
        name: The file, for messages.
        features: What `datasets` knows about the columns; what the schema notes about them if not given.

    Raises:
        ValueError: If more than one column holds pictures.
    """
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(field)) is not None}
    if not leaves:
        return None
    features = features or hub_features(schema)
    marked = [column for column in leaves if features.get(column, {}).get("_type") == "Image"]
    candidates = marked or list(leaves)
    if len(candidates) > 1:
        raise ValueError(f"{name} has {len(candidates)} columns of pictures ({', '.join(map(repr, candidates))})")
    label = _label(schema, features, candidates[0])
    names = features.get(label, {}).get("names") if label is not None else None
    usable = isinstance(names, list) and len(names) > 0 and all(isinstance(one, str) for one in names)
    return PictureColumns(leaves[candidates[0]], label, tuple(names) if usable and names is not None else None)


def hub_features(schema: Any) -> Features:
    """What `datasets` has noted about the columns in a file; empty where there is no such note, or a damaged one."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about for name, about in features.items() if isinstance(about, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _leaf(field: Any) -> str | None:
    types = import_pyarrow("reading Parquet")[0].types
    kind = field.type
    if types.is_struct(kind):
        inner = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return f"{field.name}.bytes" if "bytes" in inner and types.is_binary(inner["bytes"]) else None
    return field.name if types.is_binary(kind) or types.is_large_binary(kind) else None


def _label(schema: Any, features: Features, picture: str) -> str | None:
    classes = [column for column in schema.names if features.get(column, {}).get("_type") == "ClassLabel"]
    if len(classes) == 1:
        return str(classes[0])
    return next((name for name in LABEL_NAMES if name in schema.names and name != picture), None)
