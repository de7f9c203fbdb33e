"""Small Parquet files of pictures, as Hugging Face `datasets` writes them."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["cat", "dog", "owl"]


def picture(seed: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> bytes:
    """Bytes of a PNG of random pixels."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels, mode).save(file, "PNG")
    return file.getvalue()


def write(path: Path, first: int = 0, count: int = 30, group: int = 7, noted: bool = True, **columns: list) -> Path:
    """Writes pictures number ``first`` to ``first + count``, ``group`` in a row group; ``columns`` replace others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = range(first, first + count)
    values = {
        "id": [f"p{i}" for i in numbers],
        "image": [{"bytes": picture(i), "path": f"{i}.png"} for i in numbers],
        "label": [i % 3 for i in numbers],
        **columns,
    }
    table = pa.table({name: column for name, column in values.items() if column is not None})
    if noted:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": CLASSES}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path
